"""Where an unfinished run is, as one phase, one reason and one message. Pure."""

from dataclasses import dataclass

from anomaly_api.reasons import Reason
from anomaly_api.status import Phase
from anomaly_operator.decide.desired import Blocked, Desired
from anomaly_operator.decide.observed import Observed
from anomaly_operator.decide.outcome import attempt_outcome
from anomaly_operator.views import JobView, PodView

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


@dataclass(frozen=True)
class Situation:
    """Where an unfinished run is."""

    phase: Phase
    reason: Reason
    message: str = ""
    stalled: bool = False
    suspended: bool = False


def situation(wanted: Desired, observed: Observed) -> Situation:
    """The first of these that holds: no Job, a Job that is held, a pod that is held, a pod that runs."""
    job = observed.job
    if job is None or job.deleting:
        return _without_job(wanted, observed)
    if job.suspend:
        return _held(job, suspended=wanted.policy is None or wanted.policy.suspend)
    alive = [pod for pod in observed.pods if not pod.finished and not pod.deleting]
    if alive:
        return of_pod(alive[-1])
    return _between_pods(observed)


def _without_job(wanted: Desired, observed: Observed) -> Situation:
    if isinstance(wanted, Blocked):
        stuck = wanted.reason is Reason.SPEC_INVALID
        phase = Phase.PENDING if stuck else Phase.WAITING
        return Situation(phase, wanted.reason, wanted.message, stalled=wanted.stalled)
    if observed.refusal:
        return Situation(Phase.PENDING, Reason.JOB_REFUSED, observed.refusal.message[:1024], stalled=True)
    return Situation(Phase.PENDING, Reason.PENDING, "a Job of this name is still being deleted")


def _held(job: JobView, *, suspended: bool) -> Situation:
    if suspended or not job.queued:
        return Situation(Phase.SUSPENDED, Reason.SUSPENDED, "runPolicy.suspend is true", suspended=True)
    return Situation(Phase.PENDING, Reason.QUEUED, "waiting for the queue to start the Job")


def of_pod(pod: PodView) -> Situation:
    """What a pod that has not ended is doing or waiting for."""
    if pod.running or pod.termination:  # the container ends a moment before the pod's phase says so
        return Situation(Phase.RUNNING, Reason.RUNNING)
    if refused := pod.condition("PodScheduled", "False"):
        return Situation(Phase.PENDING, Reason.UNSCHEDULABLE, refused.message[:1024])
    said = f"{pod.waiting_reason}: {pod.waiting_message}".removesuffix(": ")[:1024]
    if pod.waiting_reason in IMAGE_PROBLEMS:
        return Situation(Phase.PENDING, Reason.IMAGE_UNAVAILABLE, said)
    if pod.waiting_reason == "CreateContainerConfigError" and "secret" in pod.waiting_message.lower():
        return Situation(Phase.PENDING, Reason.SECRET_NOT_FOUND, said)
    return Situation(Phase.PENDING, Reason.STARTING, said)


def _between_pods(observed: Observed) -> Situation:
    ended = [pod for pod in observed.pods if pod.finished]
    if not ended:
        reason = Reason.JOB_DELETED if observed.replaced else Reason.PENDING
        return Situation(Phase.PENDING, reason, "the Job was deleted and made again" if observed.replaced else "")
    if ended[-1].phase == "Succeeded":
        return Situation(Phase.RUNNING, Reason.RUNNING)
    last = attempt_outcome(ended[-1])
    return Situation(Phase.PENDING, Reason.RETRYING, f"{last.reason}: {last.message}"[:1024])
