"""What is started next, what is stopped, and when a sweep is over."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from anomaly_api.sweep_exchange import RunOfPoint
from anomaly_api.sweep_status import StopReason
from anomaly_search.evaluations import fold
from anomaly_search.promotion import promotions
from anomaly_search.schedule import Decisions, Start, schedule
from anomaly_search.sweep import Budget, Constraint, Fidelity, Limits, Objective, Replicates, Sweep
from anomaly_search.trials import State, Trial
from support.sweeps import BEGIN, FINITE, complete, sweep_of

POINT = {"x": 0.0, "y": 0.0}


def decide(sweep: Sweep, trials: Iterable[Trial], minutes: float = 60) -> Decisions:
    return schedule(sweep, trials, BEGIN + timedelta(minutes=minutes))


def numbers(starts: Iterable[Start]) -> list[int]:
    return [start.identity.number for start in starts]


def running(number: int, **options: Any) -> Trial:
    return Trial(number, POINT, State.RUNNING, started=BEGIN, **options)


def failed(number: int, reason: str) -> Trial:
    return Trial(number, POINT, State.FAILED, reason=reason)


def values(*objectives: float, **options: Any) -> list[Trial]:
    return [complete(number, POINT, value, **options) for number, value in enumerate(objectives)]


def test_it_begins_with_as_many_as_may_run() -> None:
    decided = decide(sweep_of(limits=Limits(10, 3)), [])
    assert decided == Decisions(start=tuple(Start(RunOfPoint(number, 0, 0)) for number in range(3)))


def test_it_fills_up_what_has_become_free() -> None:
    decided = decide(sweep_of(limits=Limits(10, 3)), [*values(0.5, 0.6), running(2)])
    assert numbers(decided.start) == [3, 4]


def test_it_never_asks_beyond_the_most() -> None:
    decided = decide(sweep_of(limits=Limits(4, 3)), [*values(0.5, 0.6), running(2)])
    assert numbers(decided.start) == [3]
    decided = decide(sweep_of(limits=Limits(4, 3)), [*values(0.5, 0.6), running(2), running(3)])
    assert decided == Decisions()


def test_a_smaller_parallel_stops_nothing() -> None:
    decided = decide(sweep_of(limits=Limits(10, 1)), [running(number) for number in range(4)])
    assert decided == Decisions()


def test_nothing_may_run_at_all() -> None:
    assert decide(sweep_of(limits=Limits(10, 0)), values(0.5)) == Decisions()


def test_it_ends_when_all_are_done() -> None:
    decided = decide(sweep_of(limits=Limits(2, 3)), values(0.5, 0.6))
    assert decided.end
    assert (decided.end.reason, decided.end.message) == (StopReason.MAX_TRIALS, "all 2 trials are done")
    assert (decided.start, decided.stop) == ((), ())


def test_it_goes_on_when_more_may_be_asked_after_the_end() -> None:
    decided = decide(sweep_of(limits=Limits(4, 3)), values(0.5, 0.6))
    assert decided == Decisions(start=(Start(RunOfPoint(2, 0, 0)), Start(RunOfPoint(3, 0, 0))))


def test_deleted_trials_are_asked_again_under_their_numbers() -> None:
    done = values(*([0.5] * 6))
    decided = decide(sweep_of(limits=Limits(10, 3)), [done[0], done[2], done[5]])
    assert numbers(decided.start) == [1, 3, 4]


def test_a_preempted_trial_keeps_its_slot_and_its_number() -> None:
    """It is running until it is over: no second one takes its place."""
    decided = decide(sweep_of(limits=Limits(10, 2)), [replace(running(0), reason="Preempted"), running(1)])
    assert decided == Decisions()


def test_a_finite_space_ends_with_its_last_point() -> None:
    from anomaly_search import points

    done = [complete(number, points.point_at(FINITE, number), 0.5) for number in range(14)]
    sweep = sweep_of(FINITE, limits=Limits(100, 8))
    assert numbers(decide(sweep, done[:10]).start) == [10, 11, 12, 13]
    end = decide(sweep, done).end
    assert end
    assert (end.reason, end.message) == (StopReason.EXHAUSTED, "all 14 points of the space are tried")


def test_points_that_the_space_does_not_hold_take_no_place_of_it() -> None:
    """The space was another one when they were asked."""
    other = complete(0, {"model": "padim", "features": 75, "size": {"height": 256}}, 0.5)
    assert numbers(decide(sweep_of(FINITE, limits=Limits(100, 20)), [other]).start) == list(range(1, 15))


def test_the_target_ends_it_at_once() -> None:
    sweep = sweep_of(objectives=(Objective("image.AUROC", target=0.99),))
    assert decide(sweep, values(0.98, 0.9899)).end is None
    decided = decide(sweep, [*values(0.98, 0.99), running(2)])
    assert decided.end
    assert decided.end.reason is StopReason.TARGET_REACHED
    assert decided.end.message == "trial 1 reached the target: image.AUROC 0.99"
    assert decided.stop == (RunOfPoint(2, 0, 0),)


def test_a_target_of_a_minimised_objective_is_below() -> None:
    sweep = sweep_of(objectives=(Objective("ms", "minimize", target=5.0),))
    assert decide(sweep, values(6.0)).end is None
    assert decide(sweep, values(6.0, 4.0)).end


def test_all_targets_have_to_be_reached_by_one_trial() -> None:
    sweep = sweep_of(objectives=(Objective("a", target=0.9), Objective("b", "minimize", target=5.0), Objective("c")))
    apart = [complete(0, POINT, 0.95, 6.0, 0.0), complete(1, POINT, 0.85, 4.0, 0.0)]
    assert decide(sweep, apart).end is None
    end = decide(sweep, [*apart, complete(2, POINT, 0.9, 5.0, 0.0)]).end
    assert end
    assert end.message == "trial 2 reached the target: a 0.9, b 5"


def test_a_target_beyond_a_constraint_or_at_a_low_rung_is_not_reached() -> None:
    bounded = sweep_of(objectives=(Objective("a", target=0.9),), constraints=(Constraint("bytes", max=1.0),))
    assert decide(bounded, values(0.95, constraints=(2.0,))).end is None
    assert decide(bounded, values(0.95, constraints=(1.0,))).end
    rungs = sweep_of(objectives=(Objective("a", target=0.9),), fidelity=Fidelity((0.25, 1.0), 2))
    assert decide(rungs, values(0.95)).end is None
    assert decide(rungs, values(0.95, rung=1)).end


def test_too_many_failures_end_it_with_the_commonest_reasons_and_stop_what_runs() -> None:
    reasons = ["DataError", "StorageError", "DataError", "WeightsError", "StorageError", "DataError", "Other"]
    trials = [failed(number, reason) for number, reason in enumerate(reasons)]
    assert decide(sweep_of(limits=Limits(20, 4, max_failed=7)), [*trials, running(7)]).end is None
    decided = decide(sweep_of(limits=Limits(20, 4, max_failed=6)), [*trials, running(7)])
    assert decided.end
    assert decided.end.reason is StopReason.MAX_FAILED
    assert decided.end.message == "7 trials failed, 6 may: DataError (3 x), StorageError (2 x), Other (1 x)"
    assert (decided.start, decided.stop) == ((), (RunOfPoint(7, 0, 0),))


def test_a_failure_without_a_reason_is_told_as_unknown() -> None:
    end = decide(sweep_of(limits=Limits(20, 4, max_failed=0)), [failed(0, "")]).end
    assert end
    assert end.message == "1 trials failed, 0 may: unknown (1 x)"


def test_infeasible_and_pruned_trials_are_no_failures() -> None:
    trials = [replace(failed(number, "OutOfMemory"), state=State.INFEASIBLE) for number in range(9)]
    assert decide(sweep_of(limits=Limits(20, 4, max_failed=0)), trials).end is None
    assert decide(sweep_of(limits=Limits(20, 4, max_failed=0)), [failed(0, "DataError")]).end


def test_spent_gpu_hours_end_it_at_once() -> None:
    sweep = sweep_of(budget=Budget(gpu_hours=0.35))
    decided = decide(sweep, [*values(0.5, 0.6), running(2, gpu_hours=0.15)])
    assert decided.end
    assert decided.end.reason is StopReason.GPU_HOURS
    assert decided.end.message == "0.35 of 0.35 GPU hours are spent"
    assert decided.stop == (RunOfPoint(2, 0, 0),)


def test_what_is_stopped_is_named_with_its_fidelity_and_replicate() -> None:
    sweep = sweep_of(budget=Budget(gpu_hours=0.1), fidelity=Fidelity((0.25, 1.0), 2), replicates=Replicates(3))
    at_work = [running(3, rung=1, replicate=2), running(3, rung=1, replicate=0), running(4)]
    decided = decide(sweep, [*values(0.5), *at_work])
    assert decided.stop == (RunOfPoint(3, 1, 2), RunOfPoint(3, 1, 0), RunOfPoint(4, 0, 0))


def test_hours_of_runs_that_are_gone_count() -> None:
    """Two trials took 0.1 each, and one that was deleted 0.2: of 0.45 there is too little left for another one."""
    sweep = sweep_of(limits=Limits(10, 1), budget=Budget(gpu_hours=0.45))
    now = BEGIN + timedelta(hours=1)
    assert numbers(schedule(sweep, values(0.5, 0.6), now).start) == [2]
    refused = schedule(sweep, values(0.5, 0.6), now, removed_hours=0.2)
    assert refused.end
    assert refused.end.message == "one more trial would exceed 0.45 GPU hours, 0.40 are spent"
    spent = schedule(sweep, values(0.5, 0.6), now, removed_hours=0.25).end
    assert spent
    assert spent.message == "0.45 of 0.45 GPU hours are spent"


def test_gpu_hours_that_one_more_would_exceed_are_kept() -> None:
    """Two trials took 0.1 each; a third at work will, and a fourth does not fit."""
    decided = decide(sweep_of(budget=Budget(gpu_hours=0.39)), [*values(0.5, 0.6), running(2, gpu_hours=0.02)])
    assert decided.start == ()
    assert decided.end is None
    assert decided.waits
    assert decided.waits.reason is StopReason.GPU_HOURS
    decided = decide(sweep_of(budget=Budget(gpu_hours=0.41)), [*values(0.5, 0.6), running(2, gpu_hours=0.02)])
    assert numbers(decided.start) == [3]


def of_a_quarter(*taken: float, running_for: float | None = None) -> list[Trial]:
    """Return complete trials that took a quarter of an hour, or these hours, and one at work for so long."""
    done = [complete(number, POINT, 0.5, gpu_hours=hours) for number, hours in enumerate(taken)]
    return [*done, running(len(done), gpu_hours=running_for)] if running_for is not None else done


@pytest.mark.parametrize(
    ("trials", "hours", "started"),
    [
        (of_a_quarter(0.25), 0.5, [1]),  # what just fits
        (of_a_quarter(0.25), 0.49, []),
        (of_a_quarter(0.25), 1.1, [1, 2, 3]),  # each of those that start takes its own
        (of_a_quarter(0.0, 0.5), 1.0, [2, 3]),  # 0.25 in the mean
        (of_a_quarter(0.25, running_for=0.5), 1.0, [2]),  # one that takes longer than the others gives nothing back
        (of_a_quarter(0.25, running_for=0.5), 0.99, []),
        (of_a_quarter(0.25, running_for=0.0), 0.75, [2]),
        (of_a_quarter(running_for=0.25), 0.3, [1, 2, 3]),  # nobody knows yet what a trial takes
    ],
)
def test_no_more_are_started_than_fit_into_the_gpu_hours(trials: list[Trial], hours: float, started: list[int]) -> None:
    assert numbers(decide(sweep_of(budget=Budget(gpu_hours=hours)), trials).start) == started


def test_it_ends_when_nothing_fits_the_budget_and_goes_on_with_a_larger_one() -> None:
    done = values(0.5, 0.6, 0.7)
    end = decide(sweep_of(budget=Budget(gpu_hours=0.35)), done).end
    assert end
    assert end.reason is StopReason.GPU_HOURS
    assert numbers(decide(sweep_of(budget=Budget(gpu_hours=0.45)), done).start) == [3]


def test_what_a_higher_fidelity_costs_is_told_from_the_lower_one() -> None:
    """Two trials took 0.1 each of a quarter of the data: all of it takes 0.4."""
    sweep = sweep_of(fidelity=Fidelity((0.25, 1.0), 2), limits=Limits(2, 1))
    assert decide(replace(sweep, budget=Budget(gpu_hours=0.59)), values(0.5, 0.6)).end
    assert decide(replace(sweep, budget=Budget(gpu_hours=0.61)), values(0.5, 0.6)).start == (
        Start(RunOfPoint(1, 1, 0), POINT),
    )


@pytest.mark.parametrize(("cheap", "cost"), [(0.0, 0.1), (0.05, 2.0)])
def test_a_fidelity_that_is_no_share_says_nothing_of_the_next_one(cheap: float, cost: float) -> None:
    """Two trials took 0.1 each: the next fidelity takes as much where 0 is the lowest, else in proportion."""
    sweep = sweep_of(fidelity=Fidelity((cheap, 1.0), 2), limits=Limits(2, 1))
    assert decide(replace(sweep, budget=Budget(gpu_hours=0.19 + cost)), values(0.5, 0.6)).end
    assert decide(replace(sweep, budget=Budget(gpu_hours=0.21 + cost)), values(0.5, 0.6)).start


def test_the_cost_of_the_third_fidelity_is_told_from_the_second() -> None:
    """0.1 at a tenth and 0.5 at a fifth, so that all of it takes 2.5."""
    sweep = sweep_of(fidelity=Fidelity((0.1, 0.2, 1.0), 2), limits=Limits(1, 1))
    there = [complete(0, POINT, 0.5), complete(0, POINT, 0.5, rung=1, gpu_hours=0.5)]
    assert decide(replace(sweep, budget=Budget(gpu_hours=3.09)), there).end
    assert numbers(decide(replace(sweep, budget=Budget(gpu_hours=3.11)), there).start) == [0]


def test_the_wall_clock_counts_from_where_the_sweep_began_if_that_is_known() -> None:
    sweep = sweep_of(budget=Budget(wall_clock=timedelta(minutes=30)))
    assert numbers(decide(sweep, []).start) == [0, 1, 2, 3], "it begins now"
    now = BEGIN + timedelta(minutes=10)
    assert schedule(sweep, values(0.5), now, BEGIN - timedelta(minutes=19)).start
    end = schedule(sweep, values(0.5), now, BEGIN - timedelta(minutes=20)).end
    assert end
    assert end.message == "0:30:00 of 0:30:00 have passed"


def test_the_wall_clock_counts_from_the_first_start() -> None:
    sweep = sweep_of(budget=Budget(wall_clock=timedelta(minutes=30)))
    assert numbers(decide(sweep, values(0.5), minutes=28).start) == [1, 2, 3, 4]
    assert numbers(decide(sweep, values(0.5), minutes=29).start) == [1, 2, 3, 4], "which are just done in time"
    late = decide(sweep, values(0.5), minutes=29.5).end  # each takes a minute
    assert late
    assert (late.reason, late.message) == (
        StopReason.WALL_CLOCK,
        "one more trial would not be done within 0:30:00",
    )
    over = decide(sweep, [*values(0.5), running(1)], minutes=30)
    assert over.end
    assert over.stop == (RunOfPoint(1, 0, 0),)


def test_no_improvement_lets_what_runs_end() -> None:
    sweep = sweep_of(budget=Budget(without_improvement=3))
    assert decide(sweep, values(0.9, 0.5, 0.9)).end is None  # as good is not better
    done = values(0.5, 0.9, 0.8, 0.7, 0.9)
    waiting = decide(sweep, [*done, running(5)])
    assert (waiting.start, waiting.stop, waiting.end) == ((), (), None)
    assert waiting.waits
    assert waiting.waits.reason is StopReason.WITHOUT_IMPROVEMENT
    end = decide(sweep, done).end
    assert end
    assert end.message == "3 trials without a better one, 3 may be"
    assert decide(sweep, [*done, complete(5, POINT, 0.91)]).end is None


def test_points_without_a_value_are_no_improvement() -> None:
    sweep = sweep_of(budget=Budget(without_improvement=3))
    useless = [Trial(number, POINT, State.INFEASIBLE) for number in range(3)]
    assert decide(sweep, useless[:2]).end is None
    end = decide(sweep, useless).end
    assert end
    assert end.message == "3 trials without a better one, 3 may be"
    assert decide(sweep, [*useless, complete(3, POINT, 0.5)]).end is None, "what has no known end came first"


def test_improvement_goes_by_the_order_of_ends_not_of_numbers() -> None:
    late = complete(0, POINT, 0.9, ended=BEGIN + timedelta(hours=1))
    assert decide(sweep_of(budget=Budget(without_improvement=3)), [late, *values(0.1, 0.5, 0.6, 0.7)[1:]]).end is None


def test_improvement_of_several_objectives_is_a_larger_front() -> None:
    sweep = sweep_of(objectives=(Objective("a"), Objective("b")), budget=Budget(without_improvement=2))
    trials = [complete(n, POINT, *pair) for n, pair in enumerate([(1, 1), (0, 2), (2, 0), (0.5, 0.5)])]
    assert decide(sweep, trials).end is None
    assert decide(sweep, [*trials, complete(4, POINT, 1, 1)]).end


def states(sweep: Sweep, trials: Iterable[Trial], all_asked: bool = False) -> list[tuple[int, int]]:
    return [(one.evaluation.number, one.rung) for one in promotions(sweep, fold(sweep, trials), all_asked)]


def test_the_best_share_of_a_rung_goes_on() -> None:
    """Optuna's successive halving, made anew, promotes everything."""
    sweep = sweep_of(fidelity=Fidelity((0.1, 0.3, 1.0), 3))
    assert states(sweep, values(0.5, 0.7)) == []
    assert states(sweep, values(0.5, 0.7, 0.6)) == [(1, 1)]
    assert states(sweep, values(0.5, 0.7, 0.6, 0.8, 0.1, 0.2)) == [(3, 1), (1, 1)]


