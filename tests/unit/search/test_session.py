"""A whole sweep from plain values to plain values, as the programs ask for it."""

import pickle
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.sweep_exchange import InvalidTrial, NewTrial, Plan, RunOfPoint, SweepEnd, TrialRecord
from anomaly_api.sweep_status import StopReason
from anomaly_search import session
from anomaly_search.session import best_points, decide, falling_behind, overview, trial_of, winner
from anomaly_search.spec import sweep_of
from anomaly_search.suggest import Suggestion, suggest
from anomaly_search.trials import State, Trial
from support.optional import not_none
from support.sweep_specs import sweep_spec
from support.sweeps import BEGIN

FEATURES = {"path": "model.padim.nFeatures", "choices": [10, 20, 30]}
SEEDS = {"path": "dataset.seed", "int": {"low": 0, "high": 9}}
TILE = {"path": "model.tiling.tileSize", "choices": [128, 256]}
STRIDE = {"path": "model.tiling.stride", "choices": [128, 256]}
GRID = {"name": "grid"}
EPOCHS = {"model": {"name": "fastflow", "padim": None, "weights": None}}


def spec(*parameters: dict[str, Any], **sweep: Any) -> dict[str, Any]:
    return sweep_spec(*parameters, **sweep).to_json_object()


def asked(experiment: dict[str, Any], records: Iterable[TrialRecord] = (), now: datetime = BEGIN) -> Plan:
    plan = decide(experiment, records, now, BEGIN, name="bottle")
    assert pickle.loads(pickle.dumps(plan)) == plan
    return plan


def done(number: int, value: float, values: dict[str, Any], **changes: Any) -> TrialRecord:
    ended = BEGIN + timedelta(minutes=number + 1)
    usual: dict[str, Any] = {"metrics": {"image.AUROC": value}, "started": BEGIN, "ended": ended, "gpu_hours": 0.5}
    return TrialRecord(number, 0, 0, values, "Complete", **usual)._replace(**changes)


def test_a_grid_from_its_first_point_to_its_end() -> None:
    experiment = spec(FEATURES, algorithm=GRID, trials={"parallel": 2})
    first = asked(experiment)
    assert [(one.name, one.which, one.values) for one in first.starts] == [
        ("bottle-t0000", RunOfPoint(0), {"model.padim.nFeatures": 10}),
        ("bottle-t0001", RunOfPoint(1), {"model.padim.nFeatures": 20}),
    ]
    assert (first.end, first.waits, first.stops) == (None, None, ())
    records = [done(n, 0.9, {"model.padim.nFeatures": 10 * (n + 1)}) for n in range(2)]
    assert [one.which.number for one in asked(experiment, records).starts] == [2]
    records.append(done(2, 0.8, {"model.padim.nFeatures": 30}))
    end = asked(experiment, records)
    assert not_none(end.end).reason is StopReason.EXHAUSTED
    assert end.starts == ()


def test_a_new_trials_spec_is_a_valid_one_that_says_which_it_is() -> None:
    experiment = spec(
        FEATURES,
        algorithm=GRID,
        replicates={"paths": [{"path": "dataset.seed", "values": [3, 4]}]},
        fidelity={"path": "dataset.fraction", "values": [0.5, 1.0]},
    )
    started = asked(experiment).starts[0]
    read = ExperimentSpec.model_validate(started.spec)
    assert read.trial is not None
    assert read.trial.to_json_object() == {
        "sweep": "bottle",
        "number": 0,
        "rung": 0,
        "replicate": 0,
        "values": {"model.padim.nFeatures": 10},
    }
    assert (read.dataset.seed, read.dataset.fraction) == (3, 0.5)
    assert read.model.to_json_object()["padim"]["nFeatures"] == 10
    assert read.output.upload_artifacts is False
    next_replicate = asked(experiment, [done(0, 0.9, dict(started.values))]).starts[0]
    assert next_replicate.name == "bottle-t0000-r1"
    assert ExperimentSpec.model_validate(next_replicate.spec).dataset.seed == 4


