"""The manager of a process: how its parts are connected, when it is unhealthy, and what it counts for Prometheus."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import aiohttp
import kopf
import pytest
from structlog.testing import capture_logs

from anomaly_api.run import PROGRESS_PATH, ProgressUpdate, RunIdentity
from anomaly_api.status import Progress, Stage
from anomaly_operator import manager
from anomaly_operator.manager import Manager
from anomaly_operator.metrics import REGISTRY
from anomaly_operator.resources import JOBS, PODS, RUN_RESOURCES, TOKEN_REVIEWS, Manifest, Resource
from anomaly_operator.settings import Settings
from support.objects import EXPERIMENT, INFERENCE, KEY, make_run, with_spec
from support.played_api import PlayedApi, PlayedClient
from support.played_controllers import PlayedControllers
from support.played_operator import SETTINGS, PlayedSearch
from support.process import free_port

BEGIN = datetime(2026, 1, 2, tzinfo=UTC)
SWEEP: Manifest = {
    "metadata": {"name": "hunt", "uid": "h"},
    "spec": EXPERIMENT["spec"] | {"sweep": {"parameters": []}},
}
FOUND: Manifest = {
    "running": 2,
    "complete": 5,
    "gpuHours": 1.5,
    "best": [{"objectives": {"image.AUROC": 0.9}}, {"objectives": {"image.AUROC": 0.8}}],
}


class World:
    """A manager that is connected to nothing, and its clocks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1000.0
        clock = SimpleNamespace(now=lambda zone: (BEGIN + timedelta(seconds=self.seconds)).replace(tzinfo=zone))
        monkeypatch.setattr(manager, "time", SimpleNamespace(monotonic=lambda: self.seconds))
        monkeypatch.setattr(manager, "datetime", clock)
        monkeypatch.setattr(manager, "login", lambda _: kopf.ConnectionInfo(server="http://127.0.0.1:1"))
        self.served = asyncio.Event()
        monkeypatch.setattr(manager, "wait_until_served", lambda *_: self.served.wait())
        self.manager = Manager(replace(SETTINGS, bind="127.0.0.1", port=0), kopf.OperatorSettings())
        self.replica = self.manager._replica

    def health(self, after: float) -> str | None:
        """What is wrong, so many seconds later."""
        self.seconds += after
        return self.manager._health_problem()


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    made = World(monkeypatch)
    yield made
    await made.manager.stop()


