"""The operator as a process of the tests, under its ServiceAccount."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from support.kube import kubectl

ROOT = Path(__file__).parents[2]
GRACE_SECONDS = 30
"""Time that the operator has to end, as a pod has."""


def service_account_kubeconfig(namespace: str, account: str, path: Path) -> Path:
    """Write a kubeconfig with a token of the account, and return its path."""
    admin = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    token = kubectl("-n", namespace, "create", "token", account, "--duration=2h").strip()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "clusters": [{"name": "it", "cluster": admin["clusters"][0]["cluster"]}],
        "users": [{"name": "it", "user": {"token": token}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    }
    path.write_text(json.dumps(config))
    return path


def free_port() -> int:
    """Return a free port on loopback."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class OperatorProcess:
    """``python -m anomaly_operator``."""

    def __init__(self, kubeconfig: Path, namespaces: str, log: Path, *flags: str) -> None:
        self._kubeconfig = kubeconfig
        self._namespaces = namespaces
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None
        self.log = log
        self.port = 0
        self.url = ""

    def start(self, *, wait: bool = True) -> None:
        """Start the operator and, unless ``wait`` is false, wait until its cache is filled."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = os.environ | {
            "KUBECONFIG": str(self._kubeconfig),
            "PYTHONPATH": f"{ROOT}/crds:{ROOT}/search:{ROOT}/operator",
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "anomaly_operator",
                    "--bind=127.0.0.1",
                    f"--port={self.port}",
                    f"--watch-namespaces={self._namespaces}",
                    "--lease-namespace=anomaly-system",
                    *self._flags,
                ],
                env=environment,
                stdout=log,
                stderr=log,
            )
        if wait:
            self.wait_until(lambda: self.get("/readyz") is not None, "ready")

    @property
    def pid(self) -> int:
        """PID of the process."""
        assert self._process
        return self._process.pid

    @property
    def leads(self) -> bool:
        """Whether the operator is the leader."""
        return self.metric("anomaly_operator_leader") == 1

    def stop(self) -> None:
        """End the operator with SIGTERM, as the kubelet does."""
        self._end(signal.SIGTERM)

    @property
    def ended(self) -> bool:
        """Whether the process has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def kill(self) -> None:
        """End the operator with SIGKILL."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(how)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def get(self, path: str) -> str | None:
        """Return the operator's response; None if it does not answer, or with an error."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=2) as answer:
                text: str = answer.read().decode()
                return text
        except (urllib.error.URLError, OSError):
            return None

    def metric(self, name: str) -> float:
        """Return the sum of a metric over all its labels."""
        lines = (self.get("/metrics") or "").splitlines()
        values = [line.rsplit(" ", 1) for line in lines if line.startswith((name + " ", name + "{"))]
        return sum(float(value) for _, value in values)

    def writes(self, *of: str) -> float:
        """Return the number of writing requests, without those of the Lease and token reviews.

        Args:
            of: labels that they have, such as ``verb="delete"``.
        """
        lines = (self.get("/metrics") or "").splitlines()
        counted = [
            line
            for line in lines
            if line.startswith("anomaly_operator_api_requests_total{")
            and "leases" not in line
            and "tokenreviews" not in line
            and 'verb="list"' not in line
            and 'verb="get"' not in line
            and all(label in line for label in of)
        ]
        return sum(float(line.rsplit(" ", 1)[1]) for line in counted)

    def wait_until(self, reached: Callable[[], object], what: str, seconds: float = 60) -> None:
        """Poll until the condition is reached; fail with the operator's log otherwise."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if reached():
                return
            assert self._process is None or self._process.poll() is None, f"the operator ended: {self.log.read_text()}"
            time.sleep(0.05)
        raise AssertionError(f"never {what}; its log:\n{self.log.read_text()[-4000:]}")

    @staticmethod
    def forget_lease() -> None:
        """Delete the Lease, so that the next test's operator need not wait for that of a killed one."""
        kubectl("-n", "anomaly-system", "delete", "lease", "anomaly-operator", "--ignore-not-found")