def test_a_trial_says_of_which_search_of_which_resource_it_is() -> None:
    experiment = spec(TILE, STRIDE, algorithm=GRID, trials={"parallel": 2})
    plan = decide(experiment, [], BEGIN, BEGIN, name="bottle", search_run=2, uid="u-1", search="digest")
    made: list[NewTrial | InvalidTrial] = [*plan.starts]
    made += plan.invalid
    assert [one.name for one in made] == ["bottle-s2-t0000", "bottle-s2-t0002", "bottle-s2-t0001"]
    for one in made:
        trial = not_none(ExperimentSpec.model_validate(one.spec).trial)
        assert (trial.sweep, trial.sweep_uid, trial.search) == ("bottle", "u-1", "digest")


def test_what_a_record_says_in_terms_of_the_search() -> None:
    time = {"metric": "performance.trainSeconds", "goal": "minimize"}
    bound = {"metric": "performance.modelBytes", "max": 9}
    experiment = sweep_spec(
        SEEDS, objectives=[{"metric": "image.AUROC", "goal": "maximize"}, time], constraints=[bound]
    )
    record = TrialRecord(
        number=3,
        rung=1,
        replicate=2,
        values={"dataset.seed": 4},
        state="Pruned",
        metrics={"performance.modelBytes": 5.0, "image.AUROC": 0.5, "image.F1Max": 0.25},
        gpu_hours=1.5,
        started=BEGIN,
        ended=BEGIN + timedelta(minutes=1),
        reason="why",
        curve={0: 0.75},
    )
    assert trial_of(sweep_of(not_none(experiment.sweep)), record) == Trial(
        3,
        {"dataset.seed": 4},
        State.PRUNED,
        (0.5, None),
        (5.0,),
        rung=1,
        replicate=2,
        curve={0: 0.75},
        gpu_hours=1.5,
        started=BEGIN,
        ended=BEGIN + timedelta(minutes=1),
        reason="why",
    )


def test_what_deleted_trials_used_counts() -> None:
    experiment = spec(FEATURES, algorithm=GRID, budget={"gpuHours": 1.4})
    records = [done(0, 0.9, {"model.padim.nFeatures": 10})]
    assert asked(experiment, records).starts
    plan = decide(experiment, records, BEGIN, BEGIN, name="bottle", removed_hours=1.5)
    assert (plan.starts, not_none(plan.end).reason) == ((), StopReason.GPU_HOURS)
    status = overview(experiment, records, removed_hours=1.5)
    assert (status.gpu_hours, status.removed_gpu_hours) == (2.0, 1.5)
    status = overview(experiment, records)
    assert (status.gpu_hours, status.removed_gpu_hours) == (0.5, 0.0)


def test_a_sweep_has_its_time_since_it_began() -> None:
    experiment = spec(FEATURES, algorithm=GRID, budget={"wallClockSeconds": 60})
    assert asked(experiment).starts
    assert not_none(asked(experiment, now=BEGIN + timedelta(minutes=1)).end).reason is StopReason.WALL_CLOCK
    assert decide(experiment, [], BEGIN + timedelta(minutes=1), name="bottle").starts, "it begins now"


def test_what_is_asked_at_the_same_time_knows_of_each_other() -> None:
    experiment = spec(SEEDS, {"path": "model.padim.nFeatures", "int": {"low": 5, "high": 60}}, trials={"parallel": 3})
    records = [done(n, n / 20, {"dataset.seed": n % 10, "model.padim.nFeatures": 5 + n}) for n in range(12)]
    plan = asked(spec_with(experiment, max=20, parallel=3), records)
    sweep = sweep_of(not_none(ExperimentSpec.model_validate(experiment).sweep))
    by_hand = [Trial(one.number, one.values, State.COMPLETE, (one.metrics["image.AUROC"],)) for one in records]
    for started in plan.starts:
        suggestion = suggest(sweep, by_hand, started.which.number)
        assert isinstance(suggestion, Suggestion)
        assert dict(started.values) == dict(suggestion.parameters)
        by_hand.append(Trial(started.which.number, suggestion.parameters, State.RUNNING))
    assert [started.which.number for started in plan.starts] == [12, 13, 14]
    assert len({str(started.values) for started in plan.starts}) == 3


