"""What a status says of a sweep."""

from dataclasses import replace

import numpy as np
import optuna
import pytest
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from scipy import stats

from anomaly_search.space import FloatRange, Parameter, Space
from anomaly_search.summary import Counts, Improvement, summary
from anomaly_search.sweep import Constraint, Fidelity, Objective
from anomaly_search.trials import State, Trial
from support.sweeps import complete, sweep_of

POINT = {"x": 0.0, "y": 0.0}
TWO = (Objective("a"), Objective("b", "minimize"))


def test_each_point_is_counted_once_as_it_is_now() -> None:
    sweep = sweep_of(fidelity=Fidelity((0.25, 1.0), 2), constraints=(Constraint("bytes", max=1.0),))
    trials = [
        complete(0, POINT, 0.5, constraints=(0.5,)),
        complete(1, POINT, 0.6, constraints=(0.5,)),
        complete(1, POINT, 0.7, rung=1, constraints=(0.5,)),
        complete(2, POINT, 0.6, constraints=(0.5,)),
        Trial(2, POINT, State.RUNNING, rung=1, gpu_hours=0.25),
        Trial(3, POINT, State.FAILED),
        Trial(4, POINT, State.INFEASIBLE),
        Trial(5, POINT, State.PRUNED, gpu_hours=0.05),
        Trial(6, POINT, State.COMPLETE),  # without its metric
        complete(7, POINT, 0.99, constraints=(2.0,)),
    ]
    told = summary(sweep, trials)
    assert told.counts == Counts(asked=8, running=1, complete=2, pruned=1, infeasible=2, failed=2)
    assert told.gpu_hours == pytest.approx(0.8)


def test_the_best_ten_are_within_the_constraints_and_full_ones_come_first() -> None:
    sweep = sweep_of(fidelity=Fidelity((0.25, 1.0), 2), constraints=(Constraint("bytes", max=1.0),))
    low = [complete(number, POINT, number / 100, constraints=(0.5,)) for number in range(12)]
    trials = [*low, complete(3, POINT, 0.01, rung=1, constraints=(1.0,)), complete(20, POINT, 0.99, constraints=(2.0,))]
    best = summary(sweep, trials).best
    assert [(one.number, one.rung) for one in best] == [(3, 1), *((number, 0) for number in range(11, 3, -1)), (2, 0)]


def test_a_minimised_objective_has_its_smallest_on_top() -> None:
    trials = [complete(number, POINT, value) for number, value in enumerate([3.0, 1.0, 2.0, 1.0])]
    assert [one.number for one in summary(sweep_of(objectives=(TWO[1],)), trials).best] == [1, 3, 2, 0]


def test_the_pareto_front_is_that_of_optuna() -> None:
    generator = np.random.default_rng(3)
    values = generator.integers(0, 12, (60, 2)).astype(float)
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.add_trials([optuna.trial.create_trial(values=list(pair)) for pair in values])
    told = summary(sweep_of(objectives=TWO), [complete(n, POINT, *pair) for n, pair in enumerate(values)])
    assert [one.number for one in told.pareto_front] == [trial.number for trial in study.best_trials]


def test_one_objective_has_no_front() -> None:
    assert summary(sweep_of(), [complete(0, POINT, 0.5)]).pareto_front == ()


@pytest.mark.parametrize(("points", "top"), [(60, 0.1), (25, 0.2)], ids=["the best tenth", "the best five"])
def test_importances_are_those_of_optunas_ped_anova(points: int, top: float) -> None:
    generator = np.random.default_rng(3)
    places = generator.uniform(-5, 5, (points, 2)).tolist()
    trials = [complete(n, {"x": x, "y": y}, -(x**2) - 0.01 * y) for n, (x, y) in enumerate(places)]
    study = optuna.create_study(direction="maximize")
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(-5, 5) for name in "xy"
    }
    study.add_trials(
        [
            optuna.trial.create_trial(params=dict(t.parameters), distributions=distributions, value=t.objectives[0])
            for t in trials
        ]
    )
    expected = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=top))
    found = summary(sweep_of(), trials).importances
    assert found == pytest.approx(expected)
    assert sum(found.values()) == pytest.approx(1)
    assert found["x"] > 0.8


def test_a_few_points_have_no_importances() -> None:
    assert summary(sweep_of(), [complete(n, {"x": 0.1 * n, "y": 0.0}, n) for n in range(19)]).importances == {}