def test_nothing_goes_on_twice_and_the_furthest_first() -> None:
    sweep = sweep_of(fidelity=Fidelity((0.1, 0.3, 1.0), 3))
    low = values(*(n / 10 for n in range(9)))
    middle = [complete(number, POINT, number / 10, rung=1) for number in (8, 7, 6)]
    assert states(sweep, [*low, *middle[:2]]) == [(6, 1)]
    assert states(sweep, [*low, *middle]) == [(8, 2)]
    assert states(sweep, [*low, *middle, running(8, rung=2)]) == []


def test_what_failed_is_not_counted_and_what_is_infeasible_is() -> None:
    sweep = sweep_of(fidelity=Fidelity((0.25, 1.0), 3))
    two = values(0.5, 0.7)
    assert states(sweep, [*two, failed(2, "DataError")]) == []
    assert states(sweep, [*two, Trial(2, POINT, State.INFEASIBLE)]) == [(1, 1)]


def test_what_is_not_valid_at_a_cheap_rung_goes_on_to_the_next() -> None:
    """A tiny coreset of few images: the rung says nothing of such a point, and it is none of those that are ranked."""
    sweep = sweep_of(fidelity=Fidelity((0.1, 0.3, 1.0), 3))
    two, small = values(0.5, 0.7), Trial(2, POINT, State.INFEASIBLE, reason="InvalidConfig")
    assert states(sweep, [*two, small]) == [(2, 1)]
    assert states(sweep, [*two, small, running(2, rung=1)]) == []
    again = Trial(2, POINT, State.INFEASIBLE, rung=1, reason="InvalidConfig")
    assert states(sweep, [*two, small, again]) == [(2, 2)]
    last = Trial(2, POINT, State.INFEASIBLE, rung=2, reason="InvalidConfig")
    assert states(sweep, [*two, small, again, last]) == []
    assert states(sweep, [*two, complete(3, POINT, 0.1), small]) == [(1, 1), (2, 1)], "the measured ones first"


