"""300 suspended resources applied at once: the operator's delay behind their creation, and its resource use.

    python benchmarks/operator_apply.py [--resources 300]

Needs a Kubernetes API server (KUBECONFIG) with the CRDs; an installed operator is scaled to zero meanwhile. The
operator runs as in its image, without the `kubernetes` package. Prints one line per figure; asserts nothing.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kopf

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "crds"), str(ROOT / "search"), str(ROOT / "operator")]

from anomaly_operator.cluster.client import ApiClient  # noqa: E402
from anomaly_operator.cluster.credentials import login  # noqa: E402
from anomaly_operator.resources import EXPERIMENTS, JOBS, Resource  # noqa: E402

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


async def main() -> None:
    """Create a namespace, start the operator, measure, and clean up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--resources", type=int, default=300)
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter of the operator: its image has less in it"
    )
    arguments = parser.parse_args()
    count = arguments.resources
    info = login(kopf.OperatorSettings())
    client = ApiClient(lambda: info)
    namespace = f"bench-{uuid.uuid4().hex[:6]}"
    await client.create(NAMESPACES, None, {"metadata": {"name": namespace}})
    operator = start_operator(arguments.python, namespace)
    try:
        await until(lambda: metric("anomaly_operator_leader") == 1)
        await asyncio.sleep(2)
        await measure(client, operator.pid, namespace, count)
    finally:
        operator.terminate()
        operator.wait(30)
        await client.delete(NAMESPACES, None, namespace)
        await client.close()


async def measure(client: ApiClient, pid: int, namespace: str, count: int) -> None:
    """Create the resources, wait for their Jobs and statuses, and print the figures."""
    idle, cpu = memory(pid, "VmRSS"), metric("process_cpu_seconds_total")
    jobs = asyncio.create_task(all_jobs_exist(count))
    await asyncio.sleep(0.5)
    began = time.perf_counter()
    await asyncio.gather(*(client.create(EXPERIMENTS, namespace, experiment(number)) for number in range(count)))
    posted = time.perf_counter() - began
    existed = await jobs - began
    await until(lambda: metric("anomaly_operator_runs", 'phase="Suspended"') >= count)
    settled = time.perf_counter() - began
    await asyncio.sleep(3)
    made = sum([len(page) async for page, _ in client.list(JOBS, namespace)])
    print(f"Jobs in the namespace             {made}")
    writes = {
        "Job creations": metric(API, 'verb="create"', "jobs"),
        "status updates": metric(API, 'verb="update_status"'),
        "everything else": metric(API)
        - metric(API, "leases")
        - metric(API, 'verb="list"')
        - metric(API, 'verb="create"', "jobs")
        - metric(API, 'verb="update_status"'),
    }
    print(f"resources                         {count}")
    print(f"posting them                      {posted:.2f} s")
    print(f"all Jobs exist                    {existed:.2f} s  ({existed - posted:+.2f} s after the posting)")
    print(f"all statuses written              {settled:.2f} s")
    print(f"operator CPU                      {metric('process_cpu_seconds_total') - cpu:.2f} s")
    print(f"operator RSS idle / now / peak    {idle:.1f} / {memory(pid, 'VmRSS'):.1f} / {memory(pid, 'VmHWM'):.1f} MiB")
    for name, number in writes.items():
        print(f"{name} a resource".ljust(33), f"{number / count:.2f}")
    print("API writes a resource".ljust(33), f"{sum(writes.values()) / count:.2f}")


if __name__ == "__main__":
    with no_other_operator():
        asyncio.run(main())