def test_importances_are_of_the_feasible_points_in_full() -> None:
    """The 20 that count are known for x alone, whatever the others are."""
    sweep = sweep_of(fidelity=Fidelity((0.25, 1.0), 2), constraints=(Constraint("bytes", max=1.0),))
    luck = np.random.default_rng(5)
    points = [{"x": float(x), "y": float(y)} for x, y in luck.uniform(-5, 5, (60, 2))]
    full = [complete(n, points[n], points[n]["x"], rung=1, constraints=(0.5,)) for n in range(20)]
    low = [complete(n, points[n], points[n]["y"], constraints=(0.5,)) for n in range(20, 40)]
    beyond = [complete(n, points[n], points[n]["y"], rung=1, constraints=(2.0,)) for n in range(40, 60)]
    found = summary(sweep, [*full, *low, *beyond]).importances
    assert found == summary(sweep, full).importances
    assert found["x"] > 0.9
    assert summary(sweep, [*full[1:], *low, *beyond]).importances == {}


@pytest.mark.parametrize("objectives", [1, 2])
def test_importances_of_few_parameters_are_numbers(objectives: int) -> None:
    space = Space((Parameter("x", FloatRange(0, 1)),))
    trials = [complete(n, {"x": 0.01 * n}, *[0.5] * objectives) for n in range(20)]
    importances = summary(sweep_of(space, objectives=TWO[:objectives]), trials).importances
    assert importances in ({}, {"x": 1.0})


def rungs(low: list[float], high: list[float]) -> list[Trial]:
    return [
        *(complete(number, POINT, value) for number, value in enumerate(low)),
        *(complete(number, POINT, value, rung=1) for number, value in enumerate(high)),
    ]


def test_rungs_are_correlated_by_spearman_over_what_was_measured_at_both() -> None:
    sweep = sweep_of(fidelity=Fidelity((0.25, 1.0), 2))
    low, high = [0.5, 0.6, 0.7, 0.8, 0.9, 0.1], [0.6, 0.55, 0.8, 0.7, 0.99]
    told = summary(sweep, rungs(low, high))
    assert told.rung_correlations == pytest.approx((stats.spearmanr(low[:5], high).statistic,))
    assert told.warnings == ()


def test_a_rung_that_says_little_of_the_next_is_told() -> None:
    sweep = sweep_of(fidelity=Fidelity((0.25, 1.0), 2))
    (warning,) = summary(sweep, rungs([1, 2, 3, 4, 5], [3, 1, 5, 2, 4])).warnings
    # 1 - 6 x (4 + 1 + 4 + 4 + 1) / (5 x 24)
    assert warning.startswith("rung 0 says little about rung 1: their rank correlation is 0.30, below 0.5")
    # 1 - 6 x (4 + 0 + 4 + 1 + 1) / (5 x 24)
    assert summary(sweep, rungs([1, 2, 3, 4, 5], [3, 2, 1, 5, 4])).warnings == (), "a half is enough"
    # 1 - 6 x 144 / (12 x 143) = 0.497, which would be told as 0.50
    nearly = [1.0, 6, 0, 2, 5, 8, 11, 4, 10, 9, 3, 7]
    assert summary(sweep, rungs([float(place) for place in range(12)], nearly)).warnings == ()


def test_too_few_or_equal_values_are_not_correlated() -> None:
    sweep = sweep_of(fidelity=Fidelity((0.25, 1.0), 2))
    assert summary(sweep, rungs([1, 2, 3, 4, 5], [4, 3, 2, 1])).rung_correlations == (None,)
    assert summary(sweep, rungs([1, 2, 3, 4, 5], [1, 1, 1, 1, 1])).rung_correlations == (None,)


def test_the_history_has_each_new_best_by_the_time_of_its_end() -> None:
    trials = [complete(number, POINT, value) for number, value in enumerate([0.5, 0.4, 0.5, 0.9, 0.7])]
    late = replace(trials[0], ended=trials[4].ended)
    assert [(one.number, one.objectives) for one in summary(sweep_of(), trials).history] == [(0, (0.5,)), (3, (0.9,))]
    assert summary(sweep_of(), [late, *trials[1:]]).history == (
        Improvement(1, trials[1].ended, (0.4,)),
        Improvement(2, trials[2].ended, (0.5,)),
        Improvement(3, trials[3].ended, (0.9,)),
    )


def test_nothing_is_told_of_nothing() -> None:
    told = summary(sweep_of(fidelity=Fidelity((0.25, 1.0), 2)), [])
    assert told.counts.asked == 0
    assert [told.best, told.history, told.warnings] == [(), (), ()]
    assert told.rung_correlations == (None,)


def test_importances_of_many_points_are_of_the_first_to_end_until_there_are_a_tenth_more() -> None:
    luck = np.random.default_rng(2)
    points = [{"x": float(x), "y": float(y)} for x, y in luck.random((60, 2))]
    trials = [complete(number, point, point["x"] + point["y"] / 2) for number, point in enumerate(points)]
    found = {count: summary(sweep_of(), trials[:count]).importances for count in (49, 50, 54, 55, 59, 60)}
    assert found[49] != found[50]
    assert found[50] == found[54] != found[55]
    assert found[55] == found[59] != found[60]
