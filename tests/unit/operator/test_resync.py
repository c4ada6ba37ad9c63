"""LISTs that heal what the watches lost, on a played API server."""

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from anomaly_operator import names
from anomaly_operator.cluster.resync import RETRY_SECONDS, Resync
from anomaly_operator.errors import Gone, LoginError
from anomaly_operator.keys import RunKey
from anomaly_operator.resources import Manifest
from anomaly_operator.views import job_view, pod_view, run_view
from support.objects import EXPERIMENT, INFERENCE, KEY
from support.played_api import Fault, PlayedClient
from support.played_parts import PlayedParts

EXPERIMENTS, INFERENCES = "anomalyexperiments", "anomalyinferences"
INFERENCE_KEY = RunKey("AnomalyInference", "vision", "screws-today")
LABELS = {names.MANAGED_BY_LABEL: names.MANAGED_BY}


class World(PlayedParts):
    """An API server with two runs, a Job and its pod, and a cache that LISTs fill."""

    def __init__(self) -> None:
        super().__init__()
        self.resync = Resync(
            client=self.client,
            cache=self.cache,
            queue=self.queue,
            namespaces=(),
            seconds=300.0,
            monotonic=self.loop.time,
        )
        run = self.api.add(EXPERIMENTS, EXPERIMENT)
        self.api.add(INFERENCES, INFERENCE)
        job = self.api.add("jobs", owned("screws-experiment", "AnomalyExperiment", run, LABELS))
        self.api.add("pods", owned("screws-experiment-1", "Job", job, LABELS))
        self.api.add("jobs", owned("somebody-elses", "AnomalyExperiment", run, {}))
        self.api.add("pods", owned("somebody-elses-1", "Job", job, {}))

    def relist(self) -> None:
        self.loop.run_until_complete(self.resync.relist())

    def queued(self) -> set[RunKey]:
        return {self.loop.run_until_complete(self.queue.get()) for _ in range(len(self.queue))}

    def known(self) -> list[str]:
        pods = [pod.name for pod in self.cache.pods]
        return [run.key.name for run in self.cache.runs] + [job.name for job in self.cache.jobs] + pods


