"""Many resources at once, restarts over them, and watches that lose events."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import kopf
import pytest

from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.cluster.credentials import login
from anomaly_operator.resources import EXPERIMENTS, JOBS
from support.fake_kubelet import experiment
from support.kube import Namespace
from support.mortal_operator import MortalClient, operate
from support.process import OperatorProcess

pytestmark = pytest.mark.cluster

MANY = 300


async def post(namespace: Namespace, count: int, **spec: Any) -> None:
    client = ApiClient(lambda: login(kopf.OperatorSettings()))
    bodies = [experiment(f"many-{number:03}", runPolicy={"suspend": True}, **spec) for number in range(count)]
    await asyncio.gather(*(client.create(EXPERIMENTS, namespace.name, body) for body in bodies))
    await client.close()


def suspended(namespace: Namespace) -> int:
    phases = namespace.kubectl("get", "aexp", "-o", "jsonpath={.items[*].status.phase}").split()
    return phases.count("Suspended")


@pytest.mark.own_operator
def test_three_hundred_at_once_and_a_restart_over_them(namespace: Namespace, operator: OperatorProcess) -> None:
    asyncio.run(post(namespace, MANY))
    operator.wait_until(lambda: suspended(namespace) == MANY, f"at {MANY} suspended runs", seconds=120)
    assert len(namespace.list("jobs")) == MANY
    time.sleep(3)
    # Now and then a user's change overtakes a status patch, which is then written a second time.
    assert operator.writes() / MANY == pytest.approx(2.0, abs=0.1)
    operator.stop()
    operator.start()
    operator.wait_until(lambda: operator.leads, "leading")
    time.sleep(5)
    assert operator.writes() == 0, "a restart over a settled cluster writes nothing"


def test_runs_complete_without_any_watch(namespace: Namespace, cluster: str) -> None:
    """The periodic LIST alone is enough: it makes up for any lost event."""
    asyncio.run(_without_watches(namespace))


async def _without_watches(namespace: Namespace) -> None:
    client, cache = MortalClient(), Cache()
    operating = asyncio.create_task(operate(client, namespace.name, cache))
    try:
        await client.create(EXPERIMENTS, namespace.name, experiment("lonely", runPolicy={"suspend": True}))
        await _until(lambda: len(cache.jobs) == 1 and suspended(namespace) == 1)
        first = next(job.uid for job in cache.jobs)
        await client.delete(JOBS, namespace.name, "lonely-experiment")
        await _until(lambda: [job.uid != first for job in cache.jobs] == [True])
        await client.delete(EXPERIMENTS, namespace.name, "lonely")
        await _until(lambda: len(cache.runs) == 0 and len(cache.jobs) == 0)
        assert namespace.list("jobs") == []
    finally:
        operating.cancel()
        await asyncio.gather(operating, return_exceptions=True)


async def _until(reached: Callable[[], bool]) -> None:
    for _ in range(300):
        if reached():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("never came about")
