"""Tables of (desired state, observed state, recorded status) -> actions."""

from dataclasses import replace

import pytest

from anomaly_api.reasons import Reason
from anomaly_api.scheduling import RunPolicy
from anomaly_api.status import Phase, RunStatus
from anomaly_operator import names
from anomaly_operator.decide.desired import Blocked, DesiredJob, DesiredState
from anomaly_operator.decide.observed import ObservedState
from anomaly_operator.decide.plan import Action, CreateJob, DeleteJob, DeletePods, PatchJob, Requeue, plan
from anomaly_operator.resources import Manifest
from anomaly_operator.views import job_view
from support.objects import (
    JOB_UID,
    NO_STATUS,
    UID,
    finished_job_status,
    make_job,
    make_pod,
    observed,
    raw_job,
    terminated,
)

JOB: Manifest = {"kind": "Job"}
STARTED = RunStatus(phase=Phase.RUNNING, start_time="2026-01-02T03:04:05Z", job_name="screws-experiment")
COMPLETE = RunStatus(phase=Phase.COMPLETE, start_time="2026-01-02T03:04:05Z")
FAILED = RunStatus(phase=Phase.FAILED)
NAME = "screws-experiment"
QUEUED = {"kueue.x-k8s.io/queue-name": "q"}


def desired_job(policy: RunPolicy | None = None, digest: str = "digest") -> DesiredJob:
    return DesiredJob(
        name=NAME, policy=policy or RunPolicy(), config_digest=digest, installation="here", make=lambda: JOB
    )


BLOCKED = Blocked(Reason.EXPERIMENT_NOT_FOUND, "", policy=RunPolicy())
FINISHED_JOB = make_job(**finished_job_status("Complete"))


@pytest.mark.parametrize(
    ("desired", "observed_state", "status", "actions"),
    [
        pytest.param(desired_job(), observed(), NO_STATUS, (CreateJob(JOB),), id="new"),
        pytest.param(desired_job(), observed(), STARTED, (CreateJob(JOB),), id="deleted Job of an unfinished run"),
        pytest.param(desired_job(), observed(), COMPLETE, (), id="collected Job of a finished run"),
        pytest.param(desired_job(), observed(), FAILED, (), id="collected Job of a failed run"),
        pytest.param(desired_job(), observed(make_job()), NO_STATUS, (), id="as it should be"),
        pytest.param(
            desired_job(), observed(make_job(owner_uid="old")), NO_STATUS, (Requeue(),), id="Job of an earlier run"
        ),
        pytest.param(BLOCKED, observed(), NO_STATUS, (), id="blocked"),
        pytest.param(BLOCKED, observed(make_job()), STARTED, (), id="its experiment was deleted while it runs"),
        pytest.param(
            desired_job(RunPolicy(suspend=True)),
            observed(make_job()),
            STARTED,
            (PatchJob(NAME, {"suspend": True}),),
            id="suspend",
        ),
        pytest.param(
            desired_job(),
            observed(make_job(spec={"suspend": True})),
            STARTED,
            (PatchJob(NAME, {"suspend": False}),),
            id="resume",
        ),
        pytest.param(
            desired_job(RunPolicy(backoff_limit=1, active_deadline_seconds=60)),
            observed(make_job()),
            STARTED,
            (PatchJob(NAME, {"backoffLimit": 1, "activeDeadlineSeconds": 60}),),
            id="other limits",
        ),
        pytest.param(
            desired_job(),
            observed(make_job(spec={"activeDeadlineSeconds": 60})),
            STARTED,
            (PatchJob(NAME, {"activeDeadlineSeconds": None}),),
            id="no deadline any more",
        ),
        pytest.param(
            desired_job(digest="other"),
            observed(make_job()),
            NO_STATUS,
            (DeleteJob(NAME, JOB_UID), Requeue()),
            id="another spec before the start",
        ),
        pytest.param(
            desired_job(digest="other"),
            observed(make_job()),
            STARTED,
            (),
            id="another operator version after the start",
        ),
        pytest.param(
            desired_job(RunPolicy(suspend=True)), observed(FINISHED_JOB), STARTED, (), id="ended but not yet recorded"
        ),
        pytest.param(
            desired_job(RunPolicy(ttl_seconds_after_finished=60)),
            observed(FINISHED_JOB),
            COMPLETE,
            (PatchJob(NAME, {"ttlSecondsAfterFinished": 60}),),
            id="TTL only when the result is recorded",
        ),
        pytest.param(
            desired_job(RunPolicy(retain_pods="onFailure")),
            observed(FINISHED_JOB, make_pod(phase="Succeeded")),
            COMPLETE,
            (DeletePods(("screws-experiment-1",)),),
            id="pods of a success go",
        ),
        pytest.param(
            desired_job(RunPolicy(retain_pods="onFailure")),
            observed(make_job(**finished_job_status("Failed")), make_pod(phase="Failed")),
            FAILED,
            (),
            id="pods of a failure stay",
        ),
    ],
)
def test_plan(
    desired: DesiredState, observed_state: ObservedState, status: RunStatus, actions: tuple[Action, ...]
) -> None:
    assert plan(UID, desired, observed_state, status) == actions


def test_two_operators_do_not_replace_each_others_jobs() -> None:
    raw = raw_job()
    for installation, replaced in (("here", True), ("", True), ("elsewhere", False)):
        raw["metadata"]["annotations"][names.INSTALLATION_ANNOTATION] = installation
        actions = plan(UID, desired_job(digest="another"), observed(job_view(raw)), NO_STATUS)
        assert any(isinstance(action, DeleteJob) for action in actions) is replaced


OUTLIVED = make_pod(phase="Running", state=terminated(0))
TO_RETRY = make_pod(phase="Running", state=terminated(20))


def test_a_pod_that_cannot_finish_is_ended_for_another_attempt() -> None:
    state = replace(observed(make_job(active=1), TO_RETRY), outlived=TO_RETRY)
    assert plan(UID, desired_job(), state, NO_STATUS) == (DeletePods((TO_RETRY.name,)),)


def test_the_end_of_a_run_is_recorded_before_its_job_is_deleted() -> None:
    state = replace(observed(make_job(active=1), OUTLIVED), outlived=OUTLIVED)
    assert plan(UID, desired_job(), state, NO_STATUS) == ()
    assert plan(UID, desired_job(), state, COMPLETE) == (DeleteJob(NAME, JOB_UID),)


def test_kueue_alone_unsuspends_a_queued_job() -> None:
    raw = raw_job(spec={"suspend": True})
    raw["metadata"]["labels"] |= QUEUED
    assert plan(UID, desired_job(), observed(job_view(raw)), NO_STATUS) == ()
    raw["spec"]["suspend"] = False
    assert plan(UID, desired_job(RunPolicy(suspend=True)), observed(job_view(raw)), NO_STATUS) == (
        PatchJob(NAME, {"suspend": True}),
    )