def test_at_the_end_at_least_one_goes_on_to_each_rung() -> None:
    sweep = sweep_of(fidelity=Fidelity((0.1, 0.3, 1.0), 4))
    low = values(0.5, 0.7)
    assert states(sweep, low, all_asked=True) == [(1, 1)]
    assert states(sweep, [*low, running(2)], all_asked=True) == []
    assert states(sweep, [*low, running(1, rung=1)], all_asked=True) == []
    arriving = [*low, running(2), complete(1, POINT, 0.7, rung=1)]
    assert states(sweep, arriving, all_asked=True) == [], "what runs below may yet arrive"
    assert states(sweep, [*low, complete(1, POINT, 0.7, rung=1)], all_asked=True) == [(1, 2)]


def test_promotions_come_before_new_numbers_with_the_points_parameters() -> None:
    sweep = sweep_of(fidelity=Fidelity((0.25, 1.0), 2), limits=Limits(10, 2))
    decided = decide(sweep, [complete(0, {"x": 1.0, "y": 0.0}, 0.5), complete(1, {"x": 2.0, "y": 0.0}, 0.6)])
    assert decided.start == (Start(RunOfPoint(1, 1, 0), {"x": 2.0, "y": 0.0}), Start(RunOfPoint(2, 0, 0)))


