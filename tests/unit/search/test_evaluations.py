"""What the runs of a point say of it: aggregates, missing metrics, replicates that can be saved."""

import math
from dataclasses import replace

import pytest
from scipy import stats

from anomaly_search.evaluations import HOPELESS, Evaluation, fold
from anomaly_search.racing import is_hopeless
from anomaly_search.sweep import Constraint, Fidelity, Objective, Replicates
from anomaly_search.trials import State, Trial
from support.sweeps import complete, sweep_of

POINT = {"x": 0.0, "y": 0.0}


def replicates(number: int, *values: float) -> list[Trial]:
    return [complete(number, POINT, value, replicate=place) for place, value in enumerate(values)]


def test_a_points_value_is_the_mean_with_its_standard_error() -> None:
    (one,) = fold(sweep_of(replicates=Replicates(4)), replicates(0, 0.9, 0.92, 0.94, 1.0))
    assert one.state is State.COMPLETE
    assert one.objectives == pytest.approx((0.94,))
    assert one.errors == pytest.approx((stats.sem([0.9, 0.92, 0.94, 1.0]),))
    assert one.gpu_hours == pytest.approx(0.4)


def test_the_median_can_be_asked_for() -> None:
    (one,) = fold(sweep_of(replicates=Replicates(3, "median")), replicates(0, 0.9, 0.2, 1.0))
    assert one.objectives == (0.9,)


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


def state_of_second(best: list[float], second: list[float]) -> Evaluation:
    sweep = sweep_of(replicates=Replicates(len(best)))
    return fold(sweep, [*replicates(0, *best), *replicates(1, *second)])[1]


@pytest.mark.parametrize(
    ("second", "hopeless"),
    [
        ([0.40], False),  # one says nothing
        ([0.40, 0.81], False),  # worse by 0.5 and 0.1: a t-test on one degree of freedom does not say so
        ([0.60, 0.61, 0.52], True),  # worse by 0.30 in each category
        ([0.91, 0.90, 0.84], False),  # better
        ([0.90, 0.91, 0.82], False),  # the same
        ([0.80, 0.81, 0.72], True),  # worse by exactly 0.1 each time
        ([0.90, 0.81, 0.82], False),  # worse once
    ],
)
def test_a_point_that_is_worse_in_each_category_saves_its_others(second: list[float], hopeless: bool) -> None:
    one = state_of_second([0.90, 0.91, 0.82, 0.99], second)
    assert (one.state is State.PRUNED) is hopeless
    assert (one.reason == HOPELESS) is hopeless


def test_nothing_is_given_up_while_one_of_its_runs_is_at_work() -> None:
    sweep = sweep_of(replicates=Replicates(4))
    trials = [*replicates(0, 0.9, 0.91, 0.82, 0.99), *replicates(1, 0.6, 0.61, 0.52)]
    assert fold(sweep, trials)[1].state is State.PRUNED
    assert fold(sweep, [*trials, Trial(1, POINT, State.RUNNING, replicate=3)])[1].state is State.RUNNING


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    best, other = {0: 0.1, 1: 0.2, 2: 0.15}, {0: 0.2, 1: 0.29, 2: 0.27}
    assert stats.ttest_rel(list(other.values()), list(best.values()), alternative="greater").pvalue < 0.01
    assert is_hopeless(other, best)
    other[2] = 0.16
    assert stats.ttest_rel(list(other.values()), list(best.values()), alternative="greater").pvalue > 0.01
    assert not is_hopeless(other, best)


def test_losses_of_minimised_objectives_are_compared_the_other_way() -> None:
    sweep = sweep_of(replicates=Replicates(4), objectives=(Objective("ms", "minimize"),))
    found = fold(sweep, [*replicates(0, 0.9, 0.91, 0.82, 0.99), *replicates(1, 0.6, 0.61, 0.52)])
    assert found[1].state is State.RUNNING
