"""Suspended resources applied at once: the operator's delay behind their creation, its writes and its resource use.

    python -m benchmarks.operator_apply [--resources N...] [--runs N] [--write]

Needs a Kubernetes API server (KUBECONFIG) with the CRDs; an installed operator is scaled to zero meanwhile. The
operator runs as in its image, without the `kubernetes` package, anew for each run. Times count from the first posting.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kopf

from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.cluster.credentials import login
from anomaly_operator.errors import Conflict
from anomaly_operator.resources import EXPERIMENTS, JOBS, Resource
from benchmarks.processes import ROOT
from benchmarks.tables import Spread, Table, add_write, publish

PORT = 18099
LABEL = "app.kubernetes.io/name=anomaly-operator"
AS_IN_THE_IMAGE = "import sys; sys.modules['kubernetes'] = None\nfrom anomaly_operator.__main__ import main\nmain()"
API = "anomaly_operator_api_requests_total"
NAMESPACES = Resource("", "v1", "namespaces")


def experiment(number: int) -> dict[str, Any]:
    """Return a suspended experiment of usual size."""
    s3 = {"endpoint": "http://s3.anomaly-demo.svc:7070", "region": "us-east-1", "credentialsSecret": "s3-credentials"}
    return {
        "apiVersion": "anomalyops.io/v1alpha1",
        "kind": "AnomalyExperiment",
        "metadata": {"name": f"bench-{number:05}"},
        "spec": {
            "dataset": {"source": {"s3": s3 | {"uri": "s3://data"}}, "category": "mnist"},
            "model": {"name": "padim", "weights": {"s3": s3 | {"uri": "s3://weights"}}},
            "output": {"s3": s3 | {"uri": "s3://results"}},
            "tracking": {"mlflow": {"trackingUri": "http://mlflow.anomaly-demo.svc:5000"}},
            "runPolicy": {"suspend": True},
        },
    }


def start_operator(python: str, namespace: str) -> "subprocess.Popen[bytes]":
    """Start the operator, cluster-wide, with a Lease in its own namespace."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}/crds:{ROOT}/search:{ROOT}/operator"}
    return subprocess.Popen(
        [
            python,
            "-c",
            AS_IN_THE_IMAGE,
            "--bind=127.0.0.1",
            f"--port={PORT}",
            f"--lease-namespace={namespace}",
            "--log-level=WARNING",
        ],
        env=environment,
    )


def metrics() -> list[str]:
    """Return the lines of the operator's Prometheus metrics; empty while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
            return text.splitlines()
    except (urllib.error.URLError, OSError):
        return []


def metric(name: str, *having: str) -> float:
    """Return the sum of a metric over the label sets that contain these texts."""
    lines = [line for line in metrics() if line.startswith((name + " ", name + "{")) and all(h in line for h in having)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def memory(pid: int, field: str) -> float:
    """Return a field of /proc/PID/status in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


async def until(reached: Any, seconds: float = 120) -> None:
    """Poll until the condition is reached.

    Raises:
        TimeoutError: it was not reached in time.
    """
    deadline = time.perf_counter() + seconds
    while not reached():
        if time.perf_counter() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.05)


async def all_jobs_exist(count: int) -> float:
    """Return the time at which the API server had answered the creation of the last Job, to 0.1 s.

    It comes from the operator's metrics: on a busy API server a watch, and a LIST from its cache, lag a second or more.
    """
    while await asyncio.to_thread(metric, API, 'verb="create"', 'resource="jobs"', 'code="201"') < count:
        await asyncio.sleep(0.08)
    return time.perf_counter()


def kubectl(*arguments: str) -> str:
    """Run kubectl and return its output."""
    return subprocess.run(["kubectl", *arguments], check=True, capture_output=True, text=True).stdout


@contextmanager
def no_other_operator() -> Iterator[None]:
    """Scale an installed operator to zero while the context lasts."""
    found = kubectl(
        "-n", "anomaly-system", "get", "deployment", "-l", LABEL, "-o", "jsonpath={.items[*].spec.replicas}"
    )
    if found in ("", "0"):
        yield
        return
    kubectl("-n", "anomaly-system", "scale", "deployment", "-l", LABEL, "--replicas=0")
    kubectl("-n", "anomaly-system", "wait", "--for=delete", "pod", "-l", LABEL, "--timeout=60s")
    try:
        yield
    finally:
        kubectl("-n", "anomaly-system", "scale", "deployment", "-l", LABEL, f"--replicas={found}")


