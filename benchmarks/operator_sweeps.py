"""Sweeps of many trials with pods that are played: the operator's delay behind a trial's end, and its resource use.

    python -m benchmarks.operator_sweeps --trials 2000 --parallel 100 --algorithm tpe --seconds 20
    python -m benchmarks.operator_sweeps --sweeps 100 --trials 50 --parallel 5 --seconds 60

Needs the embedded cluster: beside its API server a second one is started, which no controller looks at. Job controller
and kubelet are played here, with four writes a trial: its pod made, running and ended, its Job Complete. So what is
measured is the operator and an API server, not the Job controller, which makes 17 Jobs a second at most. The operator
runs as in its image, without the packages that are not in there. Prints one line per figure; asserts nothing.
"""

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import kopf

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("crds", "search", "operator", "tests")]

from anomaly_api.reasons import Reason  # noqa: E402
from anomaly_api.run import RunSummary  # noqa: E402
from anomaly_api.status import Artifacts, MetricValues, Stage  # noqa: E402
from anomaly_operator import names  # noqa: E402
from anomaly_operator.cluster.client import ApiClient  # noqa: E402
from anomaly_operator.cluster.credentials import login  # noqa: E402
from anomaly_operator.resources import EXPERIMENTS, JOBS, PODS, Resource  # noqa: E402
from support.fake_kubelet import ended, experiment  # noqa: E402
from support.kube import kubectl  # noqa: E402
from support.lone_api_server import lone_api_server  # noqa: E402
from support.process import free_port  # noqa: E402

NAMESPACES = Resource("", "v1", "namespaces")
ACCOUNTS = Resource("", "v1", "serviceaccounts")
NOT_IN_THE_IMAGE = ("kubernetes", "sklearn", "pandas", "torch", "matplotlib", "plotly")
METADATA_ALONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
REQUESTS = re.compile(r'anomaly_operator_api_requests_total\{code="(\w+)",resource="(\w+)",verb="(\w+)"\} ([\d.e+]+)')
WRITES = frozenset({"create", "patch", "update", "update_status", "delete"})
KATIB = {
    "create trials: experiment/experiment_controller.go, createTrials": 1,
    "update suggestions: experiment/suggestion/suggestion.go, UpdateSuggestion": 1,
    "update_status suggestions, with all points: suggestion/suggestion_controller.go, Reconcile": 1,
    "update trials, a finalizer: trial/trial_controller_util.go, updateFinalizers": 1,
    "update_status trials, created, running, succeeded: trial/trial_controller.go, Reconcile": 3,
    "create jobs: trial/trial_controller.go, reconcileJob": 1,
    "delete jobs, unless the template retains them: trial/trial_controller.go, reconcileJob": 1,
    "update_status experiments, its counts: experiment/experiment_controller.go, Reconcile": 3,
    "create events, of the Job: trial/trial_controller.go, trial/trial_controller_util.go": 4,
}
"""Writes of Katib v1beta1 a trial that succeeds, by their place below pkg/controller.v1beta1 in kubeflow/katib.

Counted there, not measured. Trials that change together share updates of suggestions and experiments, down to a part of
one each. The metrics of a trial are written to a database beside, by a container of each pod.
"""
EDGE = 100
"""Trials at either end of a sweep that are compared: whether the delay grows."""
SAMPLE_SECONDS = 2.0


