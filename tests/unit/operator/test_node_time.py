"""How long pods of a trial were on nodes: each second once, and none of a wait."""

from datetime import UTC, datetime, timedelta

import pytest

from anomaly_api.status import NodeTime
from anomaly_operator.decide.node_time import node_time, whole_node_time
from anomaly_operator.resources import Manifest
from anomaly_operator.views import PodView
from support.objects import make_job, make_pod

BEGIN = datetime(2026, 1, 2, 4, 0, 0, tzinfo=UTC)


def at(seconds: int) -> str:
    return (BEGIN + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(seconds: int) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def pod(number: int, start: int | None, end: int | None = None, phase: str = "Running") -> PodView:
    """Return a pod that was bound to a node, and whose container ended, at these seconds."""
    bound = {"type": "PodScheduled", "status": "True" if start is not None else "False"}
    when = {} if start is None else {"lastTransitionTime": at(start)}
    terminated = {"exitCode": 1, "reason": "Error", "message": "", "finishedAt": at(end or 0)}
    state: Manifest | None = None if end is None else {"terminated": terminated}
    return make_pod(number, state, phase=phase, conditions=[bound | when])


WAITING = pod(1, None, phase="Pending")
FAILED = pod(1, 10, 70, "Failed")


@pytest.mark.parametrize(
    ("old", "pods", "now", "expected"),
    [
        (None, [], 100, None),
        (None, [WAITING], 100, None),
        (None, [pod(1, 10)], 100, NodeTime(since=at(10))),
        # A retry waits for a node, then has one: the first pod's minute is counted once.
        (NodeTime(since=at(10)), [FAILED], 80, NodeTime(seconds=60, until=at(70))),
        (NodeTime(seconds=60, until=at(70)), [FAILED], 200, NodeTime(seconds=60, until=at(70))),
        (
            NodeTime(seconds=60, until=at(70)),
            [FAILED, pod(2, 300)],
            310,
            NodeTime(seconds=60, since=at(300), until=at(70)),
        ),
        # Suspended or preempted: its pod is gone, and was there until now.
        (NodeTime(since=at(10)), [], 40, NodeTime(seconds=30, until=at(40))),
        (NodeTime(seconds=30, until=at(40)), [], 4000, NodeTime(seconds=30, until=at(40))),
        (
            NodeTime(seconds=30, until=at(40)),
            [pod(2, 4000)],
            4010,
            NodeTime(seconds=30, since=at(4000), until=at(40)),
        ),
        # A pod that nobody has seen until it had failed.
        (None, [FAILED, pod(2, 75)], 80, NodeTime(seconds=60, since=at(75), until=at(70))),
        # The end of the run is told next.
        (NodeTime(since=at(10)), [pod(1, 10, 70, "Succeeded")], 71, NodeTime(since=at(10))),
        # A pod that ended in the second in which it began, and in which the next one did.
        (None, [pod(1, 10, 10, "Failed"), pod(2, 10)], 20, NodeTime(since=at(10), until=at(10))),
        # One begins in the second in which the other ended.
        (None, [FAILED, pod(2, 70, 100, "Failed")], 110, NodeTime(seconds=90, until=at(100))),
        # The kubelet never told of the end of its container.
        (None, [pod(1, 10, phase="Failed")], 100, NodeTime(seconds=90, until=at(100))),
        # A container outlives the runner: the pod keeps its GPU.
        (NodeTime(since=at(10)), [pod(1, 10, 70)], 90, NodeTime(since=at(10))),
    ],
)
def test_at_work(old: NodeTime | None, pods: list[PodView], now: int, expected: NodeTime | None) -> None:
    found = node_time(old, pods, moment(now))
    assert found == expected
    if found is not None and pods:
        assert node_time(found, pods, moment(now)) == found, "what is counted is counted once"


@pytest.mark.parametrize(
    ("old", "pods", "seconds"),
    [
        (NodeTime(since=at(10)), [pod(1, 10, 70, "Succeeded")], 60),
        (NodeTime(seconds=60, since=at(100), until=at(70)), [FAILED, pod(2, 100, 130, "Succeeded")], 90),
        (NodeTime(since=at(10)), [], 190),  # its pods are gone; the run was over at 200
        (NodeTime(since=at(10)), [pod(1, 10)], 190),
        (None, [pod(1, 10, phase="Failed")], 190),
        (None, [], 150),  # nobody saw a pod: the Job began at 50
        (None, [WAITING], 0),
    ],
)
def test_of_a_run_that_is_over(old: NodeTime | None, pods: list[PodView], seconds: float) -> None:
    job = make_job(startTime=at(50), failed=1)
    found = whole_node_time(old, job, pods, at(200))
    assert (found.seconds, found.since) == (seconds, None)


def test_a_job_that_never_had_a_pod_used_nothing() -> None:
    assert whole_node_time(None, make_job(startTime=at(50)), [], at(200)).seconds == 0.0


@pytest.mark.parametrize(
    ("state", "begun"),
    [
        ({"running": {}}, True),
        ({"terminated": {"exitCode": 0}}, True),
        ({"waiting": {"reason": "ContainerCreating"}}, False),
        (None, False),
    ],
)
def test_a_pod_that_nobody_scheduled_is_on_a_node_since_it_was_made(state: Manifest | None, begun: bool) -> None:
    found = node_time(None, [make_pod(7, state, phase="Running")], moment(100))
    assert found == (NodeTime(since="2026-01-02T03:04:07Z") if begun else None)
