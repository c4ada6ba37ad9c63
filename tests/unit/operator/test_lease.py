"""The Lease: never two holders at once, whatever requests are lost."""

import asyncio
import copy
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.cluster.leader_election import ADDRESS_ANNOTATION, LeaderElector
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.errors import Conflict, LoginError, NotFound, Unavailable
from anomaly_operator.metrics import REGISTRY
from anomaly_operator.resources import LEASES, Manifest, Resource
from anomaly_operator.settings import Settings
from support.played_loop import PlayedLoop


class FakeLeases(ApiClient):
    """An API server with one Lease and optimistic locking."""

    def __init__(self) -> None:
        self.lease: Manifest | None = None
        self.trouble: Exception | None = None
        self.write_trouble: Exception | None = None
        self.hangs = False
        self.seconds = 0.0
        """How long an answer takes."""
        self.asked: list[tuple[float, str, str]] = []
        """When it was asked, for what."""

    def fail(self, trouble: Exception) -> None:
        """Answer with an error from now on."""
        self.trouble = trouble

    def recover(self) -> None:
        """Answer as usual from now on."""
        self.trouble, self.write_trouble, self.hangs = None, None, False

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        assert resource == LEASES
        self.asked.append((asyncio.get_running_loop().time(), namespace, name))
        await asyncio.sleep(3600 if self.hangs else self.seconds)
        if self.trouble:
            raise self.trouble
        if self.lease is None:
            raise NotFound(404, "no lease")
        return copy.deepcopy(self.lease)

    async def create(self, resource: Resource, namespace: str | None, body: Manifest) -> Manifest:
        assert (resource, namespace) == (LEASES, "anomaly-system")
        if self.lease is not None:
            raise Conflict(409, "exists")
        return self._store(body, 1)

    async def replace(self, resource: Resource, namespace: str, name: str, body: Manifest) -> Manifest:
        if self.write_trouble:
            raise self.write_trouble
        assert self.lease
        assert (resource, namespace, name) == (LEASES, "anomaly-system", "anomaly-operator")
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


# In played time: a Lease of 15 seconds, 10 until a leader that cannot renew gives up, 2 between attempts


@pytest.fixture
def loop() -> Iterator[PlayedLoop]:
    made = PlayedLoop()
    yield made
    made.close()


def lead(loop: PlayedLoop, server: FakeLeases, identity: str = "first") -> LeaderElector:
    elector = make_elector(server, loop.time, identity)
    loop.run_until_complete(elector.acquire())
    return elector


def seconds_until_lost(loop: PlayedLoop, elector: LeaderElector) -> float:
    began = loop.time()
    loop.run_until_complete(asyncio.wait_for(elector.renew(), 600))
    assert not elector.is_leader
    return loop.time() - began


@pytest.mark.parametrize("trouble", [Unavailable(503, "down"), LoginError("no token"), TimeoutError()])
def test_a_leader_that_cannot_renew_gives_up_before_another_may_lead(
    loop: PlayedLoop, server: FakeLeases, trouble: Exception
) -> None:
    elector = lead(loop, server)
    server.trouble = trouble
    assert seconds_until_lost(loop, elector) == pytest.approx(10.0)


def test_a_renewal_that_hangs_leaves_time_for_another(loop: PlayedLoop, server: FakeLeases) -> None:
    elector = lead(loop, server)
    server.hangs = True
    loop.call_later(6.0, server.recover)
    loop.call_later(60.0, server.fail, Unavailable(503, "down"))
    # The one that began at 2 s is given up after 5 s; the next one, at 9 s, is within the deadline.
    assert 60.0 < seconds_until_lost(loop, elector) < 70.0


def test_a_server_that_hangs_for_good_loses_the_lease_in_time(loop: PlayedLoop, server: FakeLeases) -> None:
    elector = lead(loop, server)
    server.hangs = True
    assert seconds_until_lost(loop, elector) == pytest.approx(10.0)


def test_every_renewal_begins_the_time_anew(loop: PlayedLoop, server: FakeLeases) -> None:
    elector = lead(loop, server)
    loop.call_later(31.0, server.fail, Unavailable(503, "down"))
    assert seconds_until_lost(loop, elector) == pytest.approx(40.0)


def test_a_lease_that_another_took_is_lost_at_once(loop: PlayedLoop, server: FakeLeases) -> None:
    elector = lead(loop, server)
    assert server.lease
    server.lease["spec"]["holderIdentity"] = "second"
    server.lease["metadata"]["resourceVersion"] = "77"
    assert seconds_until_lost(loop, elector) == pytest.approx(2.0)
    assert server.lease["spec"]["holderIdentity"] == "second", "it is not taken back"