def sweep(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return a sweep over four parameters, of every kind."""
    sizes = [{"height": size, "width": size} for size in (128, 256, 384)]
    parameters: list[dict[str, Any]] = [
        {"path": "model.padim.nFeatures", "int": {"low": 1, "high": 100}},
        {"path": "dataset.splits.goodTestFraction", "float": {"low": 0.1, "high": 0.3}},
        {"path": "dataset.seed", "int": {"low": 1, "high": 100_000, "log": True}},
        {"path": "transforms.inputSize", "choices": sizes},
    ]
    block = {
        "parameters": parameters,
        "algorithm": {"name": arguments.algorithm, "seed": 7},
        "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
        "trials": {"max": arguments.trials, "parallel": arguments.parallel},
        "final": "report",
    }
    return experiment(name, sweep=block)


class Operator:
    """The operator's process, and what it says of itself."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self._folder, self._kubeconfig = folder, kubeconfig
        for package in NOT_IN_THE_IMAGE:
            absent = folder / "absent" / package / "__init__.py"
            absent.parent.mkdir(parents=True, exist_ok=True)
            absent.write_text("raise ImportError('not in the image')\n")

    def start(self) -> None:
        """Start it."""
        self._port = free_port()
        path = [str(self._folder / "absent"), *(str(ROOT / part) for part in ("crds", "search", "operator"))]
        environment = os.environ | {"KUBECONFIG": str(self._kubeconfig), "PYTHONPATH": os.pathsep.join(path)}
        command = [sys.executable, "-m", "anomaly_operator", "--bind=127.0.0.1", f"--port={self._port}"]
        flags = ["--lease-namespace=anomaly-system", "--lease-seconds=120", "--log-level=WARNING"]
        self._process = subprocess.Popen([*command, *flags], env=environment)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(60)

    async def metrics(self) -> str:
        """Return its Prometheus metrics; nothing while it does not answer."""
        try:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self._port}/metrics") as got:
                return await got.text()
        except aiohttp.ClientError:
            return ""

    async def wait_until_leading(self) -> None:
        """Wait until it works."""
        while value(await self.metrics(), "anomaly_operator_leader") != 1:
            assert self._process.poll() is None, "the operator ended"
            await asyncio.sleep(0.2)

    def processes(self) -> dict[str, int]:
        """Return the PIDs of its process and of the search's, the larger of its children."""
        own = self._process.pid
        children = [int(pid) for pid in Path(f"/proc/{own}/task/{own}/children").read_text().split()]
        return {"operator": own} | ({"search": max(children, key=peak)} if children else {})


def peak(pid: int) -> float:
    """Return the most memory that a process had, MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def cpu(pid: int) -> float:
    """Return the CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def value(metrics: str, name: str) -> float:
    """Return the sum of a metric over its labels."""
    lines = [line for line in metrics.splitlines() if line.startswith((name + " ", name + "{"))]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def writes(metrics: str) -> dict[str, float]:
    """Return the writing requests that succeeded or failed, by resource and verb, without the Lease's."""
    found: dict[str, float] = defaultdict(float)
    for code, resource, verb, count in REQUESTS.findall(metrics):
        if verb in WRITES and resource not in ("leases", "tokenreviews"):
            found[f"{verb} {resource}" + ("" if code.startswith("2") else f" ({code})")] += float(count)
    return dict(found)


@dataclass
class Times:
    """When what happened in one sweep, monotonic seconds, in the order of time."""

    made: list[float] = field(default_factory=list)
    jobs: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def delays(self, parallel: int, made: Sequence[float]) -> list[float]:
        """Return the time from each end to what took its place: the n-th end frees the place of trial n + parallel."""
        return [after - end for end, after in zip(self.ends, made[parallel:], strict=False)]