def spec_with(experiment: dict[str, Any], **trials: Any) -> dict[str, Any]:
    return experiment | {"sweep": experiment["sweep"] | {"trials": trials}}


def test_values_that_are_not_valid_together_are_told_and_their_place_goes_to_the_next_point() -> None:
    experiment = spec(TILE, STRIDE, algorithm=GRID, trials={"parallel": 2})
    plan = asked(experiment)
    assert [one.which.number for one in plan.starts] == [0, 2], "128 in steps of 256 leaves gaps"
    refused = plan.invalid[0]
    assert isinstance(refused, InvalidTrial)
    assert (refused.which.number, refused.values) == (1, {"model.tiling.tileSize": 128, "model.tiling.stride": 256})
    assert "stride may be at most tileSize" in refused.problem
    measured = [done(one.which.number, 0.9, dict(one.values)) for one in plan.starts]
    kept = TrialRecord(1, 0, 0, refused.values, "Infeasible", reason="InvalidConfig")
    assert [one.which.number for one in asked(experiment, [*measured, kept]).starts] == [3]
    assert asked(experiment, [*measured, kept]).invalid == ()


def test_many_points_that_cannot_be_are_told_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """25 impossible ones in a row, then 5 that are possible."""
    monkeypatch.setattr(session, "MOST_INVALID", 10)
    features = {"path": "model.padim.nFeatures", "int": {"low": 1, "high": 5}}
    strides = {"path": "model.tiling.stride", "choices": [192, 256, 320, 384, 448, 128]}
    experiment = spec(strides, features, algorithm=GRID, trials={"parallel": 2})
    experiment["model"] = experiment["model"] | {"tiling": {"tileSize": 128, "stride": 128}}
    known: list[TrialRecord] = []
    parts = []
    while not (plan := asked(experiment, known)).starts:
        assert plan.end is None
        parts.append(len(plan.invalid))
        known += [impossible.record() for impossible in plan.invalid]
    assert parts == [10, 10]
    assert len(plan.invalid) == 5
    assert [one.which.number for one in plan.starts] == [25, 26]


def test_a_value_that_the_api_server_would_not_take_is_not_turned_into_one() -> None:
    experiment = spec(FEATURES | {"choices": ["10", 20]}, algorithm=GRID, trials={"parallel": 2})
    plan = asked(experiment)
    assert [one.values for one in plan.invalid] == [{"model.padim.nFeatures": "10"}]
    assert [one.values for one in plan.starts] == [{"model.padim.nFeatures": 20}]


def test_the_place_of_a_point_that_cannot_be_goes_to_what_is_not_begun_yet() -> None:
    """Of four points the second cannot be, and there is no fifth one: the first has another replicate."""
    seeds = {"paths": [{"path": "dataset.seed", "values": [3, 4]}]}
    experiment = spec(TILE, STRIDE, algorithm=GRID, trials={"parallel": 4}, replicates=seeds)
    assert [one.which for one in asked(experiment).starts] == [
        RunOfPoint(0),
        RunOfPoint(2),
        RunOfPoint(3),
        RunOfPoint(0, 0, 1),
    ]


def test_a_replicate_is_begun_once_beside_a_point_that_cannot_be() -> None:
    seeds = {"paths": [{"path": "dataset.seed", "values": [3, 4, 5]}]}
    tile = TILE | {"choices": [128]}
    experiment = spec(tile, STRIDE, algorithm=GRID, trials={"parallel": 2}, replicates=seeds)
    plan = asked(experiment, [done(0, 0.9, {"model.tiling.tileSize": 128, "model.tiling.stride": 128})])
    assert [one.which for one in plan.invalid] == [RunOfPoint(1)]
    assert [one.which for one in plan.starts] == [RunOfPoint(0, 0, 1), RunOfPoint(0, 0, 2)]