def test_a_conflict_alone_does_not_lose_the_lease(loop: PlayedLoop, server: FakeLeases) -> None:
    elector = lead(loop, server)
    server.fail(Conflict(409, "somebody labelled it"))
    loop.call_later(5.0, server.recover)
    loop.call_later(60.0, server.fail, Unavailable(503, "down"))
    assert seconds_until_lost(loop, elector) > 60.0


def test_a_follower_waits_until_the_lease_is_free(loop: PlayedLoop, server: FakeLeases) -> None:
    lead(loop, server)
    began = loop.time()
    second = lead(loop, server, "second")
    assert 15.0 < loop.time() - began <= 18.0
    assert second.is_leader


def test_a_follower_stands_for_election_whatever_fails(loop: PlayedLoop, server: FakeLeases) -> None:
    server.fail(LoginError("no token"))
    loop.call_later(7.0, server.recover)
    lead(loop, server)
    assert 7.0 < loop.time() <= 10.0


@pytest.mark.parametrize("trouble", [Unavailable(503, "down"), LoginError("no token")])
def test_a_lease_that_cannot_be_released_expires(loop: PlayedLoop, server: FakeLeases, trouble: Exception) -> None:
    elector = lead(loop, server)
    server.fail(trouble)
    with capture_logs() as logs:
        loop.run_until_complete(elector.release())
    assert [(entry["event"], entry["message"]) for entry in logs] == [("lease not released", str(trouble))]


def test_a_lease_of_another_is_not_released(loop: PlayedLoop, server: FakeLeases) -> None:
    elector = lead(loop, server)
    assert server.lease
    server.lease["spec"]["holderIdentity"] = "second"
    loop.run_until_complete(elector.release())
    assert server.lease["spec"]["holderIdentity"] == "second"
    never = make_elector(server, loop.time, "second")
    loop.run_until_complete(never.release())
    assert server.lease["spec"]["holderIdentity"] == "second"


def test_what_the_lease_says_of_its_holder(loop: PlayedLoop, server: FakeLeases) -> None:
    elector = lead(loop, server)
    assert server.lease
    spec = dict(server.lease["spec"])
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("first", 15, 1)
    assert spec["acquireTime"] == spec["renewTime"]
    loop.run_until_complete(elector._try_acquire_or_renew(1))
    renewed = server.lease["spec"]
    assert (renewed["acquireTime"], renewed["leaseTransitions"]) == (spec["acquireTime"], 1)
    assert renewed["renewTime"] > spec["renewTime"]
    loop.run_until_complete(elector.release())
    assert (server.lease["spec"]["holderIdentity"], server.lease["spec"]["leaseDurationSeconds"]) == ("", 1)


def test_an_attempt_that_hangs_is_given_up_after_half_the_deadline(loop: PlayedLoop, server: FakeLeases) -> None:
    server.hangs = True
    loop.call_later(20.0, server.recover)
    lead(loop, server)
    # Five seconds for each attempt, and two until the next one.
    assert [when for when, _, _ in server.asked] == pytest.approx([0.0, 7.0, 14.0, 21.0])
    assert {(namespace, name) for _, namespace, name in server.asked} == {("anomaly-system", "anomaly-operator")}


def test_a_slow_failure_does_not_outlast_the_deadline(loop: PlayedLoop, server: FakeLeases) -> None:
    elector = lead(loop, server)
    server.fail(Unavailable(503, "down"))
    server.seconds = 0.6
    # Attempts begin at 2.0, 4.6, 7.2 and 9.8.
    assert seconds_until_lost(loop, elector) == pytest.approx(10.0)


def test_a_lease_expires_after_its_duration_and_not_with_it(server: FakeLeases, loop: PlayedLoop) -> None:
    clock = ManualClock()
    first, second = make_elector(server, clock, "first"), make_elector(server, clock, "second")
    attempt = loop.run_until_complete
    assert attempt(first._try_acquire_or_renew(1))
    assert not attempt(second._try_acquire_or_renew(1))
    clock.now = 15.0
    assert not attempt(second._try_acquire_or_renew(1))
    clock.now = 15.1
    assert attempt(second._try_acquire_or_renew(1))
    assert server.lease
    spec = server.lease["spec"]
    assert spec["acquireTime"] == spec["renewTime"], "it is the second's own"


