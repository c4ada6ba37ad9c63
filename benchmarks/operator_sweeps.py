"""Sweeps of many trials with pods that are played: the operator's delay behind a trial's end, and its resource use.

    python -m benchmarks.operator_sweeps [--write]
    python -m benchmarks.operator_sweeps --trials 10000 --parallel 200 --seconds 16

Needs the embedded cluster's programs and certificates: an API server and an etcd are started beside it, which no
controller looks at. Job controller and kubelet are played by a process of their own, so what is measured is the
operator and an API server, not the Job controller, which makes 17 Jobs a second at most. The operator runs as in its
image. Prints one line per figure; asserts nothing. Without ``--trials`` the three cases of the table are run in turn,
which takes some twenty minutes.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import kopf

ROOT = Path(__file__).resolve().parents[1]
PATH = [str(ROOT), *(str(ROOT / folder) for folder in ("crds", "search", "operator", "runner", "tests"))]
sys.path[:0] = PATH

from anomaly_operator.cluster.client import ApiClient  # noqa: E402
from anomaly_operator.cluster.credentials import login  # noqa: E402
from anomaly_operator.resources import EXPERIMENTS, JOBS, Resource  # noqa: E402
from benchmarks.sweeps import katib  # noqa: E402
from benchmarks.sweeps.earlier import make_ended  # noqa: E402
from benchmarks.sweeps.observer import Observer  # noqa: E402
from benchmarks.sweeps.operator_process import Operator, writes  # noqa: E402
from benchmarks.sweeps.probe import Probe  # noqa: E402
from benchmarks.sweeps.processes import Usage  # noqa: E402
from benchmarks.sweeps.report import Line, Run, print_lines, report  # noqa: E402
from benchmarks.tables import Table, add_write, publish  # noqa: E402
from support.fake_kubelet import experiment  # noqa: E402
from support.kube import kubectl  # noqa: E402
from support.lone_api_server import lone_api_server  # noqa: E402

CASES = {
    "the first 1,000 trials": "--trials 1000 --parallel 200 --seconds 33",
    "from 9,000 to 10,000": "--trials 10000 --parallel 200 --seconds 33 --before 9000",
    "100 sweeps at once": "--sweeps 100 --trials 50 --parallel 4 --seconds 50",
}
"""Columns of the table, and the options of their runs."""
NAMESPACE = "bench"
NAMESPACES = Resource("", "v1", "namespaces")
ACCOUNTS = Resource("", "v1", "serviceaccounts")


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


@contextmanager
def api_server(folder: Path) -> Iterator[Path]:
    """Start an API server with the definitions, and yield its kubeconfig, which kubectl uses meanwhile."""
    embedded = Path(os.environ["KUBECONFIG"])
    with lone_api_server(embedded, folder) as kubeconfig, patch.dict(os.environ, KUBECONFIG=str(kubeconfig)):
        kubectl("apply", "-f", str(ROOT / "manifests/base/namespace.yaml"))
        kubectl("apply", "--server-side", "-f", str(ROOT / "manifests/base/crds"))
        kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(ROOT / "manifests/base/crds"))
        yield kubeconfig


@asynccontextmanager
async def player(seconds: float) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start what plays Job controller and kubelet."""
    command = [sys.executable, "-m", "benchmarks.sweeps.player", NAMESPACE, str(seconds)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(PATH)}
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    found = argparse.ArgumentParser()
    found.add_argument("--sweeps", type=int, default=1)
    found.add_argument("--trials", type=int, help="of each sweep; without it, the cases of the table are run")
    found.add_argument("--parallel", type=int, default=50, help="of each sweep")
    found.add_argument("--before", type=int, default=0, help="of each sweep's trials are over when the operator starts")
    found.add_argument("--seconds", type=float, default=10.0, help="mean time of a trial's pod")
    found.add_argument("--algorithm", default="random")
    found.add_argument("--limit", type=float, default=3600.0, help="seconds after which it is looked at what there is")
    found.add_argument("--times", type=Path, help="file for all times, as JSON")
    found.add_argument("--restart", action="store_true", help="start the operator again over the finished sweeps")
    add_write(found)
    return found


def main() -> None:
    """Run the case that is asked for, or those of the table."""
    arguments = parser().parse_args()
    if arguments.trials is not None and arguments.write:
        raise SystemExit("--write is for the cases of the table: leave out either it or --trials")
    if arguments.trials is not None:
        asyncio.run(measured(arguments))
        return
    found = {name: dict(asyncio.run(measured(parser().parse_args(case.split())))) for name, case in CASES.items()}
    publish([table(found)], arguments.write)


def table(found: dict[str, dict[str, str]]) -> Table:
    """Return the table of several cases: a row for whatever was measured in one of them."""
    labels = dict.fromkeys(label for figures in found.values() for label in figures)
    rows = [[label.strip(), *(figures.get(label, "-") for figures in found.values())] for label in labels]
    options = "; ".join(f"{name}: `{case}`" for name, case in CASES.items())
    return Table("operator-sweeps", ("", *found), rows, ("anomaly-operator", "optuna", "kopf"), f"Options: {options}.")


