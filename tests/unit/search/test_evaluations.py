"""What the runs of a point say of it: aggregates, missing metrics, replicates that can be saved."""

import math
from dataclasses import replace
from typing import Literal

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anomaly_search.evaluations import HOPELESS, Evaluation, fold
from anomaly_search.racing import is_hopeless
from anomaly_search.sweep import Constraint, Fidelity, Objective, Racing, Replicates
from anomaly_search.trials import State, Trial
from support.sweeps import complete, sweep_of

RACING = Racing()
POINT = {"x": 0.0, "y": 0.0}


def replicates(number: int, *values: float) -> list[Trial]:
    return [complete(number, POINT, value, replicate=place) for place, value in enumerate(values)]


def test_a_points_value_is_the_mean_with_its_standard_error() -> None:
    (one,) = fold(sweep_of(replicates=Replicates(4)), replicates(0, 0.9, 0.92, 0.94, 1.0))
    assert one.state is State.COMPLETE
    assert one.objectives == pytest.approx((0.94,))
    assert one.errors == pytest.approx((stats.sem([0.9, 0.92, 0.94, 1.0]),))
    assert one.gpu_hours == pytest.approx(0.4)


def test_a_point_is_that_of_its_runs_with_the_values_that_are_asked_for() -> None:
    (one,) = fold(sweep_of(), [complete(3, POINT, 0.9, 0.1, rung=1, constraints=(5.0,))])
    assert (one.number, one.rung, one.parameters, one.reason) == (3, 1, POINT, "")
    assert (one.objectives, one.errors, one.violations) == ((0.9,), (None,), ())


@pytest.mark.parametrize(("aggregate", "value"), [("median", 0.9), ("min", 0.2), ("max", 1.0)])
def test_other_aggregates_can_be_asked_for(aggregate: Literal["median", "min", "max"], value: float) -> None:
    (one,) = fold(sweep_of(replicates=Replicates(3, aggregate)), replicates(0, 0.9, 0.2, 1.0))
    assert (one.objectives, one.errors) == ((value,), (None,))


def test_one_run_has_no_standard_error() -> None:
    (one,) = fold(sweep_of(), replicates(0, 0.9))
    assert (one.objectives, one.errors) == ((0.9,), (None,))


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_complete_run_without_its_metric_has_failed(value: float | None) -> None:
    """Katib counts it as succeeded and goes on without a value."""
    (one,) = fold(sweep_of(), [Trial(0, POINT, State.COMPLETE, (value,))])
    assert (one.state, one.reason) == (State.FAILED, "MetricMissing: image.AUROC")


def test_a_complete_run_without_a_bounded_metric_has_failed() -> None:
    (one,) = fold(sweep_of(constraints=(Constraint("bytes", max=1.0),)), [complete(0, POINT, 0.9)])
    assert (one.state, one.reason) == (State.FAILED, "MetricMissing: bytes")


def test_a_missing_objective_is_not_taken_from_the_next() -> None:
    sweep = sweep_of(objectives=(Objective("a"),), constraints=(Constraint("b", max=1.0), Constraint("c", max=1.0)))
    (one,) = fold(sweep, [Trial(0, POINT, State.COMPLETE, (0.5, 0.1), (0.2,))])
    assert one.reason == "MetricMissing: c"


@pytest.mark.parametrize(
    ("constraint", "value", "violation"),
    [
        (Constraint("m", max=200.0), 300.0, 0.5),
        (Constraint("m", max=200.0), 100.0, -0.5),
        (Constraint("m", min=0.8), 0.6, 0.25),
        (Constraint("m", max=0.0), 3.0, 3.0),
        (Constraint("m", max=-2.0), -1.0, 0.5),
        (Constraint("m", min=0.0), -3.0, 3.0),
        (Constraint("m", min=-2.0), -3.0, 0.5),
    ],
)
def test_violations_are_shares_of_the_bound(constraint: Constraint, value: float, violation: float) -> None:
    (one,) = fold(sweep_of(constraints=(constraint,)), [complete(0, POINT, 0.9, constraints=(value,))])
    assert one.violations == pytest.approx((violation,))
    assert one.feasible is (violation <= 0)


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ((State.COMPLETE, State.COMPLETE), State.COMPLETE),
        ((State.COMPLETE,), State.RUNNING),
        ((State.COMPLETE, State.RUNNING), State.RUNNING),
        ((State.RUNNING, State.INFEASIBLE), State.INFEASIBLE),
        ((State.FAILED, State.INFEASIBLE), State.INFEASIBLE),
        ((State.COMPLETE, State.FAILED), State.FAILED),
        ((State.PRUNED,), State.PRUNED),
    ],
)
def test_replicates_say_together_how_a_point_is(states: tuple[State, ...], state: State) -> None:
    trials = [replace(complete(0, POINT, 0.5), state=each, replicate=place) for place, each in enumerate(states)]
    (one,) = fold(sweep_of(replicates=Replicates(2)), trials)
    assert one.state is state


def test_rungs_are_points_of_their_own() -> None:
    found = fold(
        sweep_of(fidelity=Fidelity((0.25, 1.0))), [complete(0, POINT, 0.8, rung=1), complete(0, POINT, 0.7, rung=0)]
    )
    assert [(one.rung, one.objectives) for one in found] == [(0, (0.7,)), (1, (0.8,))]


def state_of_second(best: list[float], second: list[float], racing: Racing | None = RACING) -> Evaluation:
    sweep = sweep_of(replicates=Replicates(len(best), racing=racing))
    return fold(sweep, [*replicates(0, *best), *replicates(1, *second)])[1]


