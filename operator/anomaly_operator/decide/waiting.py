"""Why a run waits although nothing is wrong with its Job or its pod: which object's Events tell, and which of them.

A Job whose pods the API server refuses says so in its Events alone, and so does a pod whose volumes cannot be mounted.
Events are many, so they are not watched: those of one object are read, and only for a run that has waited for a while.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from anomaly_operator.decide.observed import ObservedState
from anomaly_operator.decide.times import from_timestamp
from anomaly_operator.views import EventView, JobView, PodView

FIRST_LOOK_SECONDS = 4.0
"""Age of a wait at which its Events are read for the first time: a pod is usually made, and started, sooner."""
LONGEST_PAUSE = 120.0
"""Longest pause between two looks, seconds; until then each look waits as long again as the run has waited so far."""
REFUSED_POD = frozenset({"FailedCreate"})
"""Reasons of the Job controller's Events about pods that it cannot create."""
MISSING_VOLUME = frozenset({"FailedMount", "FailedAttachVolume"})
"""The kubelet's and the volume controller's reasons for a pod whose volumes are not there."""
_NOT_STARTED = frozenset({"", "ContainerCreating", "PodInitializing"})
"""The kubelet's reasons for a container that is about to start; they do not say what it waits for."""


@dataclass(frozen=True)
class UnexplainedWait:
    """An object that a run waits for, whose Events may tell what it waits for itself."""

    uid: str
    """UID of the Job or the pod."""
    reasons: frozenset[str]
    """Reasons of the Events that tell."""
    since: str
    """When the wait began (RFC 3339); older Events are about something else."""


def unexplained_wait(observed: ObservedState) -> UnexplainedWait | None:
    """Return what an unfinished run waits for, if neither its Job nor its pods tell why."""
    job = observed.job
    if job is None or job.deleting or job.suspend or job.finished_condition:
        return None
    pod = observed.active_pod
    return _wait_for_volumes(pod) if pod else _wait_for_pod(job, observed.pods)


def _wait_for_pod(job: JobView, pods: Iterable[PodView]) -> UnexplainedWait:
    since = max([job.start_time or job.creation_time, *(_end_of(pod) for pod in pods)])
    return UnexplainedWait(job.uid, REFUSED_POD, since)


def _end_of(pod: PodView) -> str:
    return (pod.termination and pod.termination.finished_at) or pod.creation_time


def _wait_for_volumes(pod: PodView) -> UnexplainedWait | None:
    scheduled = pod.find_condition("PodScheduled")
    if scheduled is None or pod.running or pod.termination or pod.waiting_reason not in _NOT_STARTED:
        return None
    return UnexplainedWait(pod.uid, MISSING_VOLUME, pod.creation_time)


def seconds_until_look(wait: UnexplainedWait, now: datetime) -> float:
    """Return the seconds after which the Events are worth a look; 0 for now."""
    return max(0.0, FIRST_LOOK_SECONDS - _age(wait, now))


def seconds_until_next_look(wait: UnexplainedWait, now: datetime) -> float:
    """Return the seconds after which they are worth another one: a wait that lasts is looked at less and less."""
    return min(max(_age(wait, now), FIRST_LOOK_SECONDS), LONGEST_PAUSE)


def _age(wait: UnexplainedWait, now: datetime) -> float:
    return (now - from_timestamp(wait.since)).total_seconds()


def newest_explanation(wait: UnexplainedWait, events: Iterable[EventView]) -> EventView | None:
    """Return the newest Event that tells why the run waits."""
    telling = [event for event in events if event.reason in wait.reasons and event.last_seen >= wait.since]
    return max(telling, key=lambda event: event.last_seen, default=None)