def test_what_goes_on_at_a_higher_fidelity_is_begun_once_beside_a_point_that_cannot_be() -> None:
    fidelity = {"path": "dataset.fraction", "values": [0.5, 1.0], "reduction": 2}
    experiment = spec(TILE, STRIDE, algorithm=GRID, trials={"parallel": 2}, fidelity=fidelity)
    tile, stride = "model.tiling.tileSize", "model.tiling.stride"
    records = [done(0, 0.9, {tile: 128, stride: 128}), done(2, 0.8, {tile: 256, stride: 128})]
    plan = asked(experiment, records)
    assert [one.which for one in plan.invalid] == [RunOfPoint(1)]
    assert [one.which for one in plan.starts] == [RunOfPoint(0, 1), RunOfPoint(3)]


def test_a_point_that_cannot_be_is_the_last_one_without_a_better_value() -> None:
    experiment = spec(TILE, STRIDE, algorithm=GRID, trials={"parallel": 2}, budget={"withoutImprovement": 1})
    records = [done(0, 0.9, {"model.tiling.tileSize": 128, "model.tiling.stride": 128})]
    plan = asked(experiment, records, now=BEGIN + timedelta(hours=1))
    assert [one.which.number for one in plan.invalid] == [1]
    assert [one.which.number for one in plan.starts] == [2], "and 3 is not begun"
    assert (plan.end, not_none(plan.waits).reason) == (None, StopReason.WITHOUT_IMPROVEMENT)


@pytest.mark.parametrize("at_work", [False, True])
def test_a_grid_whose_numbers_are_used_up_ends_once_nothing_is_at_work(at_work: bool) -> None:
    """They were used for values that the space no longer has."""
    experiment = spec(FEATURES, algorithm=GRID, trials={"max": 9, "parallel": 2})
    records = [done(number, 0.9, {"model.padim.nFeatures": 11 + number}) for number in range(3)]
    if at_work:
        records[2] = records[2]._replace(state="Running")
    plan = asked(experiment, records)
    end = None if at_work else SweepEnd(StopReason.EXHAUSTED, "no point of the space is left")
    assert (plan.starts, plan.invalid, plan.end) == ((), (), end)


def test_a_point_that_was_tried_before_comes_with_the_number_of_that_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    point = {"model.padim.nFeatures": 20}
    monkeypatch.setattr(session, "suggest", lambda *_: Suggestion(point, known=7))
    [again] = asked(spec(FEATURES, algorithm=GRID)).starts
    assert (again.which.number, again.values, again.repeats) == (0, point, 7)


def test_replicates_are_begun_though_no_point_is_left() -> None:
    seeds = {"paths": [{"path": "dataset.seed", "values": [3, 4, 5]}]}
    experiment = spec(FEATURES, algorithm=GRID, trials={"max": 9, "parallel": 5}, replicates=seeds)
    records = [done(0, 0.9, {"model.padim.nFeatures": 11})]
    records += [TrialRecord(number, 0, 0, {"model.padim.nFeatures": 11 + number}, "Infeasible") for number in (1, 2)]
    assert [one.which for one in asked(experiment, records).starts] == [RunOfPoint(0, 0, 1), RunOfPoint(0, 0, 2)]


def test_a_point_that_cannot_be_has_a_valid_spec_that_says_why() -> None:
    experiment = spec(TILE, STRIDE, algorithm=GRID, trials={"parallel": 2})
    refused = asked(experiment).invalid[0]
    standing = not_none(ExperimentSpec.model_validate(refused.spec).trial)
    assert (standing.number, standing.values) == (1, refused.values)
    assert standing.problem == refused.problem
    assert "tiling" not in refused.spec["model"], "the sweep's own values"
    assert refused.record() == TrialRecord(1, 0, 0, refused.values, "Infeasible", reason="InvalidConfig")


