"""The phase of a run that is not finished, with the reason and message that explain it.

How a run ended is decided by ``outcome``.
"""

from dataclasses import dataclass

from anomaly_api.reasons import Reason
from anomaly_api.status import ConditionType, Phase
from anomaly_operator.decide.desired import Blocked, DesiredState
from anomaly_operator.decide.observed import ObservedState
from anomaly_operator.decide.outcome import attempt_outcome
from anomaly_operator.views import EventView, JobView, PodView

IMAGE_PROBLEMS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
"""The kubelet's reasons for a container that waits because its image cannot be used."""

WARNING_REASONS = frozenset(
    {
        Reason.UNSCHEDULABLE,
        Reason.IMAGE_UNAVAILABLE,
        Reason.SECRET_NOT_FOUND,
        Reason.PODS_REFUSED,
        Reason.VOLUME_UNAVAILABLE,
        Reason.JOB_DELETED,
    }
)
"""Reasons of Reconciling that a person may have to act on."""


@dataclass(frozen=True)
class RunPhase:
    """The phase of an unfinished run, with the one condition that is True."""

    phase: Phase
    reason: Reason
    message: str = ""
    condition: ConditionType = ConditionType.RECONCILING
    """Reconciling, Stalled or Suspended."""


def current_phase(desired: DesiredState, observed: ObservedState, *, has_started: bool) -> RunPhase:
    """Decide the phase of an unfinished run: by its missing Job, its suspended Job, or the Job's pods.

    Args:
        desired: what should exist.
        observed: what exists.
        has_started: whether the run has had a pod, so that its spec is kept as it is.
    """
    job = observed.job
    if job is None or job.deleting:
        return _phase_without_job(desired, observed, has_started=has_started)
    if job.suspend:
        suspended_by_user = desired.policy is None or desired.policy.suspend
        return _phase_of_suspended_job(job, suspended_by_user=suspended_by_user)
    if pod := observed.active_pod:
        return _phase_of_active_pod(pod, observed.explanation)
    return _phase_without_active_pod(observed)


def _phase_without_job(desired: DesiredState, observed: ObservedState, *, has_started: bool) -> RunPhase:
    if isinstance(desired, Blocked):
        phase = Phase.PENDING if desired.reason is Reason.SPEC_INVALID else Phase.WAITING
        condition = ConditionType.STALLED if desired.stalled else ConditionType.RECONCILING
        return RunPhase(phase, desired.reason, desired.message, condition)
    # The spec of a run that has started changes while it is suspended, which repairs what only a later step has.
    if observed.refusal and has_started and desired.policy and desired.policy.suspend:
        message = f"runPolicy.suspend is true; its Job is refused: {observed.refusal.message}"
        return RunPhase(Phase.SUSPENDED, Reason.SUSPENDED, message, ConditionType.SUSPENDED)
    if observed.refusal:
        return RunPhase(Phase.PENDING, Reason.JOB_REFUSED, observed.refusal.message, ConditionType.STALLED)
    return RunPhase(Phase.PENDING, Reason.PENDING, "a Job of this name is still being deleted")


def _phase_of_suspended_job(job: JobView, *, suspended_by_user: bool) -> RunPhase:
    if suspended_by_user or not job.queued:
        return RunPhase(Phase.SUSPENDED, Reason.SUSPENDED, "runPolicy.suspend is true", ConditionType.SUSPENDED)
    return RunPhase(Phase.PENDING, Reason.QUEUED, "waiting for the queue to start the Job")


def _phase_of_active_pod(pod: PodView, explanation: EventView | None) -> RunPhase:
    """Return the phase by what a pod that has not finished is doing, or waiting for."""
    if pod.running or pod.termination:  # the container ends a moment before the pod's phase says so
        return RunPhase(Phase.RUNNING, Reason.RUNNING)
    if not_scheduled := pod.find_condition("PodScheduled", "False"):
        return RunPhase(Phase.PENDING, Reason.UNSCHEDULABLE, not_scheduled.message)
    message = f"{pod.waiting_reason}: {pod.waiting_message}".removesuffix(": ")
    if pod.waiting_reason in IMAGE_PROBLEMS:
        return RunPhase(Phase.PENDING, Reason.IMAGE_UNAVAILABLE, message)
    # The kubelet has no specific reason for a missing Secret, but its message names the Secret.
    if pod.waiting_reason == "CreateContainerConfigError" and "secret" in pod.waiting_message.lower():
        return RunPhase(Phase.PENDING, Reason.SECRET_NOT_FOUND, message)
    if explanation:
        return RunPhase(Phase.PENDING, Reason.VOLUME_UNAVAILABLE, explanation.message)
    return RunPhase(Phase.PENDING, Reason.STARTING, message)


def _phase_without_active_pod(observed: ObservedState) -> RunPhase:
    """Return the phase of a run whose Job has no pod yet, or whose last pod has finished."""
    if observed.explanation:
        return RunPhase(Phase.PENDING, Reason.PODS_REFUSED, observed.explanation.message)
    finished = [pod for pod in observed.pods if pod.finished]
    if not finished and observed.job_recreated:
        return RunPhase(Phase.PENDING, Reason.JOB_DELETED, "the Job was deleted and made again")
    if not finished:
        return RunPhase(Phase.PENDING, Reason.PENDING)
    if finished[-1].phase == "Succeeded":  # the Job becomes Complete in a moment
        return RunPhase(Phase.RUNNING, Reason.RUNNING)
    failure = attempt_outcome(finished[-1])
    return RunPhase(Phase.PENDING, Reason.RETRYING, f"{failure.reason}: {failure.message}")
