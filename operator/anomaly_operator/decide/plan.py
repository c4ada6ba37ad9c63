"""What to do so that the observed state of a run becomes the desired one.

An action carries everything that ``cluster.apply`` needs to perform it; nothing is performed here.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from anomaly_api.scheduling import RunPolicy
from anomaly_api.status import Phase, RunStatus
from anomaly_operator.decide.desired import DesiredJob, DesiredState
from anomaly_operator.decide.observed import ObservedState, PastJob
from anomaly_operator.decide.outlived import ends_run
from anomaly_operator.decide.runs import is_finished
from anomaly_operator.decide.steps import seconds_left
from anomaly_operator.resources import Manifest
from anomaly_operator.views import JobView, PodView


@dataclass(frozen=True)
class CreateJob:
    """Create the Job, or adopt an existing one of its name that belongs to this run."""

    manifest: Manifest


@dataclass(frozen=True)
class PatchJob:
    """Change fields of the Job's spec (JSON merge patch)."""

    name: str
    spec: Manifest


@dataclass(frozen=True)
class DeleteJob:
    """Delete the Job of this UID and its pods."""

    name: str
    uid: str


@dataclass(frozen=True)
class DeletePods:
    """Delete pods that have finished, or cannot."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Requeue:
    """Reconcile again with backoff: something outside the operator has to happen first."""


Action = CreateJob | PatchJob | DeleteJob | DeletePods | Requeue


def plan(run_uid: str, desired: DesiredState, observed: ObservedState, status: RunStatus) -> tuple[Action, ...]:
    """Decide the actions of a reconcile, in the order in which they are performed; empty when nothing has to change.

    Args:
        run_uid: UID of the resource.
        desired: what should exist.
        observed: what exists.
        status: what is recorded of this run.
    """
    # A finished run is only cleaned up; its Jobs are never created again.
    if is_finished(status):
        return _clean_up(desired.policy, observed, status)
    return (*_step(run_uid, desired, observed, status), *_clean_up_past(desired.policy, observed, status))


def _step(run_uid: str, desired: DesiredState, observed: ObservedState, status: RunStatus) -> tuple[Action, ...]:
    """Decide the actions for the step at work."""
    job = observed.job
    # Without a Job, one is created unless the run is blocked.
    if job is None:
        return (CreateJob(desired.make()),) if isinstance(desired, DesiredJob) else ()

    # A Job that is being deleted, or soon will be with an earlier resource, occupies the name until it is gone.
    is_own = job.is_controlled_by(run_uid)
    if job.deleting or (job.run_key and not is_own):
        return (Requeue(),)
    # One that belongs to nobody stays: the attempt to create the run's own is refused, which is told.
    if not is_own:
        return (CreateJob(desired.make()),) if isinstance(desired, DesiredJob) else ()

    # Without a policy the spec is not valid.
    if desired.policy is None:
        return ()
    # A finished Job stays as it is until its result has been recorded, if it is one of this spec.
    if job.finished_condition:
        return _replace(job) if _is_of_another_spec(job, desired, status) else ()
    return _steer(job, desired, desired.policy, observed.outlived, status)


def _steer(
    job: JobView, desired: DesiredState, policy: RunPolicy, outlived: PodView | None, status: RunStatus
) -> tuple[Action, ...]:
    """Decide the actions for a Job of this run that is not finished."""
    # A pod that cannot finish is ended for the Job to make another; if its end is the run's, that is recorded first.
    if outlived and not ends_run(outlived):
        return (DeletePods((outlived.name,)),)

    # Until the run has started its spec may change. A Job's template is immutable, so a changed spec needs a new Job.
    if isinstance(desired, DesiredJob) and status.start_time is None and _is_outdated(job, desired):
        return _replace(job)

    # The run policy may change at any time.
    changes = policy_changes(job, policy, seconds_left(policy, status))
    return (PatchJob(job.name, changes),) if changes else ()


def _replace(job: JobView) -> tuple[Action, ...]:
    """Delete the Job; a later reconcile makes another one."""
    return (DeleteJob(job.name, job.uid), Requeue())


def _is_of_another_spec(job: JobView, desired: DesiredState, status: RunStatus) -> bool:
    """Whether a Job ended by itself, before anything was recorded of it, and meanwhile the spec was changed.

    Where something is recorded, the spec is the same, and a digest that differs is that of another release.
    """
    is_recorded = status.start_time is not None or status.job_name is not None
    return isinstance(desired, DesiredJob) and not is_recorded and _is_outdated(job, desired)


def _is_outdated(job: JobView, desired: DesiredJob) -> bool:
    """Whether the Job does something else than is desired.

    A Job of another installation never is: two releases that read a spec differently would replace it in turns.
    """
    return job.config_digest != desired.config_digest and job.is_made_by(desired.installation)


def policy_changes(job: JobView, policy: RunPolicy, deadline: int | None) -> Manifest:
    """Return the fields of the Job's spec that differ from the run policy, with the policy's values.

    Args:
        job: the Job of the step at work.
        policy: the run policy.
        deadline: how long the step may take, seconds; None for no limit.
    """
    changes: Manifest = {}
    # Only Kueue unsuspends a queued Job.
    may_unsuspend = not job.queued
    if job.suspend != policy.suspend and (policy.suspend or may_unsuspend):
        changes["suspend"] = policy.suspend
    if job.backoff_limit != policy.backoff_limit:
        changes["backoffLimit"] = policy.backoff_limit
    if job.active_deadline_seconds != deadline:
        changes["activeDeadlineSeconds"] = deadline
    return changes


def _clean_up(policy: RunPolicy | None, observed: ObservedState, status: RunStatus) -> tuple[Action, ...]:
    """Decide what to remove of a finished run, now that its result is recorded."""
    job = observed.job
    if policy is None:
        return ()
    past = _clean_up_past(policy, observed, status)
    if job is None or job.deleting:
        return past
    # The run has ended, its Job cannot: a container outlives the runner.
    if observed.outlived and not job.finished_condition:
        return (DeleteJob(job.name, job.uid), *past)
    if not job.finished_condition:
        return past
    return (*_expire(PastJob(job, observed.pods), policy, status), *past)


def _clean_up_past(policy: RunPolicy | None, observed: ObservedState, status: RunStatus) -> tuple[Action, ...]:
    """Decide what to remove of earlier steps and runs, whose results are recorded."""
    if policy is None:
        return ()
    actions: list[Action] = []
    for past in observed.past:
        if past.job.deleting:
            continue
        # A run that was replaced while it was suspended, or a container that outlives its step's runner.
        if not past.job.finished_condition:
            actions.append(DeleteJob(past.job.name, past.job.uid))
        else:
            actions += _expire(past, policy, status)
    return tuple(actions)


def _expire(past: PastJob, policy: RunPolicy, status: RunStatus) -> Iterator[Action]:
    """Yield what ends the life of a finished Job and its pods: the TTL controller deletes it once the field is set."""
    if past.job.ttl_seconds_after_finished != policy.ttl_seconds_after_finished:
        yield PatchJob(past.job.name, {"ttlSecondsAfterFinished": policy.ttl_seconds_after_finished})
    if policy.retain_pods == "onFailure" and status.phase is Phase.COMPLETE and past.job.find_true("Complete"):
        finished = tuple(pod.name for pod in past.pods if pod.finished and not pod.deleting)
        if finished:
            yield DeletePods(finished)
