"""Further API servers of the embedded cluster, with objects of their own: for what would disturb everything else there.

Each has an etcd of its own and the certificates of the first one. No controller, scheduler or kubelet looks at a lone
one, so a Job stays as it was created. A control plane has the controllers, the scheduler, and a node that nobody runs.
"""

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from hack.cluster import settings
from hack.cluster.components import api_server, controller_manager, etcd, scheduler
from support.kube import KubectlError, kubectl
from support.kubeconfigs import cluster_of
from support.process import free_port

NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "nobody"}}


@contextmanager
def lone_api_server(embedded: Path, folder: Path) -> Iterator[Path]:
    """Start it, and yield the kubeconfig of an administrator.

    Args:
        embedded: kubeconfig of the embedded cluster's administrator.
        folder: for the kubeconfig, the database and the logs.
    """
    port, kubeconfig = free_port(), folder / "lone.conf"
    kubeconfig.write_text(_at_port(embedded, port))
    with _etcd(folder) as url:
        own = [f"--etcd-servers={url}", f"--secure-port={port}", "--bind-address=127.0.0.1"]
        with _running(_with(api_server().command, own), folder / "lone.log"):
            _wait_until_ready(kubeconfig, folder / "lone.log")
            yield kubeconfig


@contextmanager
def lone_control_plane(embedded: Path, folder: Path) -> Iterator[Path]:
    """Start an API server with controllers and a scheduler, and yield the kubeconfig of an administrator.

    Args:
        embedded: kubeconfig of the embedded cluster's administrator.
        folder: for the kubeconfigs, the database and the logs.
    """
    with lone_api_server(embedded, folder) as kubeconfig, ExitStack() as stack:
        for component in (controller_manager(), scheduler()):
            own = folder / f"{component.name}.conf"
            own.write_text(_at_port(settings.PKI / own.name, _port_of(kubeconfig)))
            flags = [f"--kubeconfig={own}", f"--secure-port={free_port()}", "--leader-elect=false"]
            # The scheduler's file names the first one's kubeconfig, and is all that it has beside defaults.
            command = [flag for flag in component.command if not flag.startswith("--config=")]
            stack.enter_context(_running(_with(command, flags), folder / f"{component.name}.log"))
        # Without any, whatever happens has the scheduler look again at each pod, and write what it finds once more.
        kubectl(f"--kubeconfig={kubeconfig}", "create", "-f", "-", stdin=json.dumps(NODE))
        yield kubeconfig


@contextmanager
def _etcd(folder: Path) -> Iterator[str]:
    """Start the database, with room for the history of many thousand objects, and yield its URL."""
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    own = [f"--data-dir={folder / 'etcd'}", "--quota-backend-bytes=8589934592"]
    own += [f"--{kind}-client-urls={client}" for kind in ("listen", "advertise")]
    own += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"]
    with _running(_with(etcd().command, own), folder / "etcd.log"):
        yield client


def _with(command: Sequence[str], own: Sequence[str]) -> list[str]:
    """Return the command with flags of its own in the place of those of the same name."""
    names = {flag.partition("=")[0] for flag in own}
    return [flag for flag in command if flag.partition("=")[0] not in names] + [*own]


@contextmanager
def _running(command: Sequence[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def _at_port(embedded: Path, port: int) -> str:
    config = yaml.safe_load(embedded.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
    return yaml.safe_dump(config)


def _wait_until_ready(kubeconfig: Path, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            kubectl(f"--kubeconfig={kubeconfig}", "get", "--raw", "/readyz", "--request-timeout=5s")
        except KubectlError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError(f"the API server does not get ready: {log.read_text()[-2000:]}")


def _port_of(kubeconfig: Path) -> int:
    found = urlsplit(cluster_of(kubeconfig)["server"]).port
    assert found is not None
    return found
