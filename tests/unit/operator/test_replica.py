"""A replica: what a watch tells it, which of it is urgent, and how its parts begin and end."""

import asyncio
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from anomaly_operator.keys import RunKey
from anomaly_operator.replica import Replica
from anomaly_operator.resources import Manifest
from anomaly_operator.work_queue import Priority, WorkQueue
from support.objects import EXPERIMENT, INFERENCE, KEY, UID, raw_job, raw_pod
from support.played_api import PlayedApi, PlayedClient
from support.played_loop import PlayedLoop
from support.played_operator import SETTINGS, PlayedSearch

EXPERIMENTS = "anomalyexperiments"
OTHER = RunKey("AnomalyExperiment", "vision", "other")


class World:
    """An API server, and a replica that has not begun."""

    def __init__(self) -> None:
        self.loop = PlayedLoop()
        self.api = PlayedApi(self.loop.time)
        self.ended: list[float] = []
        self.replica = Replica(
            client=PlayedClient(self.api),
            lease_client=PlayedClient(self.api),
            queue=WorkQueue(),
            worker=PlayedSearch(),
            settings=SETTINGS,
            clock=self.api.moment,
            monotonic=self.loop.time,
            end=lambda: self.ended.append(self.loop.time()),
        )

    def hear(self, plural: str, raw: Manifest, *, deleted: bool = False) -> None:
        async def tell() -> None:
            self.replica.hear(plural, raw, deleted=deleted)

        self.loop.run_until_complete(tell())

    def queued(self) -> list[RunKey]:
        queue = self.replica.queue
        found = [self.loop.run_until_complete(queue.get()) for _ in range(len(queue))]
        for key in found:
            queue.done(key)
        return found

    def add(self, key: RunKey, priority: Priority = Priority.NORMAL) -> None:
        self.loop.call_soon(self.replica.queue.add, key, priority)
        self.loop.run_for(0.0)

    def stop(self) -> None:
        self.loop.run_until_complete(self.replica.stop())


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.api.lease_outage = False
    made.stop()
    made.loop.close()


def resource(manifest: Manifest = EXPERIMENT, version: str = "10", uid: str = UID) -> Manifest:
    return manifest | {"metadata": manifest["metadata"] | {"uid": uid, "resourceVersion": version}}


def test_what_a_user_changes_goes_before_what_waits_already(world: World) -> None:
    world.add(OTHER)
    world.hear(EXPERIMENTS, resource())
    assert world.queued() == [KEY, OTHER]
    world.hear("anomalyinferences", resource(INFERENCE, uid="i"))
    inference = RunKey("AnomalyInference", "vision", "screws-today")
    assert world.queued() == [inference]
    world.add(OTHER)
    world.hear(EXPERIMENTS, resource(), deleted=True)
    assert {*world.queued()} == {KEY, OTHER, inference}
    assert [run.key for run in world.replica.cache.runs] == [inference]


def test_what_becomes_of_jobs_and_pods_waits_its_turn(world: World) -> None:
    cache = world.replica.cache
    for plural, raw, deleted, known in (
        ("jobs", raw_job(), False, (1, 0)),
        ("pods", raw_pod(), False, (1, 1)),
        ("pods", raw_pod(), True, (1, 0)),
        ("jobs", raw_job(), True, (0, 0)),
    ):
        world.add(OTHER)
        world.hear(plural, raw, deleted=deleted)
        assert world.queued() == [OTHER, KEY]
        assert (len(cache.jobs), len(cache.pods)) == known


def test_a_leader_begins_with_a_list_of_its_own_and_its_workers(world: World) -> None:
    world.api.add(EXPERIMENTS, EXPERIMENT)
    world.api.lease_outage = True
    task = world.loop.create_task(world.replica.run())
    world.loop.run_for(1.0)
    world.api.lease_outage = False
    world.loop.run_for(100.0)
    assert (task.done(), world.replica.elector.is_leader) == (True, True)
    names = sorted(task.get_name() for task in world.replica.tasks if not task.done())
    assert names == ["lease", "resync", "worker-0", "worker-1", "worker-2"]
    lists = [path for method, path in world.api.requests if method == "GET" and path.endswith(EXPERIMENTS)]
    assert len(lists) == 2, "as a follower, and as the leader"
    assert world.api.objects["jobs", "screws-experiment-check"]
    world.stop()
    assert all(task.done() for task in world.replica.tasks)
    assert world.api.objects["leases", "anomaly-operator"]["spec"]["holderIdentity"] == ""
    assert world.ended == [], "it was asked to"


def test_a_replica_that_loses_the_lease_ends(world: World) -> None:
    world.loop.create_task(world.replica.run())
    world.loop.run_for(1.0)
    world.api.lease_outage = True
    world.loop.run_for(399.0)
    assert world.ended == []
    world.loop.run_for(82.0)
    assert len(world.ended) == 1
    world.api.lease_outage = False
    world.stop()


def test_a_defect_of_a_part_ends_the_process_and_is_named(world: World) -> None:
    async def fail() -> None:
        raise KeyError("broken")

    async def wait() -> None:
        await world.loop.create_future()

    async def work() -> None:
        world.replica.spawn(fail(), "a part")
        world.replica.spawn(wait(), "another")

    with capture_logs() as logs:
        world.loop.run_until_complete(work())
        world.loop.run_for(0.1)
        world.stop()
    assert len(world.ended) == 1
    [told] = logs
    assert (told["event"], told["log_level"], told["part"]) == ("a part of the operator failed", "critical", "a part")
    assert isinstance(told["exc_info"], KeyError)


def test_what_is_at_work_has_ended_before_the_lease_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    async def work() -> None:
        try:
            await world.loop.create_future()
        finally:
            await asyncio.sleep(1.0)  # a request whose answer is still to come
            done.append("work")

    async def release() -> None:
        done.append("Lease")

    monkeypatch.setattr(world.replica.elector, "release", release)

    async def begin() -> None:
        world.replica.spawn(work(), "work")

    world.loop.run_until_complete(begin())
    world.loop.run_for(0.1)
    world.stop()
    assert done == ["work", "Lease"]


def test_one_that_follows_lists_and_reconciles_nothing(world: World) -> None:
    world.api.add(EXPERIMENTS, EXPERIMENT)
    lease = {"metadata": {"name": "anomaly-operator"}, "spec": {"holderIdentity": "another"}}
    world.api.add("leases", lease)
    task = world.loop.create_task(world.replica.run())
    world.loop.run_for(60.0)
    assert (task.done(), world.replica.elector.is_leader) == (False, False)
    assert (len(world.replica.cache.runs), world.api.writes) == (1, [])
    assert world.replica.controller.idle_since is None, "it has no workers"
    task.cancel()
    world.stop()
