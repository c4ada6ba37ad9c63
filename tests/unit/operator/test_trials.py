"""What the search is told of a trial."""

from datetime import UTC, datetime

import pytest

from anomaly_api.status import Curve
from anomaly_api.sweep import Sweep
from anomaly_api.sweep_exchange import InvalidTrial, NewTrial, RunOfPoint, TrialRecord, epochs_of
from anomaly_operator.decide.desired import DesiredSearch
from anomaly_operator.decide.specs import experiment_spec
from anomaly_operator.decide.trials import SeenTrial, best_of_earlier, seen_trial, trial_manifest
from anomaly_operator.resources import Manifest
from support.objects import EXPERIMENT, make_run, with_spec

NOW = datetime(2026, 1, 2, 4, 4, 5, tzinfo=UTC)
TRIAL = {
    "sweep": "hunt",
    "search": "s",
    "number": 3,
    "objective": "image.AUROC",
    "values": {"model.padim.nFeatures": 7},
}
BEGUN = {"startTime": "2026-01-02T03:04:05Z"}
OVER = BEGUN | {"completionTime": "2026-01-02T03:34:05Z"}


def ended(kind: str, reason: str) -> Manifest:
    condition = {"type": kind, "status": "True", "reason": reason, "lastTransitionTime": "2026-01-02T03:34:05Z"}
    return OVER | {"phase": "Complete" if kind == "Complete" else "Failed", "conditions": [condition]}


def record(status: Manifest, gpus: int = 2) -> TrialRecord:
    spec = with_spec(EXPERIMENT, trial=TRIAL, scheduling={"gpus": {"count": gpus}})
    return seen_trial(make_run(spec, status)).at(NOW).record


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        ({}, "Running", ""),
        (BEGUN | {"phase": "Running"}, "Running", ""),
        (ended("Complete", "Complete"), "Complete", ""),
        (ended("Complete", "Pruned"), "Pruned", ""),
        (ended("Failed", "OutOfMemory"), "Infeasible", "OutOfMemory"),
        (ended("Failed", "Diverged"), "Infeasible", "Diverged"),
        (ended("Failed", "InvalidConfig"), "Infeasible", "InvalidConfig"),
        (ended("Failed", "DataInvalid"), "Failed", "DataInvalid"),
        (ended("Stalled", "SpecInvalid") | {"phase": "Pending"}, "Infeasible", "SpecInvalid"),
        (ended("Stalled", "JobRefused") | {"phase": "Pending"}, "Running", ""),
    ],
)
def test_how_a_trial_is(status: Manifest, state: str, reason: str) -> None:
    found = record(status)
    assert (found.state, found.reason) == (state, reason)


@pytest.mark.parametrize(
    ("status", "hours"),
    [
        ({}, 0.0),
        (BEGUN, 0.0),  # it waits for a node
        (BEGUN | {"nodeTime": {"since": "2026-01-02T03:34:05Z"}}, 1.0),  # half an hour of two GPUs
        (BEGUN | {"nodeTime": {"seconds": 900, "since": "2026-01-02T03:34:05Z"}}, 1.5),
        (BEGUN | {"nodeTime": {"seconds": 900}}, 0.5),  # it was preempted, or is suspended
        (ended("Failed", "Diverged") | {"nodeTime": {"seconds": 900}}, 0.5),
    ],
)
def test_gpu_hours_are_those_of_pods_on_nodes(status: Manifest, hours: float) -> None:
    assert record(status).gpu_hours == pytest.approx(hours)


def test_metrics_by_path() -> None:
    metrics = {"image": {"AUROC": 0.9}, "performance": {"trainSeconds": 3.0}}
    found = record({"metrics": metrics})
    assert found.metrics == {"image.AUROC": 0.9, "performance.trainSeconds": 3.0}


