"""Which Events tell why a run waits, and how often they are read."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from anomaly_operator.decide.observed import ObservedState
from anomaly_operator.decide.waiting import (
    FIRST_LOOK_SECONDS,
    LONGEST_PAUSE,
    UnexplainedWait,
    newest_explanation,
    seconds_until_look,
    seconds_until_next_look,
    unexplained_wait,
)
from anomaly_operator.views import EventView, PodView, event_view, job_view
from support import objects

STARTED = "2026-01-02T03:04:05Z"
SCHEDULED = [{"type": "PodScheduled", "status": "True"}]


def at(seconds: float) -> datetime:
    return datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC) + timedelta(seconds=seconds)


def pending_pod(waiting: str = "ContainerCreating", **status: Any) -> PodView:
    return objects.make_pod(state={"waiting": {"reason": waiting}}, **{"conditions": SCHEDULED} | status)


def observed(*pods: PodView, spec: Any = None, **status: Any) -> ObservedState:
    job = job_view(objects.raw_job(spec=spec, startTime=STARTED, **status))
    return ObservedState(job=job, pods=pods)


@pytest.mark.parametrize(
    ("state", "uid"),
    [
        (ObservedState(), None),
        (observed(), objects.JOB_UID),
        (observed(spec={"suspend": True}), None),
        (observed(conditions=[{"type": "Complete", "status": "True"}]), None),
        (observed(pending_pod()), "pod-1"),
        (observed(pending_pod(conditions=[{"type": "PodScheduled", "status": "False"}])), None),
        (observed(pending_pod("ImagePullBackOff")), None),
        (observed(objects.make_pod(state={"running": {}}, phase="Running", conditions=SCHEDULED)), None),
        (observed(objects.make_pod(state=objects.terminated(20), phase="Failed")), objects.JOB_UID),
    ],
    ids=[
        "no Job",
        "Job without pods",
        "suspended",
        "finished",
        "volumes",
        "the scheduler says why",
        "the kubelet says why",
        "running",
        "between two pods",
    ],
)
def test_whose_events_are_read(state: ObservedState, uid: str | None) -> None:
    wait = unexplained_wait(state)
    assert (wait.uid if wait else None) == uid


@pytest.mark.parametrize(
    ("pods", "since"),
    [
        ((), "2026-01-02T03:04:20Z"),
        ((objects.make_pod(10, phase="Failed"),), "2026-01-02T03:04:20Z"),
        ((objects.make_pod(30, phase="Failed"), objects.make_pod(10, phase="Failed")), "2026-01-02T03:04:30Z"),
        ((objects.make_pod(state=objects.terminated(20), phase="Failed"),), "2026-01-02T03:09:59Z"),
    ],
    ids=["the Job's start", "a pod before it", "a pod of which nothing is known but that it was made", "its end"],
)
def test_a_wait_for_a_pod_begins_with_what_happened_last(pods: tuple[PodView, ...], since: str) -> None:
    job = job_view(objects.raw_job(startTime="2026-01-02T03:04:20Z"))
    wait = unexplained_wait(ObservedState(job=job, pods=pods))
    assert wait == UnexplainedWait(objects.JOB_UID, frozenset({"FailedCreate"}), since)


def test_a_job_that_has_not_begun_waits_since_it_was_made() -> None:
    wait = unexplained_wait(ObservedState(job=job_view(objects.raw_job())))
    assert wait is not None
    assert wait.since == objects.CREATED


@pytest.mark.parametrize("reason", ["", "ContainerCreating", "PodInitializing"])
def test_a_wait_for_volumes_begins_with_the_pod(reason: str) -> None:
    wait = unexplained_wait(observed(pending_pod(reason)))
    expected = frozenset({"FailedMount", "FailedAttachVolume"})
    assert wait == UnexplainedWait("pod-1", expected, "2026-01-02T03:04:01Z")


def test_nothing_is_waited_for_by_a_job_that_goes_or_a_container_that_ended() -> None:
    state = observed()
    assert state.job is not None
    assert unexplained_wait(ObservedState(job=replace(state.job, deleting=True))) is None
    ended = objects.make_pod(state=objects.terminated(0), phase="Running", conditions=SCHEDULED)
    assert unexplained_wait(observed(ended)) is None
    assert unexplained_wait(observed(objects.make_pod(phase="Pending"))) is None, "not scheduled yet"


def event(reason: str, seconds: float, message: str = "") -> EventView:
    return EventView(reason=reason, message=message, last_seen=at(seconds).strftime("%Y-%m-%dT%H:%M:%SZ"))


def test_the_newest_event_about_this_wait_tells() -> None:
    wait = unexplained_wait(observed())
    assert wait is not None
    events = [event("FailedCreate", 5, "old"), event("FailedCreate", 9, "new"), event("SuccessfulDelete", 11)]
    found = newest_explanation(wait, events)
    assert found is not None
    assert found.message == "new"
    assert newest_explanation(wait, [event("FailedCreate", -1)]) is None, "of an earlier wait"
    assert newest_explanation(wait, [event("FailedCreate", 0)]) == event("FailedCreate", 0)


def test_looks_become_rarer() -> None:
    wait = unexplained_wait(observed())
    assert wait is not None
    assert seconds_until_look(wait, at(1)) == FIRST_LOOK_SECONDS - 1
    assert seconds_until_look(wait, at(FIRST_LOOK_SECONDS)) == 0
    assert seconds_until_look(wait, at(60)) == 0
    assert seconds_until_next_look(wait, at(1)) == FIRST_LOOK_SECONDS
    assert seconds_until_next_look(wait, at(30)) == 30
    assert seconds_until_next_look(wait, at(86_400)) == LONGEST_PAUSE


@pytest.mark.parametrize(
    "time",
    [
        {"lastTimestamp": "2026-01-02T03:04:05Z"},
        {"lastTimestamp": None, "eventTime": "2026-01-02T03:04:05.123456Z"},
        {"series": {"lastObservedTime": "2026-01-02T03:04:05.9Z"}, "eventTime": "2026-01-01T00:00:00Z"},
        {"metadata": {"creationTimestamp": "2026-01-02T03:04:05Z"}},
    ],
)
def test_the_time_of_an_event(time: dict[str, Any]) -> None:
    assert event_view({"reason": "FailedCreate", "message": "m"} | time).last_seen == STARTED
