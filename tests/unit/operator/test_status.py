"""The status of a run: what is kept of it, what its Job and pods add, and how it ends. tests/golden has it whole."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from anomaly_api.reasons import ExitCode, Reason
from anomaly_api.run import ProgressUpdate, RunIdentity, RunSummary
from anomaly_api.status import MetricValues, NodeTime, Progress, RunStatus, Stage, StepStatus
from anomaly_operator.decide.desired import DesiredState, desired_state
from anomaly_operator.decide.observed import ObservedState, Refusal
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.decide.runs import search_of
from anomaly_operator.decide.status import compute_status
from anomaly_operator.resources import Manifest
from anomaly_operator.views import JobView, PodView, RunView
from support.objects import EXPERIMENT, INFERENCE, make_job, make_pod, make_run, terminated_with, with_spec

SETTINGS = PodSettings(runner_image="r", inference_image="i")
NOW = datetime(2026, 1, 2, 3, 15, tzinfo=UTC)
CREATED, STARTED, ENDED, LATER = (f"2026-01-02T{time}Z" for time in ("03:04:05", "03:05:00", "03:10:00", "03:15:00"))
RUN = make_run(with_spec(EXPERIMENT, runPolicy={"preflight": "Never"}))
CHECKED = make_run(with_spec(EXPERIMENT, runPolicy={"preflight": "Always"}))
GPU = {"name": "A100", "provider": "torch cuda"}
CPU = {"name": "CPU", "provider": "torch cpu"}
USED = {"namespace": "vision", "name": "screws", "uid": "of-screws", "run": 2}
MLFLOW = {"runId": "abc"}


def recorded(**fields: Any) -> RunStatus:
    return RunStatus.model_validate({"run": 1, "specDigest": "d"} | fields)


def desired(run: RunView, old: RunStatus) -> DesiredState:
    return desired_state(run, old, None, SETTINGS)


def status(observed: ObservedState, old: RunStatus | None = None, run: RunView = RUN) -> RunStatus:
    old = old or recorded()
    return compute_status(run, old, desired(run, old), observed, NOW)


def ended(kind: str = "Complete", step: str | None = None, at: str | None = ENDED, **fields: Any) -> JobView:
    """Return a finished Job that began at 03:05:00."""
    condition = {"type": kind, "status": "True", "lastTransitionTime": at}
    count = {"Complete": {"succeeded": 1}, "Failed": {"failed": 1}}[kind]
    return make_job(which=(None, step), **{"startTime": STARTED, "conditions": [condition]} | count | fields)


def summarized(exit_code: int = 0, phase: str | None = None, **fields: Any) -> PodView:
    """Return a pod that left a summary."""
    reason = Reason.COMPLETE if exit_code == 0 else ExitCode(exit_code).reason
    summary = RunSummary.model_validate({"reason": reason, "stage": Stage.DONE} | fields)
    ended = "Succeeded" if exit_code == 0 else "Failed"
    return make_pod(1, terminated_with(summary, exit_code), phase=phase or ended)


# A pod that cannot finish --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "phase", "reason"),
    [(0, "Complete", "Complete"), (ExitCode.DATA_INVALID, "Failed", "DataInvalid"), (1, "Running", "Running")],
)
def test_a_runner_that_is_done_ends_the_run_although_its_pod_does_not(code: int, phase: str, reason: str) -> None:
    pod = summarized(int(code), phase="Running")
    told = status(ObservedState(job=make_job(active=1, startTime=STARTED), pods=(pod,), outlived=pod))
    assert told.phase == phase
    if phase == "Running":
        return
    assert (told.conditions[0].type, told.conditions[0].reason) == (phase, reason)
    assert (told.start_time, told.completion_time) == (STARTED, LATER), "the Job has no end of its own"


# The model that an inference uses ------------------------------------------------------------------------------------


def screws(uid: str = "of-screws", **fields: Any) -> RunView:
    complete = {"phase": "Complete", "artifacts": {"root": "s3://results/1"}, "run": 3}
    return make_run(EXPERIMENT, complete | fields, uid=uid)


@pytest.mark.parametrize(
    ("used", "experiment", "newer"),
    [
        (USED, screws(), 3),
        (USED, screws(run=2), None),
        (USED, screws(run=1, uid="of-a-later-one"), 1),
        (USED, None, 7),
        (USED, screws(phase="Running"), None),
        (USED, screws(phase="Melted"), 7),
        ({"uid": "of-screws"}, screws(run=1), None),
        ({"uid": "of-screws"}, screws(run=2), 2),
    ],
    ids=["newer", "the same", "of another", "deleted", "at work", "unreadable", "first of old", "newer than old"],
)
def test_a_record_says_whether_there_is_a_newer_model(
    used: Manifest, experiment: RunView | None, newer: int | None
) -> None:
    known = {"namespace": "vision", "name": "screws", "newerRun": 7}
    old = recorded(phase="Complete", trainedBy=known | used)
    told = status(ObservedState(experiment=experiment), old, make_run(INFERENCE))
    assert told.trained_by
    assert told.trained_by.newer_run == newer


def test_a_record_without_a_model_of_others_stays_as_it_is() -> None:
    old = recorded(phase="Complete")
    assert status(ObservedState(experiment=screws()), old, make_run(INFERENCE)).trained_by is None


def test_the_model_is_told_while_the_run_is_at_work_and_kept_while_it_waits() -> None:
    run = make_run(with_spec(INFERENCE, runPolicy={"preflight": "Never"}))
    wanted = desired_state(run, recorded(), screws(), SETTINGS)
    told = compute_status(run, recorded(), wanted, ObservedState(job=make_job()), NOW)
    assert told.trained_by
    assert told.trained_by.run == 3
    old = recorded(trainedBy=USED)
    assert status(ObservedState(), old, run).trained_by == old.trained_by, "the experiment is gone"


# Between steps, and at the end ---------------------------------------------------------------------------------------


def test_a_check_that_is_done_is_recorded() -> None:
    listing = {"file": "listing.json", "sha256": "abc"}
    pod = summarized(listing=listing, warnings=["few images"])
    old = recorded(
        mlflow=MLFLOW,
        trainedBy=USED,
        attempts=2,
        conditions=[{"type": "Stalled", "status": "True", "reason": "InternalError", "lastTransitionTime": CREATED}],
    )
    told = status(ObservedState(job=ended(step="check", failed=1), pods=(pod,)), old, CHECKED)
    assert told.steps == (
        StepStatus.model_validate(
            {
                "name": "check",
                "jobName": "screws-experiment-check",
                "attempts": 2,
                "startTime": STARTED,
                "completionTime": ENDED,
                "listing": listing,
            }
        ),
    )
    assert (told.phase, told.start_time, told.job_name, told.attempts) == (
        "Pending",
        STARTED,
        "screws-experiment-check",
        2,
    )
    assert (told.mlflow, told.trained_by, told.warnings) == (old.mlflow, old.trained_by, ("few images",))
    states = {(found.type.value, found.status, found.reason.value) for found in told.conditions}
    assert states == {
        ("Stalled", "False", "Pending"),
        ("Reconciling", "True", "Pending"),
        ("DataReady", "True", "DataReady"),
    }


def test_a_step_that_is_done_again_counts_its_own_pods() -> None:
    """A search between two Jobs of steps has pods of its own, which are not those of the check."""
    searched = {"name": "search", "jobName": "", "attempts": 3}
    old = recorded(startTime=CREATED, steps=[searched], attempts=3)
    told = status(ObservedState(job=ended(step="check"), pods=(summarized(),)), old, CHECKED)
    assert [(step.name, step.attempts) for step in told.steps or ()] == [("search", 3), ("check", 1)]
    assert (told.attempts, told.start_time) == (4, CREATED)


def test_the_end_of_a_step_that_the_job_does_not_tell_is_now() -> None:
    told = status(ObservedState(job=ended(step="check", at=None), pods=(summarized(),)), run=CHECKED)
    assert [step.completion_time for step in told.steps or ()] == [LATER]
    own = ended(completionTime="2026-01-02T03:09:00Z")
    assert status(ObservedState(job=own, pods=(summarized(),))).completion_time == "2026-01-02T03:09:00Z"
    assert status(ObservedState(job=ended(), pods=(summarized(),))).completion_time == ENDED
    assert status(ObservedState(job=ended(at=None), pods=(summarized(),))).completion_time == LATER


@pytest.mark.parametrize(
    ("step", "known", "left", "expected"),
    [
        (None, CPU, GPU, "A100"),
        (None, CPU, None, "CPU"),
        (None, None, GPU, "A100"),
        # What only prepares the work has another device.
        ("check", GPU, CPU, "A100"),
        ("check", None, CPU, None),
    ],
)
def test_the_device_of_a_run_is_that_of_its_work(
    step: str | None, known: Manifest | None, left: Manifest | None, expected: str | None
) -> None:
    old = recorded(**{"device": known} if known else {})
    fields: Manifest = {"device": left} if left else {}
    pod = summarized(int(ExitCode.DATA_INVALID), **fields)
    told = status(ObservedState(job=ended("Failed", step), pods=(pod,)), old, CHECKED if step else RUN)
    assert told.phase == "Failed"
    assert (told.device.name if told.device else None) == expected


@pytest.mark.parametrize(("left", "run"), [({"trainedBy": USED | {"run": 5}}, 5), ({}, 2)])
def test_the_model_of_a_run_is_what_it_said_itself_or_what_was_known(left: Manifest, run: int) -> None:
    told = status(ObservedState(job=ended(), pods=(summarized(**left),)), recorded(trainedBy=USED))
    assert told.trained_by
    assert told.trained_by.run == run


@pytest.mark.parametrize(
    ("artifacts", "message"), [({"root": "s3://results/1"}, "results are in s3://results/1"), ({}, ""), (None, "")]
)
def test_a_run_that_is_complete_says_where_its_results_are(artifacts: Manifest | None, message: str) -> None:
    fields: Manifest = {} if artifacts is None else {"artifacts": artifacts}
    told = status(ObservedState(job=ended(), pods=(summarized(**fields),)))
    assert told.conditions[0].message == message


def test_a_failure_without_a_message_or_a_summary_says_nothing_of_results() -> None:
    pod = summarized(int(ExitCode.DATA_INVALID))
    assert status(ObservedState(job=ended("Failed"), pods=(pod,))).conditions[0].message == ""
    preempted = make_pod(1, phase="Failed", conditions=[{"type": "DisruptionTarget", "status": "True"}])
    told = status(ObservedState(job=ended("Failed"), pods=(preempted,)))
    assert (told.conditions[0].reason, told.conditions[0].message) == ("Preempted", "")


@pytest.mark.parametrize(
    ("fields", "spec", "start"),
    [
        ({"startTime": STARTED}, {}, STARTED),
        ({}, {}, CREATED),
        ({}, {"suspend": True}, None),
        ({"startTime": STARTED}, {"suspend": True}, STARTED),
    ],
)
def test_a_run_began_when_its_job_could_make_a_pod(fields: Manifest, spec: Manifest, start: str | None) -> None:
    told = status(ObservedState(job=make_job(spec=spec, failed=1, **fields)))
    assert (told.start_time, told.attempts) == (start, 1)
    assert status(ObservedState(job=make_job(spec=spec, **fields))).start_time is None, "it has had no pod"


@pytest.mark.parametrize(
    ("counts", "pods", "known", "attempts"),
    [
        ({"active": 1, "failed": 2, "succeeded": 4}, 0, 0, 7),
        ({"failed": 1}, 3, 0, 3),
        ({"failed": 1}, 0, 5, 5),
    ],
)
def test_attempts_are_the_most_pods_that_anybody_counted(
    counts: dict[str, Any], pods: int, known: int, attempts: int
) -> None:
    seen = tuple(make_pod(number) for number in range(1, pods + 1))
    assert status(ObservedState(job=make_job(**counts), pods=seen), recorded(attempts=known)).attempts == attempts


# Sweeps and their trials ----------------------------------------------------------------------------------------------

OWNER = {"kind": "AnomalyExperiment", "name": "hunt", "uid": "of-hunt", "controller": True}
BLOCK = {
    "parameters": [{"path": "model.padim.nFeatures", "int": {"low": 1, "high": 64}}],
    "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
}
SWEEP = make_run(with_spec(EXPERIMENT, sweep=BLOCK, runPolicy={"preflight": "Never"}))
BEST = {"number": 3, "objectives": {"image.AUROC": 0.75}, "values": {"model.padim.nFeatures": 7}}
METRICS = MetricValues.model_validate({"image": {"AUROC": 0.51234567}})


def searched(**search: Any) -> RunStatus:
    found = {"asked": 4, "best": [BEST], "search": search_of(SWEEP, recorded())}
    step = {"name": "search", "jobName": "", "attempts": 0} | search
    return recorded(steps=[step], sweep=found, jobName="screws-experiment", attempts=2, mlflow=MLFLOW)


def test_the_best_trial_of_a_sweep_is_measured_again_at_its_end() -> None:
    told = status(ObservedState(job=ended(), pods=(summarized(metrics=METRICS),)), searched(), SWEEP)
    assert told.sweep
    assert told.sweep.remeasured
    assert told.sweep.remeasured.objectives == {"image.AUROC": 0.51234567}
    assert told.display
    assert (told.display.objective, told.display.auroc) == ("0.512346", "0.5123")


def test_a_run_without_a_sweep_has_no_objective() -> None:
    told = status(ObservedState(job=ended(), pods=(summarized(metrics=METRICS),)))
    assert told.display
    assert (told.display.objective, told.display.auroc) == (None, "0.5123")


@pytest.mark.parametrize(
    ("objective", "expected"),
    [("image.F1Score", "0.25"), ("image.AUROC", "0.512346"), ("pixel.AUROC", None), (None, None)],
)
def test_a_trial_shows_the_value_of_its_sweeps_objective(objective: str | None, expected: str | None) -> None:
    which = {"sweep": "hunt", "number": 1, "values": {}} | ({"objective": objective} if objective else {})
    manifest = with_spec(EXPERIMENT, trial=which, runPolicy={"preflight": "Never"})
    run = make_run(manifest | {"metadata": EXPERIMENT["metadata"] | {"ownerReferences": [OWNER]}})
    measured = MetricValues.model_validate({"image": {"AUROC": 0.51234567, "F1Score": 0.25}})
    told = status(ObservedState(job=ended(), pods=(summarized(metrics=measured),)), run=run)
    assert told.display
    assert told.display.objective == expected


def test_what_is_of_no_sweep_or_no_longer_a_trial_shows_no_objective() -> None:
    inference = make_run(with_spec(INFERENCE, runPolicy={"preflight": "Never"}))
    for run in (inference, TRIAL):
        told = status(ObservedState(job=ended(), pods=(summarized(metrics=METRICS),)), run=run)
        assert told.display
        assert (told.display.auroc, told.display.objective) == ("0.5123", None)


def test_a_sweep_that_measured_nothing_shows_nothing() -> None:
    told = status(ObservedState(job=ended(), pods=(summarized(),)), searched(), SWEEP)
    assert told.display
    assert told.display.objective is None


@pytest.mark.parametrize(("left", "text"), [(150, "train 42%, 2m left"), (0, "train 42%"), (None, "train 42%")])
def test_a_run_at_work_says_how_far_it_is(left: int | None, text: str) -> None:
    identity = RunIdentity(kind="AnomalyExperiment", namespace="vision", name="screws", uid="u")
    progress = Progress(percent=42, remaining_seconds=left)
    update = ProgressUpdate(run=identity, stage=Stage.TRAIN, progress=progress)
    pod = make_pod(1, {"running": {}}, phase="Running")
    told = status(ObservedState(job=make_job(active=1), pods=(pod,), progress=update))
    assert told.display
    assert told.display.progress == text


def test_a_failed_search_whose_page_is_refused_keeps_what_is_known() -> None:
    old = searched(failure={"reason": "TrialsFailed", "message": "4 trials failed"})
    told = status(ObservedState(refusal=Refusal("exceeded quota")), old, SWEEP)
    assert (told.phase, told.stage, told.completion_time) == ("Failed", "search", LATER)
    assert (told.job_name, told.attempts, told.mlflow) == ("screws-experiment", 2, old.mlflow)
    assert told.warnings == ("the sweep's page could not be made: exceeded quota",)


TRIAL = replace(
    RUN, owner=make_run(EXPERIMENT | {"metadata": EXPERIMENT["metadata"] | {"ownerReferences": [OWNER]}}).owner
)


@pytest.mark.parametrize(("run", "seconds"), [(TRIAL, 300.0), (RUN, None)])
def test_the_time_on_nodes_of_a_trial_is_that_of_its_job_where_nobody_saw_its_pods(
    run: RunView, seconds: float | None
) -> None:
    """It began at 03:05:00 and failed at 03:10:00, when its pods had gone."""
    told = status(ObservedState(job=ended("Failed")), run=run)
    assert (told.node_time.seconds if told.node_time else None) == seconds
    later = status(ObservedState(job=ended("Failed", at=None)), run=run)
    assert (later.node_time.seconds if later.node_time else None) == (None if seconds is None else 600.0)


def test_a_trial_at_work_says_since_when_it_is_on_a_node() -> None:
    bound = {"type": "PodScheduled", "status": "True", "lastTransitionTime": STARTED}
    pod = make_pod(1, {"running": {}}, phase="Running", conditions=[bound])
    job = make_job(active=1, startTime=CREATED)
    assert status(ObservedState(job=job, pods=(pod,)), run=TRIAL).node_time == NodeTime(since=STARTED)
    assert status(ObservedState(job=job, pods=(pod,))).node_time is None