def test_a_curve_of_some_points_has_a_value_at_each_epoch() -> None:
    curve = {"metric": "imageAUROC", "epochs": [1, 2, 5], "values": [0.5, 0.7, 0.6]}
    assert record({"curve": curve}).curve == {0: 0.5, 1: 0.7, 2: 0.7, 3: 0.7, 4: 0.6}


def test_the_curve_of_another_metric_says_nothing() -> None:
    curve = Curve(metric="trainLoss", epochs=(1,), values=(0.5,))
    assert epochs_of(curve, "image.AUROC") == {}
    assert epochs_of(Curve(metric="imageAUROC", epochs=(1,), values=(0.5,)), "image.AUROC") == {0: 0.5}


def test_a_point_that_cannot_be_is_infeasible_before_anything_is_recorded_of_it() -> None:
    spec = with_spec(EXPERIMENT, trial=TRIAL | {"problem": "stride may be at most tileSize"})
    found = seen_trial(make_run(spec))
    assert (found.record.state, found.record.reason, found.is_over) == ("Infeasible", "InvalidConfig", True)
    assert found.at(NOW).record.gpu_hours == 0.0


def earlier(
    number: int, features: int, auroc: float, seconds: float, *, replicate: int = 0, name: str = "hunt-t"
) -> SeenTrial:
    values = {"model.padim.nFeatures": features}
    metrics = {"image.AUROC": auroc, "performance.trainSeconds": seconds}
    return SeenTrial(name, 1, "s", 0, TrialRecord(number, 0, replicate, values, "Complete", metrics))


BLOCK: Manifest = {
    "parameters": [{"path": "model.padim.nFeatures", "int": {"low": 1, "high": 99}}],
    "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
    "constraints": [{"metric": "performance.trainSeconds", "max": 10}],
}


def test_trials_of_two_searches_with_the_same_number_and_value_are_both_best() -> None:
    trials = [earlier(4, 20, 1.0, 5, name="hunt-s2-t4"), earlier(4, 10, 1.0, 5, name="hunt-s1-t4")]
    expected = ({"model.padim.nFeatures": 10}, {"model.padim.nFeatures": 20})
    assert best_of_earlier(trials, Sweep.model_validate(BLOCK)) == expected
    assert best_of_earlier(trials[::-1], Sweep.model_validate(BLOCK)) == expected


def test_an_earlier_search_leaves_each_of_its_best_points_once_within_the_constraints() -> None:
    trials = [
        earlier(0, 10, 0.7, 5),
        earlier(1, 20, 0.9, 10),
        earlier(1, 20, 0.8, 5, replicate=1),
        earlier(2, 30, 0.99, 10.5),
    ]
    assert best_of_earlier(trials, Sweep.model_validate(BLOCK)) == (
        {"model.padim.nFeatures": 20},
        {"model.padim.nFeatures": 10},
    )


def test_a_point_is_one_in_whatever_order_its_values_are_written() -> None:
    values = {"model.padim.nFeatures": 10, "training.seed": 1}
    trials = [
        SeenTrial("t", 1, "s", 0, TrialRecord(number, 0, 0, dict(written), "Complete", {"image.AUROC": 0.9}))
        for number, written in enumerate((values.items(), reversed(values.items())))
    ]
    sweep = Sweep.model_validate(BLOCK | {"constraints": []})
    assert best_of_earlier(trials, sweep) == (values,)


def test_of_earlier_trials_the_complete_ones_that_were_measured_count_at_most_five_lowest_first() -> None:
    lowest = Sweep.model_validate(
        {"parameters": BLOCK["parameters"], "objectives": [{"metric": "performance.trainSeconds", "goal": "minimize"}]}
    )
    trials = [earlier(number, 10 + number, 0.5, 20 - number) for number in range(8)]
    unmeasured = trials[7].record._replace(metrics={"image.AUROC": 0.5})
    pruned = trials[6].record._replace(state="Pruned")
    trials[6:] = [SeenTrial("hunt-t", 1, "s", 0, pruned), SeenTrial("hunt-t", 1, "s", 0, unmeasured)]
    features = [point["model.padim.nFeatures"] for point in best_of_earlier(trials, lowest)]
    assert features == [15, 14, 13, 12, 11]