def test_a_halving_sweep_costs_what_it_promises() -> None:
    """27 configurations with reduction 3: 27 of the first rung, 9 of the second, 3, and 1."""
    sweep = sweep_of(fidelity=Fidelity((1 / 27, 1 / 9, 1 / 3, 1.0), 3), limits=Limits(27, 1))
    trials: list[Trial] = []
    while (decided := decide(sweep, trials)).end is None:
        (start,) = decided.start
        number, rung, _ = start.identity
        # A point's value is its number, so that each later one is better: the worst order for early promotions.
        trials.append(complete(number, start.parameters or {"x": 0.0, "y": float(number)}, number, rung=rung))
    asked = [sum(trial.rung == rung for trial in trials) for rung in range(4)]
    assert asked[0] == 27
    # Asynchronous: the worst order promotes more than the share, and the best point is not missed.
    assert 9 <= asked[1] <= 27
    assert max(trial.number for trial in trials if trial.rung == 3) == 26

    trials = []
    while (decided := decide(sweep, trials)).end is None:
        (start,) = decided.start
        number, rung, _ = start.identity
        trials.append(complete(number, start.parameters or {"x": 0.0, "y": float(number)}, -number, rung=rung))
    assert [sum(trial.rung == rung for trial in trials) for rung in range(4)] == [27, 9, 3, 1]


