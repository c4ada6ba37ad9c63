"""How long pods of a trial were on nodes, where they may hold GPUs: what waits in a queue or for a node holds none.

Pods come and go, by retries, preemption and suspension, so what is known of those that went is kept in the status. A
pod that goes while it is told of as on a node was there until that is noticed.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from anomaly_api.status import NodeTime
from anomaly_operator.decide.times import from_timestamp, to_timestamp
from anomaly_operator.views import JobView, PodView


class _Stay(NamedTuple):
    """A pod on a node: from when until when (RFC 3339); without an end it is there still."""

    start: str
    end: str | None


def node_time(old: NodeTime | None, pods: Sequence[PodView], now: datetime) -> NodeTime | None:
    """Return the time so far of a run that is not over; None before any pod was on a node.

    Args:
        old: what is recorded.
        pods: those of the Job that does the work, oldest first.
        now: the current time.
    """
    # The end of the run tells of it in a moment: it is no reason for a write of its own.
    if pods and pods[-1].phase == "Succeeded":
        return old
    stays = _stays(pods, to_timestamp(now))
    found = _counted(old or NodeTime(), stays, to_timestamp(now))
    begun = next((stay.start for stay in stays if stay.end is None), None)
    found = found.model_copy(update={"since": begun})
    return found if found != NodeTime() else None


def whole_node_time(old: NodeTime | None, job: JobView, pods: Sequence[PodView], end: str) -> NodeTime:
    """Return the time of a run that is over.

    Args:
        old: what is recorded.
        job: the Job that did the work.
        pods: its pods, oldest first.
        end: when it was over (RFC 3339).
    """
    stays = _stays(pods, end)
    if not pods and old is None and job.start_time and (job.failed or job.succeeded):
        stays = [_Stay(job.start_time, None)]  # nobody saw its pods
    ended = [stay._replace(end=stay.end or end) for stay in stays]
    return _counted(old or NodeTime(), ended, end)


def _stays(pods: Sequence[PodView], now: str) -> list[_Stay]:
    stays = [_Stay(start, _end(pod, now)) for pod in pods if (start := _start(pod))]
    return sorted(stays, key=lambda stay: stay.start)


def _start(pod: PodView) -> str | None:
    """Return since when a pod has been on a node; None while it waits for one."""
    if scheduled := pod.find_condition("PodScheduled"):
        return scheduled.last_transition_time or pod.creation_time
    return pod.creation_time if pod.running or pod.termination else None


def _end(pod: PodView, now: str) -> str | None:
    """Return when a pod ended; None if it has not. The kubelet does not report the end of every container."""
    if not pod.finished:
        return None
    return (pod.termination.finished_at if pod.termination else None) or now


def _counted(old: NodeTime, stays: Sequence[_Stay], now: str) -> NodeTime:
    """Add the stays that have ended since the last one that was counted, and one that nobody knows the end of.

    None goes on, as far as the result says.
    """
    seconds, until = old.seconds, old.until or ""
    if old.since and old.since not in [stay.start for stay in stays]:
        stays = [_Stay(old.since, now), *stays]
    for stay in stays:
        if stay.end is not None and stay.start >= until:
            seconds += max(0.0, (from_timestamp(stay.end) - from_timestamp(stay.start)).total_seconds())
            until = max(until, stay.end)
    return NodeTime(seconds=seconds, until=until or None)
