"""Tables of (desired, observed, recorded) -> actions."""

from typing import Any

import pytest

from anomaly_api.reasons import Reason
from anomaly_api.scheduling import RunPolicy
from anomaly_api.status import Phase, RunStatus
from anomaly_operator.decide.desired import Blocked, Wanted
from anomaly_operator.decide.plan import CreateJob, DeleteJob, DeletePods, PatchJob, Wait, plan
from support.objects import JOB_UID, KEY, NOTHING, UID, ended, job_of, observed, pod_of

JOB: dict[str, Any] = {"kind": "Job"}
STARTED = RunStatus(phase=Phase.RUNNING, start_time="2026-01-02T03:04:05Z", job_name="screws-experiment")
COMPLETE = RunStatus(phase=Phase.COMPLETE, start_time="2026-01-02T03:04:05Z")
FAILED = RunStatus(phase=Phase.FAILED)
NAME = "screws-experiment"
QUEUED = {"kueue.x-k8s.io/queue-name": "q"}


def wanted(**policy: Any) -> Wanted:
    return Wanted(policy=RunPolicy(**policy), job=lambda: JOB, digest="digest")


BLOCKED = Blocked(Reason.EXPERIMENT_NOT_FOUND, "", policy=RunPolicy())
DONE = job_of(**ended("Complete"))


@pytest.mark.parametrize(
    ("desired", "seen", "recorded", "actions"),
    [
        pytest.param(wanted(), observed(), NOTHING, (CreateJob(JOB),), id="new"),
        pytest.param(wanted(), observed(), STARTED, (CreateJob(JOB),), id="deleted Job of an unfinished run"),
        pytest.param(wanted(), observed(), COMPLETE, (), id="collected Job of a finished run"),
        pytest.param(wanted(), observed(), FAILED, (), id="collected Job of a failed run"),
        pytest.param(wanted(), observed(job_of()), NOTHING, (), id="as it should be"),
        pytest.param(wanted(), observed(job_of(owner_uid="old")), NOTHING, (Wait(),), id="Job of an earlier run"),
        pytest.param(BLOCKED, observed(), NOTHING, (), id="blocked"),
        pytest.param(BLOCKED, observed(job_of()), STARTED, (), id="its experiment was deleted while it runs"),
        pytest.param(
            wanted(suspend=True), observed(job_of()), STARTED, (PatchJob(NAME, {"suspend": True}),), id="suspend"
        ),
        pytest.param(
            wanted(),
            observed(job_of(spec={"suspend": True})),
            STARTED,
            (PatchJob(NAME, {"suspend": False}),),
            id="resume",
        ),
        pytest.param(
            wanted(backoff_limit=1, active_deadline_seconds=60),
            observed(job_of()),
            STARTED,
            (PatchJob(NAME, {"backoffLimit": 1, "activeDeadlineSeconds": 60}),),
            id="other limits",
        ),
        pytest.param(
            wanted(),
            observed(job_of(spec={"activeDeadlineSeconds": 60})),
            STARTED,
            (PatchJob(NAME, {"activeDeadlineSeconds": None}),),
            id="no deadline any more",
        ),
        pytest.param(
            Wanted(policy=RunPolicy(), job=lambda: JOB, digest="other"),
            observed(job_of()),
            NOTHING,
            (DeleteJob(NAME, JOB_UID), Wait()),
            id="another spec before the start",
        ),
        pytest.param(
            Wanted(policy=RunPolicy(), job=lambda: JOB, digest="other"),
            observed(job_of()),
            STARTED,
            (),
            id="another operator version after the start",
        ),
        pytest.param(wanted(suspend=True), observed(DONE), STARTED, (), id="ended but not yet recorded"),
        pytest.param(
            wanted(ttl_seconds_after_finished=60),
            observed(DONE),
            COMPLETE,
            (PatchJob(NAME, {"ttlSecondsAfterFinished": 60}),),
            id="TTL only when the result is recorded",
        ),
        pytest.param(
            wanted(retain_pods="onFailure"),
            observed(DONE, pod_of(phase="Succeeded")),
            COMPLETE,
            (DeletePods(("screws-experiment-1",)),),
            id="pods of a success go",
        ),
        pytest.param(
            wanted(retain_pods="onFailure"),
            observed(job_of(**ended("Failed")), pod_of(phase="Failed")),
            FAILED,
            (),
            id="pods of a failure stay",
        ),
    ],
)
def test_plan(desired: Any, seen: Any, recorded: RunStatus, actions: Any) -> None:
    assert plan(KEY, UID, desired, seen, recorded) == actions


def test_kueue_alone_unsuspends_a_queued_job() -> None:
    from anomaly_operator.views import job_view
    from support.objects import raw_job

    raw = raw_job(spec={"suspend": True})
    raw["metadata"]["labels"] |= QUEUED
    assert plan(KEY, UID, wanted(), observed(job_view(raw)), NOTHING) == ()
    raw["spec"]["suspend"] = False
    assert plan(KEY, UID, wanted(suspend=True), observed(job_view(raw)), NOTHING) == (
        PatchJob(NAME, {"suspend": True}),
    )