def test_a_search_that_is_killed_goes_on_with_the_same_points_and_asks_for_none_that_cannot_be_again() -> None:
    """TPE, three at a time: of what was decided the first few are there when the next process decides."""
    features = {"path": "model.padim.nFeatures", "int": {"low": 1, "high": 60}}
    experiment = spec(TILE, STRIDE, features, algorithm={"name": "tpe", "seed": 3, "tpe": {"startupTrials": 4}})
    experiment = spec_with(experiment, max=30, parallel=3)
    known: list[TrialRecord] = []
    impossible = 0
    while (whole := asked(experiment, known)).starts:
        decided: list[NewTrial | InvalidTrial] = [*whole.starts, *whole.invalid]
        decided.sort(key=lambda one: one.which)
        for there in range(len(decided) + 1):
            kept = [*known, *map(kept_of, decided[:there])]
            rest = [one for one in decided[there:] if isinstance(one, NewTrial)]
            again = asked(experiment, kept)
            assert [(one.name, one.values) for one in again.starts] == [(one.name, one.values) for one in rest]
            assert {one.which for one in again.invalid} == {one.which for one in decided[there:]} - {
                one.which for one in rest
            }
        impossible += len(whole.invalid)
        known += map(ended, decided)
    assert impossible > 0
    assert sorted(one.number for one in known) == list(range(30))


def kept_of(one: NewTrial | InvalidTrial) -> TrialRecord:
    return one.record() if isinstance(one, InvalidTrial) else TrialRecord(*one.which, one.values, "Running")


def ended(one: NewTrial | InvalidTrial) -> TrialRecord:
    if isinstance(one, InvalidTrial):
        return one.record()
    return done(one.which.number, one.values["model.padim.nFeatures"] / 60, dict(one.values))


def test_a_sweep_of_which_nothing_is_valid_ends() -> None:
    tile = {"path": "model.tiling.tileSize", "choices": [64, 128]}
    experiment = spec(tile, {"path": "model.tiling.stride", "choices": [256]}, algorithm=GRID, trials={"parallel": 2})
    plan = asked(experiment)
    assert (len(plan.invalid), plan.starts) == (2, ())
    assert not_none(plan.end).reason is StopReason.EXHAUSTED


def test_more_failures_than_may_be_stop_what_is_running() -> None:
    experiment = spec(SEEDS, trials={"max": 9, "parallel": 2, "maxFailed": 1})
    failed = [TrialRecord(n, 0, 0, {"dataset.seed": n}, "Failed", reason="DataInvalid") for n in range(2)]
    infeasible = TrialRecord(2, 0, 0, {"dataset.seed": 2}, "Infeasible", reason="OutOfMemory")
    running = TrialRecord(3, 0, 0, {"dataset.seed": 3}, "Running")
    assert asked(experiment, [failed[0], infeasible, running]).end is None
    plan = asked(experiment, [*failed, infeasible, running])
    end = not_none(plan.end)
    assert (end.reason, plan.stops, plan.starts) == (StopReason.MAX_FAILED, (RunOfPoint(3),), ())
    assert "DataInvalid (2 x)" in end.message


def test_points_of_an_earlier_sweep_are_tried_after_those_of_the_spec() -> None:
    experiment = spec(FEATURES, SEEDS, start={"points": [{"model.padim.nFeatures": 30, "dataset.seed": 9}]})
    earlier = [{"model.padim.nFeatures": 20, "dataset.seed": 1}, {"model.padim.nFeatures": 55, "dataset.seed": 1}]
    plan = decide(spec_with(experiment, parallel=2), [], BEGIN, BEGIN, name="bottle", earlier=earlier)
    assert [started.values for started in plan.starts] == [
        {"model.padim.nFeatures": 30, "dataset.seed": 9},
        {"model.padim.nFeatures": 20, "dataset.seed": 1},
    ]


def test_the_best_point_and_the_spec_that_trains_it_in_full() -> None:
    experiment = spec(FEATURES, algorithm=GRID, fidelity={"path": "dataset.fraction", "values": [0.5, 1.0]})
    values = [{"model.padim.nFeatures": count} for count in (10, 20, 30)]
    records = [done(n, (0.9, 0.95, 0.99)[n], values[n]) for n in range(3)] + [done(1, 0.97, values[1], rung=1)]
    best = not_none(winner(experiment, records))
    assert (best.number, best.values) == (1, values[1]), "what is measured in full comes first"
    final = ExperimentSpec.model_validate(best.spec)
    assert (final.sweep, final.trial, final.dataset.fraction) == (None, None, 1.0)
    assert final.model.to_json_object()["padim"]["nFeatures"] == 20
    assert final.output.upload_artifacts is True
    assert final.dataset.seed == 43, "trials have the default, 42"
    assert best_points(experiment, records, 2) == (values[1], values[2])
    status = overview(experiment, records, StopReason.EXHAUSTED)
    assert (status.asked, status.complete, status.gpu_hours, status.stop_reason) == (3, 3, 2.0, "Exhausted")
    assert [one.number for one in status.best] == [1, 2, 0]


