"""What to do so that the cluster becomes as desired. Pure: each action says all that apply needs."""

from dataclasses import dataclass
from typing import Any

from anomaly_api.scheduling import RunPolicy
from anomaly_api.status import Phase, RunStatus
from anomaly_operator import names
from anomaly_operator.decide.desired import Desired, Wanted
from anomaly_operator.decide.observed import Observed
from anomaly_operator.decide.pod import Manifest
from anomaly_operator.keys import RunKey
from anomaly_operator.views import JobView


@dataclass(frozen=True)
class CreateJob:
    """Create the Job; one that is there already is adopted if it is this run's."""

    manifest: Manifest


@dataclass(frozen=True)
class PatchJob:
    """Change fields of the Job's spec."""

    name: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class DeleteJob:
    """Delete the Job and its pods."""

    name: str
    uid: str


@dataclass(frozen=True)
class DeletePods:
    """Delete finished pods."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Wait:
    """Look again later, less and less often: something that is not ours to do must happen first."""


Action = CreateJob | PatchJob | DeleteJob | DeletePods | Wait


def plan(key: RunKey, uid: str, wanted: Desired, observed: Observed, recorded: RunStatus) -> tuple[Action, ...]:
    """Actions in the order they are taken; none when all is as it should be."""
    job = observed.job
    if recorded.phase in (Phase.COMPLETE, Phase.FAILED):
        return _after_the_end(wanted.policy, observed, recorded)
    if job is None:
        return (CreateJob(wanted.job()),) if isinstance(wanted, Wanted) else ()
    if job.deleting or job.owner is None or job.owner.uid != uid:
        return (Wait(),)
    if job.finished or wanted.policy is None:
        return ()
    if isinstance(wanted, Wanted) and recorded.start_time is None and job.config_digest != wanted.digest:
        return (DeleteJob(job.name, job.uid), Wait())
    changes = policy_changes(job, wanted.policy)
    return (PatchJob(names.job(key), changes),) if changes else ()


def policy_changes(job: JobView, policy: RunPolicy) -> dict[str, Any]:
    """Fields of the Job's spec that differ from the run policy.

    A queued Job is unsuspended by Kueue alone.
    """
    changes: dict[str, Any] = {}
    if job.suspend != policy.suspend and (policy.suspend or not job.queued):
        changes["suspend"] = policy.suspend
    if job.backoff_limit != policy.backoff_limit:
        changes["backoffLimit"] = policy.backoff_limit
    if job.active_deadline != policy.active_deadline_seconds:
        changes["activeDeadlineSeconds"] = policy.active_deadline_seconds
    return changes


def _after_the_end(policy: RunPolicy | None, observed: Observed, recorded: RunStatus) -> tuple[Action, ...]:
    """Clean up what a finished run left; its Job is never made again."""
    job = observed.job
    if job is None or job.deleting or policy is None or not job.finished:
        return ()
    actions: list[Action] = []
    if job.ttl != policy.ttl_seconds_after_finished:
        actions.append(PatchJob(job.name, {"ttlSecondsAfterFinished": policy.ttl_seconds_after_finished}))
    if policy.retain_pods == "onFailure" and recorded.phase is Phase.COMPLETE:
        finished = tuple(pod.name for pod in observed.pods if pod.finished and not pod.deleting)
        actions += [DeletePods(finished)] if finished else []
    return tuple(actions)
