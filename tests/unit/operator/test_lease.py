"""The Lease: never two holders at once, whatever requests are lost."""

import asyncio
import copy
from collections.abc import Callable

import pytest

from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.cluster.leader_election import ADDRESS_ANNOTATION, LeaderElector
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.errors import Conflict, NotFound, Unavailable
from anomaly_operator.resources import Manifest, Resource
from anomaly_operator.settings import Settings


class FakeLeases(ApiClient):
    """An API server with one Lease and optimistic locking."""

    def __init__(self) -> None:
        self.lease: Manifest | None = None
        self.down = False

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        if self.down:
            raise Unavailable(503, "down")
        if self.lease is None:
            raise NotFound(404, "no lease")
        return copy.deepcopy(self.lease)

    async def create(self, resource: Resource, namespace: str | None, body: Manifest) -> Manifest:
        if self.lease is not None:
            raise Conflict(409, "exists")
        return self._store(body, 1)

    async def replace(self, resource: Resource, namespace: str, name: str, body: Manifest) -> Manifest:
        assert self.lease
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict(409, "changed")
        return self._store(body, int(body["metadata"]["resourceVersion"]) + 1)

    def _store(self, body: Manifest, version: int) -> Manifest:
        self.lease = copy.deepcopy(body) | {"metadata": body["metadata"] | {"resourceVersion": str(version)}}
        return copy.deepcopy(self.lease)


class ManualClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> FakeLeases:
    return FakeLeases()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def make_elector(
    server: FakeLeases, clock: Callable[[], float], identity: str, lease_seconds: float = 15.0
) -> LeaderElector:
    pods = PodSettings(runner_image="r", inference_image="i")
    settings = Settings(pods=pods, identity=identity, address=f"{identity}.ip", lease_seconds=lease_seconds)
    return LeaderElector(server, settings, clock)


async def test_a_follower_takes_over_after_a_whole_duration_without_renewal(
    server: FakeLeases, clock: ManualClock
) -> None:
    first, second = make_elector(server, clock, "first"), make_elector(server, clock, "second")
    assert await first._try_acquire_or_renew(1)
    assert not await second._try_acquire_or_renew(1)
    assert second.leader_address == "http://first.ip:8080"
    clock.now = 14.0
    assert not await second._try_acquire_or_renew(1)
    assert await first._try_acquire_or_renew(1)
    clock.now = 28.0
    assert not await second._try_acquire_or_renew(1), "it was renewed in between"
    clock.now = 44.0
    assert await second._try_acquire_or_renew(1)
    assert not await first._try_acquire_or_renew(1)
    assert server.lease
    assert server.lease["spec"]["leaseTransitions"] == 2
    assert server.lease["metadata"]["annotations"][ADDRESS_ANNOTATION] == "http://second.ip:8080"


async def test_only_one_of_two_candidates_gets_a_free_lease(server: FakeLeases, clock: ManualClock) -> None:
    pair = [make_elector(server, clock, name) for name in ("first", "second")]
    assert sorted([await found._try_acquire_or_renew(1) for found in pair]) == [False, True]


async def test_a_released_lease_is_free_at_once(server: FakeLeases, clock: ManualClock) -> None:
    first, second = make_elector(server, clock, "first"), make_elector(server, clock, "second")
    await first.acquire()
    await first.release()
    assert not first.is_leader
    assert await second._try_acquire_or_renew(1)


async def test_a_leader_that_cannot_renew_gives_up_before_another_may_lead(server: FakeLeases) -> None:
    loop = asyncio.get_running_loop()
    elector = make_elector(server, loop.time, "first", lease_seconds=3)
    await elector.acquire()
    server.down = True
    began = loop.time()
    await elector.renew()
    assert 1 < loop.time() - began < 3
    assert not elector.is_leader