@pytest.mark.parametrize(
    ("bound", "found"),
    [
        ({"metric": "image.AUROC", "min": 0.8}, [20]),
        ({"metric": "image.AUROC", "min": 0.7}, [20, 10]),
        ({"metric": "performance.trainSeconds", "max": 5}, [10]),
        ({"metric": "performance.trainSeconds", "min": 6}, [20]),
        ({"metric": "performance.modelBytes", "max": 5}, []),
        ({"metric": "performance.modelBytes", "min": 5}, []),
    ],
)
def test_earlier_trials_beyond_a_constraint_or_without_its_metric_are_left_out(
    bound: Manifest, found: list[int]
) -> None:
    sweep = Sweep.model_validate(BLOCK | {"constraints": [bound]})
    points = best_of_earlier([earlier(0, 10, 0.7, 5), earlier(1, 20, 0.9, 10)], sweep)
    assert [point["model.padim.nFeatures"] for point in points] == found


def test_what_a_trial_shows() -> None:
    trial = TRIAL | {"rung": 1, "replicate": 2}
    run = make_run(with_spec(EXPERIMENT, trial=trial, scheduling={"gpus": {"count": 2}}), ended("Complete", "Complete"))
    found = seen_trial(run)
    assert (found.name, found.version, found.search, found.gpus, found.is_over) == ("screws", 10, "s", 2, True)
    assert (found.record.which, found.record.values) == (RunOfPoint(3, 1, 2), {"model.padim.nFeatures": 7})
    assert found.record.started == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert found.record.ended == datetime(2026, 1, 2, 3, 34, 5, tzinfo=UTC)


def test_an_experiment_that_is_no_trial_is_the_first_of_none() -> None:
    found = seen_trial(make_run(EXPERIMENT))
    assert (found.record.number, found.search, found.is_over, found.gpus) == (0, None, False, 1)


HUNT = make_run(with_spec(EXPERIMENT, sweep=BLOCK), name="hunt", uid="sweep-uid")
SEARCH = DesiredSearch(spec=experiment_spec(HUNT.spec), search="digest", limits="l")
WHICH = RunOfPoint(3, 1, 2)


@pytest.mark.parametrize(
    ("policy", "kept"),
    [({}, {}), ({"runPolicy": {"backoffLimit": 1, "activeDeadlineSeconds": 60}}, {"backoffLimit": 1})],
)
def test_a_trial_is_an_experiment_that_its_sweep_owns(policy: Manifest, kept: Manifest) -> None:
    spec = {"model": {"name": "padim"}, "trial": {"sweep": "hunt", "number": 3}} | policy
    expected = {
        "apiVersion": "anomalyops.io/v1alpha1",
        "kind": "AnomalyExperiment",
        "metadata": {
            "name": "hunt-t3",
            "namespace": "vision",
            "labels": {"anomalyops.io/sweep": "hunt", "anomalyops.io/trial": "3"},
            "ownerReferences": [
                {
                    "apiVersion": "anomalyops.io/v1alpha1",
                    "kind": "AnomalyExperiment",
                    "name": "hunt",
                    "uid": "sweep-uid",
                    "controller": True,
                }
            ],
        },
        "spec": {
            "model": {"name": "padim"},
            "runPolicy": kept,
            "trial": {
                "sweep": "hunt",
                "number": 3,
                "sweepUid": "sweep-uid",
                "search": "digest",
                "objective": "image.AUROC",
            },
        },
    }
    assert trial_manifest(HUNT, SEARCH, NewTrial(WHICH, "hunt-t3", {}, spec)) == expected
    assert trial_manifest(HUNT, SEARCH, InvalidTrial(WHICH, "hunt-t3", {}, "too large", spec)) == expected