def owned(name: str, kind: str, owner: Manifest, labels: dict[str, str]) -> Manifest:
    reference = {"kind": kind, "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "controller": True}
    metadata = {"name": name, "namespace": "vision", "labels": labels, "ownerReferences": [reference]}
    return {"metadata": metadata, "spec": {}, "status": {}}


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.loop.close()


EVERYTHING = ["screws", "screws-today", "screws-experiment", "screws-experiment-1"]


def test_a_list_fills_the_cache_and_queues_every_run(world: World) -> None:
    assert world.resync.completed_at is None
    world.relist()
    assert world.known() == EVERYTHING
    assert world.queued() == {KEY, INFERENCE_KEY}
    assert world.resync.completed_at == world.loop.time() > 0
    plurals = [path.rpartition("/")[2] for _, path in world.api.requests]
    assert list(dict.fromkeys(plurals)) == ["pods", "jobs", EXPERIMENTS, INFERENCES], "a run comes after its Job"


def test_runs_to_which_nothing_happened_keep_no_change_waiting(world: World) -> None:
    world.relist()
    world.queued()
    for key in (KEY, INFERENCE_KEY):
        world.queue.done(key)
    world.relist()
    changed = RunKey("AnomalyExperiment", "vision", "changed")
    world.loop.call_soon(world.queue.add, changed)
    world.loop.run_for(0.0)
    assert world.loop.run_until_complete(world.queue.get()) == changed


def test_every_page_of_a_list_is_read(world: World) -> None:
    for number in range(7):
        metadata = {"name": f"more-{number}", "namespace": "vision"}
        world.api.add(EXPERIMENTS, EXPERIMENT | {"metadata": metadata})
    world.relist()
    assert len(world.cache.runs) == 9
    assert len([path for _, path in world.api.requests if path.endswith(EXPERIMENTS)]) == 4


@pytest.mark.parametrize(
    ("plural", "name", "affected"),
    [
        ("pods", "screws-experiment-1", "screws-experiment-1"),
        ("jobs", "screws-experiment", "screws-experiment"),
        (EXPERIMENTS, "screws", "screws"),
        (INFERENCES, "screws-today", "screws-today"),
    ],
)
def test_a_deletion_that_no_watch_told_of_is_noticed(world: World, plural: str, name: str, affected: str) -> None:
    world.relist()
    world.api.remove(plural, name)
    world.relist()
    assert affected not in world.known()
    assert world.queued() == {KEY, INFERENCE_KEY}


def test_a_deleted_run_of_one_kind_does_not_remove_those_of_the_other(world: World) -> None:
    world.relist()
    world.api.remove(INFERENCES, "screws-today")
    world.relist()
    assert "screws" in world.known()


def test_what_was_made_after_a_list_is_not_missing_from_it(world: World) -> None:
    world.relist()
    newer = world.api.add("jobs", owned("newer", "AnomalyExperiment", world.api.objects[EXPERIMENTS, "screws"], LABELS))
    del world.api.objects["jobs", "newer"]
    world.api._version -= 1
    world.cache.put_job(job_view(newer))
    world.relist()
    assert "newer" in world.known()


def test_a_deletion_during_a_list_is_not_undone_by_it(world: World) -> None:
    world.relist()
    run = run_view("AnomalyExperiment", world.api.objects[EXPERIMENTS, "screws"])
    job, pod = job_view(world.api.objects["jobs", "screws-experiment"]), world.api.objects["pods", EVERYTHING[3]]
    world.loop.call_later(0.002, world.cache.remove_run, run)
    world.loop.call_later(0.002, world.cache.remove_job, job)
    world.loop.call_later(0.002, world.cache.remove_pod, pod_view(pod))
    world.relist()
    assert world.known() == ["screws-today"]


def test_a_list_that_fails_is_repeated_soon(world: World) -> None:
    world.api.faults.extend([Fault.COMPACTED] * 1 + [Fault.LOST] * 5)
    with capture_logs() as logs:
        running = world.loop.create_task(world.resync.run())
        world.loop.run_for(400.0)
    assert [entry["event"] for entry in logs] == ["resync failed"]
    assert logs[0]["retry_s"] == RETRY_SECONDS == 5.0
    assert logs[0]["message"].startswith("410: ") or logs[0]["message"].startswith("0: ")
    assert world.known() == EVERYTHING
    running.cancel()


@pytest.mark.parametrize("error", [LoginError("no token for the moment"), Gone(410, "too old")])
def test_no_failure_ends_the_lists(world: World, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    tries: list[float] = []

    async def fail() -> None:
        tries.append(world.loop.time())
        if len(tries) < 4:
            raise error

    monkeypatch.setattr(world.resync, "relist", fail)
    running = world.loop.create_task(world.resync.run())
    world.loop.run_for(620.0)
    assert tries == pytest.approx([0, 5, 10, 15, 315, 615])
    assert not running.done()
    running.cancel()


def test_each_watched_namespace_is_listed(world: World) -> None:
    client = PlayedClient(world.api)
    resync = Resync(
        client=client,
        cache=world.cache,
        queue=world.queue,
        namespaces=("vision", "other"),
        seconds=1.0,
        monotonic=world.loop.time,
    )
    world.loop.run_until_complete(resync.relist())
    paths = list(dict.fromkeys(path for _, path in world.api.requests))
    assert paths[:4] == [
        "/api/v1/namespaces/vision/pods",
        "/api/v1/namespaces/other/pods",
        "/apis/batch/v1/namespaces/vision/jobs",
        "/apis/batch/v1/namespaces/other/jobs",
    ]