def test_a_lease_that_somebody_made_by_hand_is_free_and_keeps_what_it_has(loop: PlayedLoop, server: FakeLeases) -> None:
    metadata = {"name": "anomaly-operator", "resourceVersion": "5"}
    server.lease = {"metadata": metadata | {"annotations": {"note": "by hand"}}, "spec": {"strategy": "x"}}
    elector = lead(loop, server)
    held = server.lease
    assert held["metadata"]["annotations"] == {"note": "by hand", ADDRESS_ANNOTATION: "http://first.ip:8080"}
    assert (held["apiVersion"], held["kind"]) == ("coordination.k8s.io/v1", "Lease")
    assert (held["spec"]["strategy"], held["spec"]["leaseTransitions"]) == ("x", 1)
    assert elector.leader_address is None, "it said nothing of one"
    server.lease = {"metadata": metadata, "spec": {}}
    second = make_elector(server, loop.time, "second")
    assert loop.run_until_complete(second._try_acquire_or_renew(1))


@pytest.mark.parametrize(("said", "seconds"), [({}, 15.0), ({"leaseDurationSeconds": 5}, 5.0)])
def test_a_lease_lasts_as_long_as_it_says_or_as_ones_own(
    loop: PlayedLoop, server: FakeLeases, said: dict[str, int], seconds: float
) -> None:
    metadata = {"name": "anomaly-operator", "resourceVersion": "5"}
    server.lease = {"metadata": metadata, "spec": {"holderIdentity": "somebody"} | said}
    lead(loop, server)
    assert seconds < loop.time() <= seconds + 3.0


def test_a_lease_that_somebody_emptied_is_not_lost(loop: PlayedLoop, server: FakeLeases) -> None:
    elector = lead(loop, server)
    assert server.lease
    server.lease["spec"]["holderIdentity"] = ""
    server.lease["metadata"]["resourceVersion"] = "77"
    server.write_trouble = Conflict(409, "somebody labelled it")
    loop.call_later(5.0, server.recover)
    loop.call_later(60.0, server.fail, Unavailable(503, "down"))
    assert seconds_until_lost(loop, elector) > 60.0


def test_what_a_released_lease_says_of_itself_stays(loop: PlayedLoop, server: FakeLeases) -> None:
    elector = lead(loop, server)
    assert server.lease
    before = dict(server.lease["spec"])
    loop.run_until_complete(elector.release())
    assert server.lease["spec"] == before | {"holderIdentity": "", "leaseDurationSeconds": 1}
    assert {(namespace, name) for _, namespace, name in server.asked} == {("anomaly-system", "anomaly-operator")}


def test_a_renewal_says_since_when_if_nobody_did(loop: PlayedLoop, server: FakeLeases) -> None:
    elector = lead(loop, server)
    assert server.lease
    del server.lease["spec"]["acquireTime"]
    assert loop.run_until_complete(elector._try_acquire_or_renew(1))
    assert server.lease["spec"]["acquireTime"] == server.lease["spec"]["renewTime"]


@pytest.mark.usefixtures("far_from_greenwich")
def test_a_new_lease_has_its_name_and_whole_seconds(loop: PlayedLoop, server: FakeLeases) -> None:
    elector = make_elector(server, loop.time, "first", lease_seconds=0.3)
    loop.run_until_complete(elector.acquire())
    assert server.lease
    assert server.lease["metadata"]["name"] == "anomaly-operator"
    assert server.lease["spec"]["leaseDurationSeconds"] == 1
    when = server.lease["spec"]["renewTime"]
    assert when.endswith("Z")
    age = datetime.now(UTC) - datetime.fromisoformat(when)
    assert abs(age.total_seconds()) < 60


def test_who_leads_is_a_metric_and_in_the_log(loop: PlayedLoop, server: FakeLeases) -> None:
    assert make_elector(server, loop.time, "third").leader_address is None
    with capture_logs() as logs:
        elector = lead(loop, server)
        assert REGISTRY.get_sample_value("anomaly_operator_leader") == 1.0
        assert server.lease
        server.lease["spec"]["holderIdentity"] = "second"
        server.lease["metadata"]["resourceVersion"] = "77"
        seconds_until_lost(loop, elector)
    assert REGISTRY.get_sample_value("anomaly_operator_leader") == 0.0
    began, lost = logs
    assert (began["event"], began["identity"]) == ("leading", "first")
    assert (lost["event"], lost["holder"]) == ("lease lost", "second")


@pytest.mark.parametrize(
    ("trouble", "told"), [(Unavailable(503, "down"), "503: down"), (TimeoutError(), "TimeoutError")]
)
def test_why_a_lease_is_not_renewed_is_logged(
    loop: PlayedLoop, server: FakeLeases, trouble: Exception, told: str
) -> None:
    elector = lead(loop, server)
    server.fail(trouble)
    with capture_logs() as logs:
        assert not loop.run_until_complete(elector._try_acquire_or_renew(1))
    assert [(entry["event"], entry["message"]) for entry in logs] == [("lease not renewed", told)]