class Player:
    """Job controller and kubelet: each Job has one pod, which runs a while and succeeds."""

    def __init__(self, client: ApiClient, kubeconfig: kopf.ConnectionInfo, namespace: str, seconds: float) -> None:
        self._client, self._info, self._namespace, self._seconds = client, kubeconfig, namespace, seconds
        self._random = random.Random(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self.times: dict[str, Times] = defaultdict(Times)
        self.latencies: list[float] = []
        """Seconds of each of its own writes: what the API server takes."""
        self.failure: BaseException | None = None

    @property
    def ended(self) -> int:
        """How many trials have ended."""
        return sum(len(times.ends) for times in self.times.values())

    async def watch(self) -> None:
        """Follow trials and Jobs until cancelled."""
        await asyncio.gather(self._watch_trials(), self._watch_jobs())

    async def _watch_trials(self) -> None:
        async for name, labels in self._added(EXPERIMENTS):
            if "anomalyops.io/trial" in labels:
                self.times[_sweep_of(name)].made.append(time.monotonic())

    async def _watch_jobs(self) -> None:
        uid: dict[str, str] = {}
        async for name, labels in self._added(JOBS, uid):
            if is_trial := "-t" in name:
                self.times[_sweep_of(name)].jobs.append(time.monotonic())
            task = asyncio.create_task(self._play(name, uid[name], labels, is_trial))
            self._tasks.add(task)
            task.add_done_callback(self._over)

    def _over(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.failure = error

    async def _added(
        self, resource: Resource, uids: dict[str, str] | None = None
    ) -> AsyncIterator[tuple[str, dict[str, str]]]:
        """Yield the name and labels of each new object, from a watch of metadata alone."""
        connector = aiohttp.TCPConnector(ssl=self._info.as_ssl_context())
        headers = {"Accept": METADATA_ALONE} | self._info.as_http_headers()
        url = self._info.server + resource.path(self._namespace)
        seen: set[str] = set()
        async with aiohttp.ClientSession(connector=connector, headers=headers, read_bufsize=2**24) as session:
            while True:
                timeout = aiohttp.ClientTimeout(total=None)
                async with session.get(url, params={"watch": "1"}, timeout=timeout) as answer:
                    async for line in answer.content:
                        event = json.loads(line)
                        meta = event["object"]["metadata"]
                        if event["type"] != "ADDED" or meta["name"] in seen:
                            continue
                        seen.add(meta["name"])
                        if uids is not None:
                            uids[meta["name"]] = meta["uid"]
                        yield meta["name"], meta.get("labels", {})

    async def _play(self, job: str, uid: str, labels: dict[str, str], is_trial: bool) -> None:
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": uid, "controller": True}
        spec = {"containers": [{"name": names.CONTAINER, "image": "x"}], "restartPolicy": "Never"}
        pod = f"{job}-pod"
        meta = {"name": pod, "labels": labels | {names.JOB_NAME_LABEL: job}, "ownerReferences": [owner]}
        await self._timed(self._client.create(PODS, self._namespace, {"metadata": meta, "spec": spec}))
        state = {"running": {"startedAt": _now()}}
        container = {"name": names.CONTAINER, "image": "x", "imageID": "", "ready": True, "restartCount": 0}
        running = {"phase": "Running", "containerStatuses": [container | {"state": state}]}
        await self._write_status(PODS, pod, running)
        began = _now()
        await asyncio.sleep(self._seconds * self._random.uniform(0.5, 1.5))
        await self._write_status(PODS, pod, ended(_summary(self._random.random()))["status"])
        conditions = [{"type": kind, "status": "True", "reason": "CompletionsReached"} for kind in _COMPLETE]
        done = {"startTime": began, "completionTime": _now(), "succeeded": 1, "conditions": conditions}
        await self._write_status(JOBS, job, done)
        if is_trial:
            self.times[_sweep_of(job)].ends.append(time.monotonic())

    async def _write_status(self, resource: Resource, name: str, status: dict[str, Any]) -> None:
        # A patch: a replaced status would replace the labels as well.
        await self._timed(self._client.patch(resource, self._namespace, f"{name}/status", {"status": status}))

    async def _timed(self, request: Awaitable[object]) -> None:
        began = time.monotonic()
        await request
        self.latencies.append(time.monotonic() - began)


_COMPLETE = ("SuccessCriteriaMet", "Complete")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _summary(auroc: float) -> RunSummary:
    metrics = MetricValues(image={"AUROC": auroc, "F1Score": auroc}, pixel={"AUROC": auroc})
    return RunSummary(
        reason=Reason.COMPLETE, stage=Stage.DONE, metrics=metrics, artifacts=Artifacts(root="s3://results/somewhere")
    )


def _sweep_of(name: str) -> str:
    return name.partition("-t")[0]


@contextmanager
def api_server(folder: Path) -> Iterator[Path]:
    """Start an API server with the definitions, and yield its kubeconfig, which kubectl uses from then on."""
    with lone_api_server(Path(os.environ["KUBECONFIG"]), folder) as kubeconfig:
        os.environ["KUBECONFIG"] = str(kubeconfig)
        kubectl("apply", "-f", str(ROOT / "manifests/base/namespace.yaml"))
        kubectl("apply", "--server-side", "-f", str(ROOT / "manifests/base/crds"))
        kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(ROOT / "manifests/base/crds"))
        yield kubeconfig


@dataclass(frozen=True)
class Sample:
    """The search's figures so far, when so many trials had ended."""

    ended: int
    seconds: float
    answers: float
    suggested: float


async def sampled(operator: Operator, player: Player, samples: list[Sample]) -> None:
    """Note every while how long the search took so far, until cancelled."""
    while True:
        text = await operator.metrics()
        if text:
            seconds, answers = (value(text, f"anomaly_operator_search_seconds_{part}") for part in ("sum", "count"))
            suggested = value(text, "anomaly_operator_search_suggestions_total")
            samples.append(Sample(player.ended, seconds, answers, suggested))
        await asyncio.sleep(SAMPLE_SECONDS)


async def main() -> None:
    """Start everything, measure, and clean up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sweeps", type=int, default=1)
    parser.add_argument("--trials", type=int, default=500, help="of each sweep")
    parser.add_argument("--parallel", type=int, default=50, help="of each sweep")
    parser.add_argument("--seconds", type=float, default=10.0, help="mean time of a trial's pod")
    parser.add_argument("--algorithm", default="random")
    parser.add_argument("--restart", action="store_true", help="start the operator again over the finished sweeps")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, api_server(Path(name)) as kubeconfig:
        info = login(kopf.OperatorSettings())
        client = ApiClient(lambda: info, connections=64)
        operator = Operator(kubeconfig, Path(name))
        await client.create(NAMESPACES, None, {"metadata": {"name": "bench"}})
        # Which a controller makes elsewhere, and no pod is without.
        await client.create(ACCOUNTS, "bench", {"metadata": {"name": "default"}})
        operator.start()
        try:
            await operator.wait_until_leading()
            await measure(client, info, operator, arguments)
        finally:
            operator.stop()
            await client.close()


async def measure(
    client: ApiClient, info: kopf.ConnectionInfo, operator: Operator, arguments: argparse.Namespace
) -> None:
    """Apply the sweeps, wait for their end, and print the figures."""
    player, samples = Player(client, info, "bench", arguments.seconds), list[Sample]()
    helpers = [asyncio.create_task(player.watch()), asyncio.create_task(sampled(operator, player, samples))]
    began, load = time.monotonic(), os.getloadavg()[0]
    sweeps = [f"sweep{number:03}" for number in range(arguments.sweeps)]
    await asyncio.gather(*(client.create(EXPERIMENTS, "bench", sweep(name, arguments)) for name in sweeps))
    total = arguments.sweeps * arguments.trials
    await until_ended(player, helpers, total)
    took = time.monotonic() - began
    found = [await over(client, name) for name in sweeps]
    print(f"sweeps x trials, parallel         {arguments.sweeps} x {arguments.trials}, {arguments.parallel} each")
    print(f"algorithm, mean seconds of a pod  {arguments.algorithm}, {arguments.seconds:g}")
    print(f"load of the machine, begin / end  {load:.1f} / {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    print(f"all trials ended after            {took:.0f} s ({total / took:.1f} a second)")
    print_delays(player, arguments.parallel)
    print_search(samples, total)
    print_writes(writes(await operator.metrics()), total)
    print_resources(operator, found)
    for task in helpers:
        task.cancel()
    await asyncio.gather(*helpers, return_exceptions=True)
    if arguments.restart:
        await restart(operator)


async def until_ended(player: Player, helpers: Iterable["asyncio.Task[None]"], total: int) -> None:
    """Wait until so many trials have ended; a failure of what plays or samples ends it."""
    while player.ended < total:
        await asyncio.sleep(1)
        if sys.stderr.isatty():
            print(f"\r{player.ended} of {total} trials have ended", end="", file=sys.stderr, flush=True)
        if player.failure:
            raise player.failure
        for task in helpers:
            if task.done():
                task.result()


def print_resources(operator: Operator, sweeps: Iterable[dict[str, Any]]) -> None:
    """Print what the processes took, and how large a sweep's object is."""
    for name, pid in operator.processes().items():
        print(f"{name}: CPU, peak RSS".ljust(33), f"{cpu(pid):.1f} s, {peak(pid):.0f} MiB")
    largest = max(len(json.dumps(one, separators=(",", ":"))) for one in sweeps)
    print("object of a sweep, largest".ljust(33), f"{largest / 1024:.1f} KiB")


async def over(client: ApiClient, name: str) -> dict[str, Any]:
    """Wait until a sweep is over, and return its object."""
    while True:
        found = await client.get(EXPERIMENTS, "bench", name)
        if found.get("status", {}).get("phase") in ("Complete", "Failed"):
            return found
        await asyncio.sleep(1)


async def restart(operator: Operator) -> None:
    """Start the operator again over what is finished, and print what it writes in 20 seconds of leading."""
    operator.stop()
    operator.start()
    await operator.wait_until_leading()
    await asyncio.sleep(20)
    count = sum(writes(await operator.metrics()).values())
    print("writes after a restart".ljust(33), f"{count:.0f}")


def print_delays(player: Player, parallel: int) -> None:
    """Print the delays of all trials, and of the first and the last ones."""
    print("API server: a write, p50 / p95".ljust(33), percentiles(player.latencies))
    for what, requests in (("trial", 2), ("Job", 3)):
        delays = [
            times.delays(parallel, times.made if what == "trial" else times.jobs) for times in player.times.values()
        ]
        pooled = [delay for one in delays for delay in one]
        print(f"end to the next {what}, p50 / p95".ljust(33), percentiles(pooled))
        beyond = quantile(pooled, 0.95) - requests * quantile(player.latencies, 0.95)
        print(f"  p95 beyond its {requests} requests".ljust(33), f"{beyond:.2f} s")
        if len(delays) == 1 and len(pooled) > 2 * EDGE:
            print(f"  of the first {EDGE}".ljust(33), percentiles(pooled[:EDGE]))
            print(f"  of the last {EDGE}".ljust(33), percentiles(pooled[-EDGE:]))


def print_search(samples: Sequence[Sample], total: int) -> None:
    """Print the mean time of the search's answers and suggestions: of all, and in the last tenth."""
    late = next(sample for sample in samples if sample.ended >= 0.9 * total)
    early = next((sample for sample in samples if sample.ended >= 0.1 * total), samples[0])
    for what, first, last in (
        ("first tenth", samples[0], early),
        ("last tenth", late, samples[-1]),
        ("all", samples[0], samples[-1]),
    ):
        seconds, answers = last.seconds - first.seconds, last.answers - first.answers
        suggested = last.suggested - first.suggested
        told = f"{1000 * seconds / max(answers, 1):.0f} ms, {suggested / max(answers, 1):.2f} suggestions"
        print(f"search: an answer, {what}".ljust(33), told)


def print_writes(found: dict[str, float], total: int) -> None:
    """Print the operator's writes a trial."""
    print("API writes a trial".ljust(33), f"{sum(found.values()) / total:.2f}")
    for name, count in sorted(found.items(), key=lambda item: -item[1]):
        print(f"  {name}".ljust(33), f"{count / total:.3f}")
    print("Katib's, counted, one by one".ljust(33), sum(KATIB.values()))
    for name, number in KATIB.items():
        print(f"  {number} {name}")
    print("objects a trial".ljust(33), "3: experiment, Job, pod; Katib's are 3: trial, Job, pod with a collector,")
    print(" ".ljust(33), "and 4 a sweep: suggestion, Deployment, Service, pod of the algorithm")


def percentiles(values: Sequence[float]) -> str:
    """Return the median and the 95th percentile."""
    return f"{quantile(values, 0.5):.2f} / {quantile(values, 0.95):.2f} s"


def quantile(values: Iterable[float], share: float) -> float:
    """Return a quantile; NaN of nothing."""
    known = sorted(values)
    if len(known) < 2:
        return known[0] if known else float("nan")
    return statistics.quantiles(known, n=100, method="inclusive")[round(share * 100) - 1]


if __name__ == "__main__":
    asyncio.run(main())
