"""The phase of a run that is not over: what it waits for, and which of several causes is told."""

from dataclasses import replace
from typing import Any

import pytest

from anomaly_api.reasons import Reason
from anomaly_api.scheduling import RunPolicy
from anomaly_api.status import ConditionType, Phase
from anomaly_operator.decide.desired import DesiredJob
from anomaly_operator.decide.observed import ObservedState, Refusal
from anomaly_operator.decide.phase import RunPhase, current_phase
from anomaly_operator.resources import Manifest
from support.objects import make_job, make_pod, observed, terminated

JOB: Manifest = {"kind": "Job"}
REFUSED = ObservedState(refusal=Refusal("exceeded quota"))
DELETED = observed(replace(make_job(), deleting=True))
STILL_THERE = RunPhase(Phase.PENDING, Reason.PENDING, "a Job of this name is still being deleted")
STALLED = RunPhase(Phase.PENDING, Reason.JOB_REFUSED, "exceeded quota", ConditionType.STALLED)


def desired_job(*, suspend: bool) -> DesiredJob:
    policy = RunPolicy(suspend=suspend)
    return DesiredJob(name="screws", policy=policy, config_digest="d", installation="here", make=lambda: JOB)


@pytest.mark.parametrize("has_started", [True, False])
@pytest.mark.parametrize("suspend", [True, False])
def test_a_job_that_is_being_deleted_is_waited_for(suspend: bool, has_started: bool) -> None:
    assert current_phase(desired_job(suspend=suspend), DELETED, has_started=has_started) == STILL_THERE


@pytest.mark.parametrize(("suspend", "has_started"), [(True, False), (False, True), (False, False)])
def test_a_refused_job_needs_a_person(suspend: bool, has_started: bool) -> None:
    assert current_phase(desired_job(suspend=suspend), REFUSED, has_started=has_started) == STALLED


def test_a_suspended_run_whose_next_job_is_refused_is_suspended() -> None:
    message = "runPolicy.suspend is true; its Job is refused: exceeded quota"
    expected = RunPhase(Phase.SUSPENDED, Reason.SUSPENDED, message, ConditionType.SUSPENDED)
    assert current_phase(desired_job(suspend=True), REFUSED, has_started=True) == expected


def phase_of(state: ObservedState) -> RunPhase:
    return current_phase(desired_job(suspend=False), state, has_started=True)


def waiting(reason: str, message: str) -> ObservedState:
    return observed(make_job(active=1), make_pod(state={"waiting": {"reason": reason, "message": message}}))


@pytest.mark.parametrize(
    ("reason", "message", "expected"),
    [
        ("CreateContainerConfigError", 'secret "s3" not found', Reason.SECRET_NOT_FOUND),
        ("CreateContainerConfigError", 'Secret "s3" not found', Reason.SECRET_NOT_FOUND),
        ("CreateContainerConfigError", 'configmap "c" not found', Reason.STARTING),
        ("ContainerCreating", "mounts the secret", Reason.STARTING),
        ("ErrImagePull", "no secret to pull it with", Reason.IMAGE_UNAVAILABLE),
    ],
)
def test_a_missing_secret_is_told_by_the_kubelets_reason_and_words(reason: str, message: str, expected: Reason) -> None:
    assert phase_of(waiting(reason, message)) == RunPhase(Phase.PENDING, expected, f"{reason}: {message}")


def test_a_job_that_was_made_again_says_so_until_it_has_a_pod() -> None:
    again = replace(observed(make_job(active=1)), job_recreated=True)
    expected = RunPhase(Phase.PENDING, Reason.JOB_DELETED, "the Job was deleted and made again")
    assert phase_of(again) == expected
    assert phase_of(replace(again, job_recreated=False)) == RunPhase(Phase.PENDING, Reason.PENDING)
    assert phase_of(replace(again, pods=(make_pod(phase="Running", state={"running": {}}),))).reason is Reason.RUNNING
    failed = make_pod(phase="Failed", state=terminated(77, "oh"))
    assert phase_of(replace(again, pods=(failed,))).reason is Reason.RETRYING


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (("Failed", "Succeeded"), RunPhase(Phase.RUNNING, Reason.RUNNING)),
        (
            ("Succeeded", "Failed"),
            RunPhase(Phase.PENDING, Reason.RETRYING, "InternalError: exit code 77: last words"),
        ),
    ],
)
def test_between_two_pods_the_last_end_counts(ends: tuple[str, ...], expected: RunPhase) -> None:
    states: dict[str, dict[str, Any]] = {"Failed": terminated(77, "last words"), "Succeeded": terminated(0)}
    pods = (make_pod(number, phase=end, state=states[end]) for number, end in enumerate(ends, 1))
    assert phase_of(observed(make_job(), *pods)) == expected