@pytest.mark.parametrize(
    ("second", "hopeless"),
    [
        ([0.60, 0.61, 0.52], False),  # three pairs cannot say it: one in eight
        ([0.60, 0.51, 0.42, 0.69], True),  # four worse: one in sixteen
        ([0.60, 0.92, 0.42, 0.69], False),  # one better, by little: two in sixteen
        ([0.90, 0.91, 0.82, 0.99], False),  # the same
        ([0.91, 0.92, 0.83, 0.995], False),  # better
    ],
)
def test_a_point_that_is_worse_in_each_category_saves_its_others(second: list[float], hopeless: bool) -> None:
    one = state_of_second([0.90, 0.91, 0.82, 0.99, 0.9], second)
    assert (one.state is State.PRUNED) is hopeless
    assert (one.reason == HOPELESS) is hopeless


@pytest.mark.parametrize(
    ("racing", "hopeless"),
    [
        (Racing(), True),
        (Racing(after_replicates=4), True),
        (Racing(after_replicates=5), False),
        (Racing(level=0.07), True),  # four worse: one in sixteen
        (Racing(level=1 / 16), False),
        (None, False),
    ],
)
def test_saving_replicates_is_a_choice(racing: Racing | None, hopeless: bool) -> None:
    one = state_of_second([0.90, 0.91, 0.82, 0.99, 0.9], [0.60, 0.51, 0.42, 0.69], racing)
    assert (one.state is State.PRUNED) is hopeless


@pytest.mark.parametrize(("after", "hopeless"), [(0, True), (2, True), (3, False)])
def test_two_replicates_are_enough_for_a_level_that_they_can_reach(after: int, hopeless: bool) -> None:
    assert is_hopeless({0: 0.5}, {0: 0.1}, Racing(after, 0.6)) is False, "one never is"
    assert is_hopeless({0: 0.5, 1: 0.6}, {0: 0.1, 1: 0.1}, Racing(after, 0.3)) is hopeless


@pytest.mark.parametrize(("last", "hopeless"), [(1.25, False), (1.0, True)])
def test_what_is_as_good_in_the_mean_is_not_given_up(last: float, hopeless: bool) -> None:
    """A quarter in each of four against nothing in these, and much in a fifth one: a quarter in the mean, or less."""
    best = {**dict.fromkeys(range(4), 0.0), 4: last}
    assert is_hopeless(dict.fromkeys(range(4), 0.25), best, Racing()) is hopeless


def test_nothing_is_given_up_while_one_of_its_runs_is_at_work() -> None:
    sweep = sweep_of(replicates=Replicates(5))
    trials = [*replicates(0, 0.9, 0.91, 0.82, 0.99, 0.9), *replicates(1, 0.6, 0.51, 0.42, 0.69)]
    assert fold(sweep, trials)[1].state is State.PRUNED
    assert fold(sweep, [*trials, Trial(1, POINT, State.RUNNING, replicate=4)])[1].state is State.RUNNING


@pytest.mark.parametrize(
    ("wholes", "hopeless"),
    [
        ([(0.5, 0.5, 0.5, 0.5, 0.5), (0.9, 0.91, 0.82, 0.99, 0.9)], True),
        ([(0.9, 0.91, 0.82, 0.99, 0.9), (0.5, 0.5, 0.5, 0.5, 0.5)], True),
        ([(0.5, 0.5, 0.5, 0.5, 0.5), (0.4, 0.4, 0.4, 0.4, 0.4)], False),
    ],
)
def test_a_point_is_held_against_the_best_of_the_others(wholes: list[tuple[float, ...]], hopeless: bool) -> None:
    sweep = sweep_of(replicates=Replicates(5))
    trials = [trial for number, values in enumerate(wholes) for trial in replicates(number, *values)]
    one = fold(sweep, [*trials, *replicates(2, 0.6, 0.61, 0.52, 0.69)])[2]
    assert (one.reason == HOPELESS) is hopeless


def test_losses_of_minimised_objectives_are_compared_the_other_way() -> None:
    sweep = sweep_of(replicates=Replicates(5), objectives=(Objective("ms", "minimize"),))
    trials = [*replicates(0, 0.9, 0.91, 0.82, 0.99, 0.9), *replicates(1, 0.6, 0.51, 0.42, 0.69)]
    assert fold(sweep, trials)[1].state is State.RUNNING
    trials = [*replicates(0, 0.6, 0.51, 0.42, 0.69, 0.5), *replicates(1, 0.9, 0.91, 0.82, 0.99)]
    assert fold(sweep, trials)[1].state is State.PRUNED


def test_several_objectives_give_nothing_up() -> None:
    sweep = sweep_of(replicates=Replicates(5), objectives=(Objective("a"), Objective("b")))
    trials = [complete(0, POINT, 0.9, 0.9, replicate=place) for place in range(5)]
    trials += [complete(1, POINT, 0.1 * place, 0.0, replicate=place) for place in range(4)]
    assert fold(sweep, trials)[1].state is State.RUNNING


losses = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=7)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@settings(deadline=None, derandomize=True, database=None, max_examples=80)
@given(losses, losses, st.integers(0, 5), st.sampled_from([0.05, 0.1, 0.3]))
def test_it_gives_up_what_optunas_wilcoxon_pruner_does(
    own: list[float], best: list[float], after: int, level: float
) -> None:
    own = own[: len(best)]
    study = optuna.create_study(pruner=optuna.pruners.WilcoxonPruner(p_threshold=level, n_startup_steps=after))
    study.add_trial(optuna.trial.create_trial(value=0.0, intermediate_values=dict(enumerate(best))))
    trial = study.ask()
    for step, loss in enumerate(own):
        trial.report(loss, step)
    assert is_hopeless(dict(enumerate(own)), dict(enumerate(best)), Racing(after, level)) is trial.should_prune()