@dataclass(frozen=True)
class Figures:
    """What was measured: seconds since the first posting, MiB, and writes a resource."""

    posted: float
    jobs: float
    settled: float
    cpu: float
    peak: float
    job_creations: float
    status_updates: float
    other_writes: float
    made: int


async def run(python: str, count: int) -> Figures:
    """Create a namespace, start the operator, measure, and clean up."""
    info = login(kopf.OperatorSettings())
    client = ApiClient(lambda: info)
    namespace = f"bench-{uuid.uuid4().hex[:6]}"
    await client.create(NAMESPACES, None, {"metadata": {"name": namespace}})
    operator = start_operator(python, namespace)
    try:
        await until(lambda: metric("anomaly_operator_leader") == 1)
        await asyncio.sleep(2)
        return await measure(client, operator.pid, namespace, count)
    finally:
        operator.terminate()
        operator.wait(30)
        # Waits until it is gone: the next run's operator would look after what is left in it.
        kubectl("delete", "namespace", namespace)
        await client.close()


async def post(client: ApiClient, namespace: str, number: int) -> None:
    """Create a resource; one that is there is that of an earlier attempt, whose answer was lost."""
    with suppress(Conflict):
        await client.create(EXPERIMENTS, namespace, experiment(number))


async def measure(client: ApiClient, pid: int, namespace: str, count: int) -> Figures:
    """Create the resources, and wait for their Jobs and statuses."""
    cpu = metric("process_cpu_seconds_total")
    jobs = asyncio.create_task(all_jobs_exist(count))
    await asyncio.sleep(0.5)
    began = time.perf_counter()
    await asyncio.gather(*(post(client, namespace, number) for number in range(count)))
    posted = time.perf_counter() - began
    existed = await jobs - began
    await until(lambda: metric("anomaly_operator_runs", 'phase="Suspended"') >= count, seconds=600)
    settled = time.perf_counter() - began
    await asyncio.sleep(3)
    created, updated = metric(API, 'verb="create"', "jobs"), metric(API, 'verb="update_status"')
    others = metric(API) - metric(API, "leases") - metric(API, 'verb="list"') - created - updated
    return Figures(
        posted,
        existed,
        settled,
        cpu=metric("process_cpu_seconds_total") - cpu,
        peak=memory(pid, "VmHWM"),
        job_creations=created / count,
        status_updates=updated / count,
        other_writes=others / count,
        made=sum([len(page) async for page, _ in client.list(JOBS, namespace)]),
    )


ROWS: dict[str, tuple[Callable[[Figures], float], str]] = {
    "all resources posted": (lambda found: found.posted, " s"),
    "all Jobs created": (lambda found: found.jobs, " s"),
    "from the last posting to the last Job": (lambda found: found.jobs - found.posted, " s"),
    "all statuses written": (lambda found: found.settled, " s"),
    "CPU of the operator": (lambda found: found.cpu, " s"),
    "peak memory of the operator": (lambda found: found.peak, " MiB"),
    "Jobs, of which there is one a resource": (lambda found: found.made, ""),
    "creations of Jobs a resource": (lambda found: found.job_creations, ""),
    "updates of status a resource": (lambda found: found.status_updates, ""),
    "other requests a resource": (lambda found: found.other_writes, ""),
}


def table_of(found: Mapping[int, Sequence[Figures]]) -> Table:
    """The table, with a column for each number of resources."""
    rows = [
        [name, *(Spread.of([value(one) for one in runs]).text(unit) for runs in found.values())]
        for name, (value, unit) in ROWS.items()
    ]
    columns = ["", *(f"{count:,} resources" for count in found)]
    runs = len(next(iter(found.values())))
    return Table("operator-apply", columns, rows, ("anomaly-operator", "kopf", "aiohttp"), f"{runs} runs each.")


def main() -> None:
    """Measure all numbers of resources, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--resources", type=int, nargs="+", default=[100, 300])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter of the operator: its image has less in it"
    )
    add_write(parser)
    options = parser.parse_args()
    with no_other_operator():
        found = {
            count: [asyncio.run(run(options.python, count)) for _ in range(options.runs)] for count in options.resources
        }
    publish([table_of(found)], options.write)


if __name__ == "__main__":
    main()
