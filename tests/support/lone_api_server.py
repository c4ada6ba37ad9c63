"""A second API server of the embedded cluster, with objects of its own: for what would disturb everything else there.

It shares the first one's etcd, under another prefix, and its certificates. No controller, scheduler or kubelet looks at
it, so a Job stays as it was created.
"""

import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from hack.cluster import settings
from hack.cluster.components import api_server
from support.kube import KubectlError, kubectl
from support.process import free_port


@contextmanager
def lone_api_server(embedded: Path, folder: Path) -> Iterator[Path]:
    """Start it, and yield the kubeconfig of an administrator.

    Args:
        embedded: kubeconfig of the embedded cluster's administrator.
        folder: for the kubeconfig and the log.
    """
    port, kubeconfig = free_port(), folder / "lone.conf"
    kubeconfig.write_text(_at_port(embedded, port))
    command = [argument for argument in api_server().command if not argument.startswith("--secure-port")]
    own = [f"--secure-port={port}", f"--etcd-prefix=/lone-{uuid.uuid4().hex[:8]}", "--bind-address=127.0.0.1"]
    with (folder / "lone.log").open("wb") as log:
        process = subprocess.Popen([*command, *own], stdout=log, stderr=log)
    try:
        _wait_until_ready(kubeconfig, folder / "lone.log")
        yield kubeconfig
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


def is_embedded(kubeconfig: str) -> bool:
    """Whether a kubeconfig is that of the embedded cluster, on this machine."""
    return Path(kubeconfig).resolve() == (settings.PKI / "admin.conf").resolve()