async def begin(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the manager begin, with a replica that does nothing."""
    monkeypatch.setattr(world.replica, "run", asyncio.Event().wait)
    monkeypatch.setattr(world.manager._server, "start", lambda *_: asyncio.sleep(0))
    world.served.set()
    await world.manager.start()


async def test_a_process_that_lists_nothing_is_unhealthy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await begin(world, monkeypatch)
    assert world.health(after=300.0) is None
    assert world.health(after=1.0) == "no complete LIST for 301 s"
    world.replica.resync.completed_at = world.seconds
    assert world.health(after=300.0 + 3 * 300.0) is None, "three are missed"
    assert world.health(after=1.0) == "no complete LIST for 1201 s"


async def test_one_that_waits_for_definitions_is_healthy_and_has_its_time_from_then_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.health(after=3600.0) is None
    await begin(world, monkeypatch)
    assert world.health(after=300.0) is None
    assert world.health(after=1.0) is not None


async def test_workers_that_end_no_reconcile_are_unhealthy_while_runs_wait(world: World) -> None:
    world.replica.resync.completed_at = world.seconds
    world.replica.controller.idle_since = BEGIN + timedelta(seconds=world.seconds)
    assert world.health(after=301.0) is None, "nothing waits"
    world.replica.queue.add(KEY)
    assert world.health(after=0.0) == "1 runs wait, and no reconcile ended for 301 s"
    assert world.health(after=-1.0) is None


async def test_a_replica_that_followed_for_long_is_healthy_when_it_leads(world: World) -> None:
    """Runs wait in its queue all the time, and it has reconciled none of them."""
    world.seconds += 86_400.0
    world.replica.queue.add(KEY)
    world.replica.resync.completed_at = world.seconds
    world.replica.elector.is_leader = True
    assert world.health(after=0.0) is None
    world.replica.elector.is_leader = False


def gauge(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"anomaly_operator_{name}", labels)


async def test_runs_are_counted_by_kind_and_phase(world: World) -> None:
    cache = world.replica.cache
    cache.put_run(make_run(EXPERIMENT, {"phase": "Running"}))
    cache.put_run(make_run(EXPERIMENT | {"metadata": {"name": "bolts"}}, {"phase": "Running"}, uid="b"))
    cache.put_run(make_run(INFERENCE, uid="i"))
    world.manager._refresh_metrics()
    assert gauge("runs", kind="AnomalyExperiment", phase="Running") == 2
    assert gauge("runs", kind="AnomalyInference", phase="New") == 1
    cache.remove_run(make_run(INFERENCE, uid="i", resourceVersion="11"))
    world.manager._refresh_metrics()
    assert gauge("runs", kind="AnomalyInference", phase="New") is None


async def test_a_sweep_tells_how_it_goes(world: World) -> None:
    cache, which = world.replica.cache, {"namespace": "vision", "sweep": "hunt"}
    cache.put_run(make_run(EXPERIMENT | SWEEP, {"sweep": FOUND}))
    cache.put_run(make_run(EXPERIMENT | SWEEP | {"metadata": {"name": "new"}}, uid="n"))
    world.manager._refresh_metrics()
    states = ("running", "complete", "pruned", "infeasible", "failed")
    assert [gauge("sweep_trials", **which, state=state) for state in states] == [2, 5, 0, 0, 0]
    assert gauge("sweep_gpu_hours", **which) == 1.5
    assert gauge("sweep_best", **which, metric="image.AUROC") == 0.9, "of the first one"
    assert gauge("sweep_gpu_hours", namespace="vision", sweep="new") is None, "nothing is known of it"
    early = {"sweep": {"running": 1}}
    cache.put_run(make_run(EXPERIMENT | SWEEP, early, resourceVersion="11"))
    world.manager._refresh_metrics()
    assert gauge("sweep_best", **which, metric="image.AUROC") is None
    assert gauge("sweep_gpu_hours", **which) == 0.0


async def test_the_age_of_the_last_list_is_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def age() -> float | None:
        world.manager._refresh_metrics()
        return gauge("resync_age_seconds")

    world.seconds += 50.0
    assert age() == 0.0
    await begin(world, monkeypatch)
    world.seconds += 20.0
    assert age() == 20.0
    world.replica.resync.completed_at = world.seconds - 5.0
    assert age() == 5.0


async def test_it_is_ready_once_everything_is_listed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probes are answered from the start, also while definitions are waited for."""
    starting = asyncio.create_task(world.manager.start())
    await asyncio.sleep(0.05)
    assert not starting.done()
    assert world.manager._server._runner
    port = world.manager._server._runner.addresses[0][1]
    async with aiohttp.ClientSession() as session:

        async def status(path: str) -> int:
            async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                return answer.status

        assert (await status("/healthz"), await status("/readyz")) == (200, 503)
        world.replica.resync.completed_at = world.seconds
        assert await status("/readyz") == 200
        world.seconds += 1201.0
        assert await status("/healthz") == 503
    starting.cancel()


WATCHED = {resource.plural for resource in (*RUN_RESOURCES.values(), JOBS, PODS)}
KOPF = kopf.OperatorSettings()
UNCHECKED: Manifest = {"runPolicy": {"preflight": "Never"}}
HUNT: Manifest = {
    "parameters": [{"path": "model.padim.nFeatures", "choices": [10, 20]}],
    "algorithm": {"name": "grid"},
    "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
}


class Client(PlayedClient):
    """A client of a played server that knows one token, that of its pod."""

    async def create(self, resource: Resource, namespace: str | None, body: Manifest) -> Manifest:
        if resource is not TOKEN_REVIEWS:
            return await super().create(resource, namespace, body)
        [pod] = (await self.list(PODS).__anext__())[0]
        who = {"pod-name": [pod["metadata"]["name"]], "pod-uid": [pod["metadata"]["uid"]]}
        user = {
            "username": "system:serviceaccount:vision:default",
            "extra": {f"authentication.kubernetes.io/{key}": value for key, value in who.items()},
        }
        return {"status": {"authenticated": True, "audiences": body["spec"]["audiences"], "user": user}}


class Process:
    """A manager that is connected to a played server, and what it asked of its machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        self.api = PlayedApi(lambda: loop.time() - begun)
        self.controllers = PlayedControllers(self.api)
        self.connections: list[int | None] = []
        self.exits: list[int] = []
        self.signals: list[tuple[int, int]] = []
        self.waited: list[object] = []
        machine = SimpleNamespace(_exit=self.exits.append, getpid=lambda: 7, kill=lambda *to: self.signals.append(to))
        monkeypatch.setattr(manager, "os", machine)
        monkeypatch.setattr(manager, "login", lambda given: given)
        monkeypatch.setattr(manager, "ApiClient", self._client)
        monkeypatch.setattr(manager, "SearchWorker", PlayedSearch)
        monkeypatch.setattr(manager, "wait_until_served", self._wait)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.manager = Manager(replace(settings, bind="127.0.0.1", port=self.port), KOPF)
        self.api.watches.append(self._hear)

    def _client(self, login: Callable[[], object], connections: int | None = 16) -> Client:
        assert login() is KOPF
        self.connections.append(connections)
        return Client(self.api)

    async def _wait(self, client: object) -> None:
        self.waited.append(client)

    def _hear(self, plural: str, event: str, raw: Manifest) -> None:
        if plural in WATCHED:
            self.manager.hear(plural, raw, deleted=event == "DELETED")

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)

    def status(self, name: str) -> Manifest:
        status: Manifest = self.api.objects["anomalyexperiments", name].get("status", {})
        return status


@pytest.fixture
async def process(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> AsyncIterator[Process]:
    made = Process(monkeypatch, getattr(request, "param", SETTINGS))
    yield made
    await made.manager.stop()
    assert made.api.complaints == []


async def test_a_process_leads_reconciles_searches_and_serves(process: Process) -> None:
    api = process.api
    api.add("anomalyexperiments", with_spec(EXPERIMENT, **UNCHECKED))
    await process.manager.start()
    assert process.waited == [process.manager._client]
    assert process.connections == [16, 1], "a renewal of the Lease waits for nothing else"
    await process.until(lambda: process.status("screws").get("phase") == "Pending")
    assert api.objects["leases", "anomaly-operator"]["spec"]["holderIdentity"] == "played"
    for job in process.controllers.jobs():
        process.controllers.sync(job)
        for pod in process.controllers.active_pods(job):
            process.controllers.run_pod(pod)
    await process.until(lambda: process.status("screws")["phase"] == "Running")

    uid = api.objects["anomalyexperiments", "screws"]["metadata"]["uid"]
    identity = RunIdentity(kind=KEY.kind, namespace="vision", name="screws", uid=uid)
    update = ProgressUpdate(run=identity, stage=Stage.TRAIN, progress=Progress(percent=42))
    async with aiohttp.ClientSession() as session:
        headers = {"Authorization": "Bearer of-the-pod"}
        data = update.model_dump_json(by_alias=True)
        async with session.post(process.url + PROGRESS_PATH, data=data, headers=headers) as answer:
            assert answer.status == 204
        await process.until(lambda: "progress" in process.status("screws"))
        async with session.get(f"{process.url}/metrics") as answer:
            assert 'anomaly_operator_runs{kind="AnomalyExperiment",phase="Running"} 1.0' in await answer.text()
        async with session.get(f"{process.url}/healthz") as answer:
            assert answer.status == 200

    api.add(
        "anomalyexperiments",
        with_spec(EXPERIMENT, sweep=HUNT, **UNCHECKED) | {"metadata": {"name": "hunt", "namespace": "vision"}},
    )
    await process.until(lambda: ("anomalyexperiments", "hunt-t0000") in api.objects)
    assert {task.get_name() for task in process.manager._replica.tasks} >= {"leading", "lease", "resync", "worker-0"}
    assert (process.exits, process.signals) == ([], [])


async def test_a_process_whose_part_fails_ends_at_once(process: Process) -> None:
    async def fail() -> None:
        raise KeyError

    process.manager._replica.spawn(fail(), "a part")
    await process.until(lambda: bool(process.exits))
    assert process.exits == [1]


SOME = replace(SETTINGS, namespaces=("vision", "bottles"), skipped_namespaces=("hidden",))


@pytest.mark.parametrize("process", [SOME], indirect=True)
async def test_a_process_begins_anew_when_a_namespace_can_be_read_again(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    async def find(client: object, names: tuple[str, ...]) -> str:
        asked.extend([client, names])
        return names[0]

    monkeypatch.setattr(manager, "wait_until_readable", find)
    with capture_logs() as logs:
        await process.manager.start()
        await process.until(lambda: bool(process.signals))
    assert asked == [process.manager._client, ("hidden",)]
    assert process.signals == [(7, signal.SIGTERM)]
    [told] = [entry for entry in logs if entry["log_level"] == "warning"]
    assert told["event"] == "a skipped namespace can be read again; the process starts anew"
    assert told["namespace"] == "hidden"
    assert "skipped namespaces" in {task.get_name() for task in process.manager._replica.tasks}