def test_the_replicates_of_a_point_follow_one_another() -> None:
    sweep = sweep_of(replicates=Replicates(3), limits=Limits(10, 2))
    assert [start.identity for start in decide(sweep, []).start] == [(0, 0, 0), (1, 0, 0)]
    first = [complete(0, POINT, 0.5), running(1)]
    assert decide(sweep, first).start == (Start(RunOfPoint(0, 0, 1), POINT),)


def test_replicates_fill_slots_that_no_new_point_can_use() -> None:
    sweep = sweep_of(replicates=Replicates(3), limits=Limits(2, 5))
    decided = decide(sweep, [complete(0, POINT, 0.5), running(1)])
    assert [start.identity for start in decided.start] == [(0, 0, 1), (0, 0, 2), (1, 0, 1), (1, 0, 2)]


def test_a_deleted_replicate_runs_again() -> None:
    sweep = sweep_of(replicates=Replicates(3), limits=Limits(1, 1))
    there = [complete(0, POINT, 0.5, replicate=replicate) for replicate in (0, 2)]
    assert [start.identity for start in decide(sweep, there).start] == [(0, 0, 1)]


def test_a_hopeless_point_saves_its_other_replicates() -> None:
    sweep = sweep_of(replicates=Replicates(5), limits=Limits(2, 1))
    best = [complete(0, POINT, value, replicate=place) for place, value in enumerate([0.9, 0.95, 0.8, 0.99, 0.85])]
    worse = [
        complete(1, {"x": 1.0, "y": 0.0}, value, replicate=place) for place, value in enumerate([0.5, 0.6, 0.4, 0.3])
    ]
    assert [start.identity for start in decide(sweep, [*best, *worse[:3]]).start] == [(1, 0, 3)]
    end = decide(sweep, [*best, *worse]).end
    assert end
    assert end.reason is StopReason.MAX_TRIALS


@pytest.mark.parametrize("state", [State.INFEASIBLE, State.FAILED, State.PRUNED])
def test_a_point_that_is_over_saves_its_other_replicates(state: State) -> None:
    sweep = sweep_of(replicates=Replicates(3), limits=Limits(1, 1))
    assert decide(sweep, [Trial(0, POINT, state)]).end


def test_all_arguments_are_only_read() -> None:
    parameters: Mapping[str, Any] = {"x": 0.0, "y": 0.0}
    trials = (complete(0, parameters, 0.5), running(1))
    decide(sweep_of(), trials)
    assert trials == (complete(0, {"x": 0.0, "y": 0.0}, 0.5), running(1))
