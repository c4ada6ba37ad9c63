"""The operator as in its image, without the packages that are not in there, and what it says of itself."""

import asyncio
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import aiohttp

from benchmarks.sweeps.processes import children, peak
from support.process import free_port

ROOT = Path(__file__).resolve().parents[2]
NOT_IN_THE_IMAGE = ("kubernetes", "sklearn", "pandas", "torch", "matplotlib", "plotly")
REQUESTS = re.compile(r'anomaly_operator_api_requests_total\{code="(\w+)",resource="(\w+)",verb="(\w+)"\} ([\d.e+]+)')
WRITES = frozenset({"create", "patch", "update", "update_status", "delete"})


class Operator:
    """The operator's process.

    Args:
        kubeconfig: of the API server.
        folder: for what stands in for the absent packages.
    """

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
        others = children(own)
        return {"operator": own} | ({"search": max(others, key=peak)} if others else {})


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