def test_with_several_objectives_the_status_says_which_point_of_the_front_was_chosen_and_why() -> None:
    time = {"metric": "performance.trainSeconds", "goal": "minimize"}
    auroc = {"metric": "image.AUROC", "goal": "maximize"}
    experiment = spec(FEATURES, algorithm=GRID, objectives=[auroc, time])
    measured = [(0.9, 10.0), (0.95, 30.0), (0.8, 20.0)]
    records = [
        done(n, 0.0, {"model.padim.nFeatures": 10 * n + 10}, metrics={auroc["metric"]: value, time["metric"]: seconds})
        for n, (value, seconds) in enumerate(measured)
    ]
    told = overview(experiment, records, StopReason.EXHAUSTED)
    assert [point.number for point in told.pareto_front] == [0, 1]
    assert [one.number for one in told.best] == [1, 0, 2]
    why = "trial 1: of the 2 points of the Pareto front it has the best image.AUROC, the first objective"
    assert told.choice == why
    assert overview(experiment, records).choice is None, "the search goes on"
    alone = overview(experiment, records[:1], StopReason.EXHAUSTED)
    assert alone.choice == "trial 0: the Pareto front has no other point"


def test_a_point_without_all_of_its_replicates_is_given_up_at_the_end() -> None:
    replicates = {"paths": [{"path": "dataset.seed", "values": [1, 2]}]}
    experiment = spec(FEATURES, algorithm=GRID, replicates=replicates)
    whole = [done(0, 0.9, {"model.padim.nFeatures": 10}, replicate=replicate) for replicate in (0, 1)]
    records = [*whole, done(1, 0.8, {"model.padim.nFeatures": 20})]
    going_on, ended = overview(experiment, records), overview(experiment, records, StopReason.GPU_HOURS)
    assert (going_on.complete, going_on.running, going_on.pruned) == (1, 1, 0)
    assert (ended.complete, ended.running, ended.pruned) == (1, 0, 1)


def test_without_a_measured_point_there_is_no_best_one() -> None:
    experiment = spec(FEATURES, algorithm=GRID)
    failed = TrialRecord(0, 0, 0, {"model.padim.nFeatures": 10}, "Failed", reason="InternalError")
    assert winner(experiment, [failed]) is None
    assert best_points(experiment, [failed], 5) == ()
    assert overview(experiment, [failed]).failed == 1


def test_a_running_trial_whose_curve_is_below_the_median_falls_behind() -> None:
    rate = {"path": "dataset.fraction", "float": {"low": 0.01, "high": 0.1}}
    experiment = sweep_spec(rate, change=EPOCHS, pruning={"afterTrials": 3, "afterEpochs": 1}).to_json_object()
    peers = [
        done(n, 0.9, {"dataset.fraction": 0.01}, curve={0: 0.5, 1: value}) for n, value in enumerate((0.6, 0.7, 0.8))
    ]
    bad = TrialRecord(3, 0, 0, {"dataset.fraction": 0.02}, "Running", curve={0: 0.5, 1: 0.69})
    good = bad._replace(number=4, curve={0: 0.5, 1: 0.71})
    young = bad._replace(number=5, curve={0: 0.1})
    other = bad._replace(number=6, replicate=1)
    assert falling_behind(experiment, [*peers, bad, good, young, other]) == (RunOfPoint(3),)
    assert falling_behind(experiment, [*peers[1:], bad]) == (), "fewer have ended than afterTrials"
    assert falling_behind(experiment, [bad, good, good._replace(number=7)]) == (), "none of them has ended"
    assert falling_behind(spec(rate), [*peers, bad]) == ()
