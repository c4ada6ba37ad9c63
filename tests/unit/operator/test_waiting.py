"""Which Events tell why a run waits, and how often they are read."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from anomaly_operator.decide.observed import ObservedState
from anomaly_operator.decide.waiting import (
    FIRST_LOOK_SECONDS,
    LONGEST_PAUSE,
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


def event(reason: str, seconds: float, message: str = "") -> EventView:
    return EventView(reason=reason, message=message, last_seen=at(seconds).strftime("%Y-%m-%dT%H:%M:%SZ"))


def test_the_newest_event_about_this_wait_tells() -> None:
    wait = unexplained_wait(observed())
    assert wait is not None
    events = [event("FailedCreate", 5, "old"), event("FailedCreate", 9, "new"), event("SuccessfulDelete", 11)]
    found = newest_explanation(wait, events)
    assert found is not None
    assert found.message == "new"
    assert newest_explanation(wait, [event("FailedCreate", -60)]) is None, "of an earlier wait"


def test_looks_become_rarer() -> None:
    wait = unexplained_wait(observed())
    assert wait is not None
    assert seconds_until_look(wait, at(1)) == FIRST_LOOK_SECONDS - 1
    assert seconds_until_look(wait, at(FIRST_LOOK_SECONDS)) == 0
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
