"""Tables of (desired state, observed state, recorded status) -> actions."""

from dataclasses import replace

import pytest

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.reasons import Reason
from anomaly_api.scheduling import RunPolicy
from anomaly_api.status import Phase, RunStatus, StepStatus
from anomaly_operator import names
from anomaly_operator.decide.desired import Blocked, DesiredJob, DesiredSearch, DesiredState
from anomaly_operator.decide.observed import ObservedState, PastJob
from anomaly_operator.decide.plan import Action, CreateJob, DeleteJob, DeletePods, PatchJob, Requeue, plan
from anomaly_operator.resources import Manifest
from anomaly_operator.views import JobView, PodView, job_view
from support.objects import (
    EXPERIMENT,
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
NOBODYS_JOB = replace(make_job(), owner=None)
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
        pytest.param(desired_job(), observed(NOBODYS_JOB), NO_STATUS, (CreateJob(JOB),), id="Job of nobody"),
        pytest.param(BLOCKED, observed(NOBODYS_JOB), NO_STATUS, (), id="blocked, with a Job of nobody"),
        pytest.param(
            desired_job(),
            observed(replace(NOBODYS_JOB, deleting=True)),
            NO_STATUS,
            (Requeue(),),
            id="Job of nobody that is being deleted",
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
            desired_job(digest="other"),
            observed(FINISHED_JOB),
            NO_STATUS,
            (DeleteJob(NAME, JOB_UID), Requeue()),
            id="ended by another spec before anything was recorded",
        ),
        pytest.param(
            desired_job(digest="other"),
            observed(FINISHED_JOB),
            RunStatus(job_name=NAME),
            (),
            id="ended while the operator was replaced by another release",
        ),
        pytest.param(desired_job(), observed(FINISHED_JOB), NO_STATUS, (), id="ended before anything was recorded"),
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


# What is removed of a run that is over, and of earlier steps and runs

ONLY_FAILURES = RunPolicy(retain_pods="onFailure")
PAST = replace(FINISHED_JOB, name="screws-experiment-check", uid="past")
FAILED_JOB = make_job(**finished_job_status("Failed"))


def beside(past: JobView, *pods: PodView, job: JobView | None = None) -> ObservedState:
    return replace(observed(job), past=(PastJob(past, pods),))


@pytest.mark.parametrize("status", [STARTED, COMPLETE])
def test_an_earlier_job_expires_like_the_last_one(status: RunStatus) -> None:
    policy, job = RunPolicy(ttl_seconds_after_finished=60), make_job(spec={"ttlSecondsAfterFinished": 60})
    expires = (PatchJob(PAST.name, {"ttlSecondsAfterFinished": 60}),)
    assert plan(UID, desired_job(policy), beside(PAST, job=job), status) == expires
    done = replace(PAST, ttl_seconds_after_finished=60)
    assert plan(UID, desired_job(policy), beside(done, job=job), status) == ()
    assert plan(UID, desired_job(), beside(done, job=job), status) == (
        PatchJob(PAST.name, {"ttlSecondsAfterFinished": None}),
    )


@pytest.mark.parametrize("status", [STARTED, COMPLETE])
def test_an_earlier_job_that_has_not_ended_is_deleted_once(status: RunStatus) -> None:
    active = replace(make_job(), name=PAST.name, uid="past")
    assert plan(UID, desired_job(), beside(active, job=make_job()), status) == (DeleteJob(PAST.name, "past"),)
    assert plan(UID, desired_job(), beside(replace(active, deleting=True), job=make_job()), status) == ()
    assert plan(UID, Blocked(Reason.SPEC_INVALID, ""), beside(active), status) == ()


def test_a_step_is_made_before_the_earlier_one_is_cleaned_up() -> None:
    actions = plan(UID, desired_job(RunPolicy(ttl_seconds_after_finished=60)), beside(PAST), STARTED)
    assert actions == (CreateJob(JOB), PatchJob(PAST.name, {"ttlSecondsAfterFinished": 60}))


def test_a_run_that_is_over_is_cleaned_up_with_its_earlier_jobs() -> None:
    policy = RunPolicy(ttl_seconds_after_finished=60)
    actions = plan(UID, desired_job(policy), beside(PAST, job=FINISHED_JOB), COMPLETE)
    assert actions == tuple(PatchJob(name, {"ttlSecondsAfterFinished": 60}) for name in (NAME, PAST.name))


def test_only_pods_of_a_success_that_have_ended_are_deleted() -> None:
    pods = (
        make_pod(1, phase="Failed"),
        make_pod(2, phase="Running"),
        replace(make_pod(3, phase="Succeeded"), deleting=True),
        make_pod(4, phase="Succeeded"),
    )
    deleted = (DeletePods(("screws-experiment-1", "screws-experiment-4")),)
    assert plan(UID, desired_job(ONLY_FAILURES), observed(FINISHED_JOB, *pods), COMPLETE) == deleted
    assert plan(UID, desired_job(ONLY_FAILURES), beside(PAST, *pods), COMPLETE) == deleted
    for policy, job, status in (
        (RunPolicy(), FINISHED_JOB, COMPLETE),
        (ONLY_FAILURES, FINISHED_JOB, FAILED),
        (ONLY_FAILURES, FAILED_JOB, COMPLETE),
    ):
        assert plan(UID, desired_job(policy), observed(job, *pods), status) == ()
    assert plan(UID, desired_job(ONLY_FAILURES), observed(FINISHED_JOB, pods[1], pods[2]), COMPLETE) == ()


def test_pods_of_an_earlier_success_stay_until_the_run_is_one() -> None:
    pods = (make_pod(4, phase="Succeeded"),)
    assert plan(UID, desired_job(ONLY_FAILURES), beside(PAST, *pods, job=make_job()), STARTED) == ()


def test_each_earlier_job_is_cleaned_up() -> None:
    def named(job: JobView, uid: str) -> PastJob:
        return PastJob(replace(job, name=f"job-{uid}", uid=uid))

    policy, active = RunPolicy(ttl_seconds_after_finished=60), make_job()
    past = (named(active, "1"), named(replace(PAST, deleting=True), "2"), named(PAST, "3"), named(PAST, "4"))
    assert plan(UID, desired_job(policy), replace(observed(), past=past), COMPLETE) == (
        DeleteJob("job-1", "1"),
        PatchJob("job-3", {"ttlSecondsAfterFinished": 60}),
        PatchJob("job-4", {"ttlSecondsAfterFinished": 60}),
    )


def test_nothing_is_removed_twice_or_without_a_policy() -> None:
    policy = RunPolicy(ttl_seconds_after_finished=60)
    gone = replace(FINISHED_JOB, deleting=True)
    assert plan(UID, desired_job(policy), observed(gone), COMPLETE) == ()
    assert plan(UID, desired_job(policy), beside(PAST, job=gone), COMPLETE) == (
        PatchJob(PAST.name, {"ttlSecondsAfterFinished": 60}),
    )
    assert plan(UID, Blocked(Reason.SPEC_INVALID, ""), beside(PAST, job=FINISHED_JOB), COMPLETE) == ()
    assert plan(UID, desired_job(policy), beside(PAST, job=make_job()), COMPLETE) == (
        PatchJob(PAST.name, {"ttlSecondsAfterFinished": 60}),
    )


def test_a_job_that_a_container_outlives_is_deleted_with_its_run() -> None:
    over = replace(observed(make_job(active=1), OUTLIVED), outlived=OUTLIVED)
    past = replace(over, past=(PastJob(PAST),))
    policy = RunPolicy(ttl_seconds_after_finished=60)
    assert plan(UID, desired_job(policy), past, COMPLETE) == (
        DeleteJob(NAME, JOB_UID),
        PatchJob(PAST.name, {"ttlSecondsAfterFinished": 60}),
    )
    ended = replace(observed(FINISHED_JOB, OUTLIVED), outlived=OUTLIVED)
    assert plan(UID, desired_job(), ended, COMPLETE) == ()


# What is changed about a Job at work


def test_a_job_whose_spec_is_not_valid_any_more_goes_on() -> None:
    invalid = Blocked(Reason.SPEC_INVALID, "")
    suspended = make_job(spec={"suspend": True, "backoffLimit": 9})
    assert plan(UID, invalid, observed(suspended), STARTED) == ()
    waits = Blocked(Reason.EXPERIMENT_NOT_FOUND, "", policy=RunPolicy(backoff_limit=9))
    assert plan(UID, waits, observed(suspended), STARTED) == (PatchJob(NAME, {"suspend": False}),)
    assert plan(UID, waits, observed(make_job()), NO_STATUS) == (PatchJob(NAME, {"backoffLimit": 9}),)


def test_the_deadline_of_a_step_is_what_earlier_ones_left() -> None:
    done = StepStatus(
        name="check", job_name="c", start_time="2026-01-02T03:00:00Z", completion_time="2026-01-02T03:00:20Z"
    )
    status = STARTED.model_copy(update={"steps": (done,)})
    policy = RunPolicy(active_deadline_seconds=60)
    assert plan(UID, desired_job(policy), observed(make_job()), status) == (
        PatchJob(NAME, {"activeDeadlineSeconds": 40}),
    )
    assert plan(UID, desired_job(policy), observed(make_job(spec={"activeDeadlineSeconds": 40})), status) == ()


def test_a_queued_job_is_suspended_and_otherwise_left_to_kueue() -> None:
    raw = raw_job(spec={"suspend": True})
    raw["metadata"]["labels"] |= QUEUED
    assert plan(UID, desired_job(RunPolicy(suspend=True)), observed(job_view(raw)), STARTED) == ()
    assert plan(UID, desired_job(RunPolicy(suspend=False)), observed(job_view(raw)), STARTED) == ()
    raw["spec"]["suspend"] = False
    assert plan(UID, desired_job(RunPolicy(suspend=False)), observed(job_view(raw)), STARTED) == ()


def test_a_job_of_another_run_of_the_name_is_waited_for_by_every_state() -> None:
    foreign = make_job(owner_uid="old", **finished_job_status("Complete"))
    for desired in (desired_job(), desired_job(digest="other"), BLOCKED):
        assert plan(UID, desired, observed(foreign), NO_STATUS) == (Requeue(),)
    assert plan(UID, desired_job(), observed(replace(make_job(), deleting=True)), NO_STATUS) == (Requeue(),)


def test_a_search_has_no_job() -> None:
    search = DesiredSearch(spec=ExperimentSpec.model_validate(EXPERIMENT["spec"]), search="s", limits="l")
    assert plan(UID, search, observed(), NO_STATUS) == ()
    assert plan(UID, search, beside(PAST), STARTED) == ()
    assert plan(UID, search, observed(make_job()), NO_STATUS) == ()
    assert plan(UID, search, observed(FINISHED_JOB), NO_STATUS) == ()