async def measured(arguments: argparse.Namespace) -> list[Line]:
    """Start everything, measure, print, clean up, and return the figures."""
    with tempfile.TemporaryDirectory() as name, api_server(Path(name)) as kubeconfig:
        info = login(kopf.OperatorSettings())
        client = ApiClient(lambda: info)
        operator = Operator(kubeconfig, Path(name))
        await client.create(NAMESPACES, None, {"metadata": {"name": NAMESPACE}})
        # Which a controller makes elsewhere, and no pod is without.
        await client.create(ACCOUNTS, NAMESPACE, {"metadata": {"name": "default"}})
        await create_sweeps(client, arguments)
        operator.start()
        try:
            await operator.wait_until_leading()
            async with player(arguments.seconds) as process:
                lines = await measure(client, info, operator, process, arguments)
            if arguments.restart:
                await restart(operator)
        finally:
            operator.stop()
            await client.close()
    return lines


def names_of(arguments: argparse.Namespace) -> list[str]:
    """Return the names of all sweeps."""
    return [f"sweep{number:03}" for number in range(arguments.sweeps)]


async def create_sweeps(client: ApiClient, arguments: argparse.Namespace) -> None:
    """Apply the sweeps, with the trials that are behind them."""
    manifests = (sweep(name, arguments) for name in names_of(arguments))
    made = await asyncio.gather(*(client.create(EXPERIMENTS, NAMESPACE, manifest) for manifest in manifests))
    for one in made if arguments.before else ():
        await make_ended(client, one, arguments.before)


async def measure(
    client: ApiClient,
    info: kopf.ConnectionInfo,
    operator: Operator,
    played: asyncio.subprocess.Process,
    arguments: argparse.Namespace,
) -> list[Line]:
    """Wait for the sweeps' end, and print and return the figures."""
    probe_client = ApiClient(lambda: info, connections=1)
    observer, probe = Observer(operator, arguments.before), Probe(probe_client, NAMESPACE)
    assert played.stdout
    watched = [observer.watch(info, EXPERIMENTS, NAMESPACE), observer.watch(info, JOBS, NAMESPACE)]
    work = [*watched, observer.follow(played.stdout), observer.sample(), probe.run()]
    helpers = [asyncio.create_task(one) for one in work]
    pids = {"player": played.pid} | operator.processes()
    usage = Usage(pids)
    began = time.monotonic()
    total = arguments.sweeps * (arguments.trials - arguments.before)
    await until_ended(observer, helpers, total, began + arguments.limit)
    took = time.monotonic() - began
    usage.stop(operator.processes())
    found = [await over(client, name, began + arguments.limit) for name in names_of(arguments)]
    if arguments.times:
        sweeps = {name: asdict(times) for name, times in observer.times.items()}
        arguments.times.write_text(json.dumps({"sweeps": sweeps, "probe": probe.chains}))
    written = writes(await operator.metrics())
    run = Run(
        arguments=arguments,
        observer=observer,
        probe=probe,
        usage=usage,
        took=took,
        written=written,
        sweeps=found,
    )
    lines = list(report(run))
    print_lines(lines)
    katib.print_counts(arguments.trials, found[0]["status"]["sweep"]["best"][0]["values"])
    for task in helpers:
        task.cancel()
    await asyncio.gather(*helpers, return_exceptions=True)
    await probe_client.close()
    return lines


async def until_ended(observer: Observer, helpers: list["asyncio.Task[None]"], total: int, limit: float) -> None:
    """Wait until so many trials have ended, or for the limit; a failure of what observes them ends it."""
    while observer.ended < total and time.monotonic() < limit:
        await asyncio.sleep(1)
        if sys.stderr.isatty():
            print(f"\r{observer.ended} of {total} trials have ended", end="", file=sys.stderr, flush=True)
        for task in helpers:
            if task.done():
                raise RuntimeError("what observes the trials ended") from task.exception()


async def over(client: ApiClient, name: str, limit: float) -> dict[str, Any]:
    """Wait until a sweep is over, or for the limit, and return its object."""
    while True:
        found = await client.get(EXPERIMENTS, NAMESPACE, name)
        if time.monotonic() > limit or found.get("status", {}).get("phase") in ("Complete", "Failed"):
            return found
        await asyncio.sleep(1)


async def restart(operator: Operator) -> None:
    """Start the operator again over what is finished, and print what it writes in 20 seconds of leading."""
    operator.stop()
    operator.start()
    await operator.wait_until_leading()
    await asyncio.sleep(20)
    count = sum(writes(await operator.metrics()).values())
    print("writes after a restart".ljust(34), f"{count:.0f}")


if __name__ == "__main__":
    main()
