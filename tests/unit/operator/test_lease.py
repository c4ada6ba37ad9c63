"""The Lease: never two holders, whatever is lost between them."""

import asyncio
import copy
from typing import Any

import pytest

from anomaly_operator.cluster.lease import ADDRESS_ANNOTATION, Lease
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.errors import Conflict, NotFound, Unavailable
from anomaly_operator.settings import Settings


class FakeServer:
    """One Lease with optimistic locking."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.down = False

    async def get(self, *_: Any) -> dict[str, Any]:
        if self.down:
            raise Unavailable(503, "down")
        if self.lease is None:
            raise NotFound(404, "no lease")
        return copy.deepcopy(self.lease)

    async def create(self, _resource: Any, _namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.lease is not None:
            raise Conflict(409, "exists")
        return self._store(body, 1)

    async def replace(self, _resource: Any, _namespace: str, _name: str, body: dict[str, Any]) -> dict[str, Any]:
        assert self.lease
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict(409, "changed")
        return self._store(body, int(body["metadata"]["resourceVersion"]) + 1)

    def _store(self, body: dict[str, Any], version: int) -> dict[str, Any]:
        self.lease = copy.deepcopy(body) | {"metadata": body["metadata"] | {"resourceVersion": str(version)}}
        return copy.deepcopy(self.lease)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lease(server: FakeServer, clock: Clock, identity: str, **settings: Any) -> Lease:
    made = Settings(pods=PodSettings("r", "i"), identity=identity, address=f"{identity}.ip", **settings)
    return Lease(server, made, clock)  # type: ignore[arg-type]


async def test_the_second_waits_until_the_first_is_silent_for_the_whole_duration(
    server: FakeServer, clock: Clock
) -> None:
    first, second = lease(server, clock, "first"), lease(server, clock, "second")
    assert await first._try(1)
    assert not await second._try(1)
    assert second.leader_address == "http://first.ip:8080"
    clock.now = 14.0
    assert not await second._try(1)
    assert await first._try(1)
    clock.now = 28.0
    assert not await second._try(1), "it was renewed in between"
    clock.now = 44.0
    assert await second._try(1)
    assert not await first._try(1)
    assert server.lease
    assert server.lease["spec"]["leaseTransitions"] == 2
    assert server.lease["metadata"]["annotations"][ADDRESS_ANNOTATION] == "http://second.ip:8080"


async def test_of_two_that_see_it_free_one_gets_it(server: FakeServer, clock: Clock) -> None:
    pair = [lease(server, clock, name) for name in ("first", "second")]
    assert sorted([await found._try(1) for found in pair]) == [False, True]


async def test_a_released_lease_is_free_at_once(server: FakeServer, clock: Clock) -> None:
    first, second = lease(server, clock, "first"), lease(server, clock, "second")
    await first.acquire()
    await first.release()
    assert not first.held
    assert await second._try(1)


async def test_a_leader_that_cannot_renew_gives_up_before_another_may_lead(server: FakeServer) -> None:
    loop = asyncio.get_running_loop()
    made = lease(server, loop.time, "first", lease_seconds=3)  # type: ignore[arg-type]
    await made.acquire()
    server.down = True
    began = loop.time()
    await made.hold()
    assert 1 < loop.time() - began < 3
    assert not made.held
