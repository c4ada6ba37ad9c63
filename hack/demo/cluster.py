"""kubectl, and ports of Services forwarded to this machine.

Forwarded ports work on any cluster, so nothing here needs to know which one it is.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# An object of the Kubernetes API, as JSON.
Object = dict[str, Any]


class DemoError(Exception):
    """A failure of the demo that is printed as one message, without a traceback."""


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    """Run kubectl and return its output.

    Raises:
        DemoError: kubectl failed; the message quotes it.
    """
    result = subprocess.run(["kubectl", *arguments], input=stdin, capture_output=True, text=True, check=False)
    if result.returncode:
        raise DemoError(f"`kubectl {' '.join(arguments)}` failed:\n{result.stderr.strip()}")
    return result.stdout


def find(kind: str, name: str, namespace: str) -> Object | None:
    """Return an object of the cluster; None if there is none of that name."""
    found = kubectl("get", kind, name, f"--namespace={namespace}", "--ignore-not-found", "--output=json")
    content: Object | None = json.loads(found) if found else None
    return content


@contextmanager
def forwarded(service: str, port: int, namespace: str) -> Iterator[str]:
    """Forward a local port to a Service while the context lasts; yields host:port."""
    command = ["kubectl", "port-forward", f"--namespace={namespace}", f"service/{service}", f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield _forwarded_address(process, service)
        finally:
            process.terminate()


def _forwarded_address(process: subprocess.Popen[str], service: str) -> str:
    """Return the address that kubectl announces in its first line."""
    assert process.stdout
    assert process.stderr
    announced = re.search(r"127\.0\.0\.1:\d+", process.stdout.readline())
    if announced is None:
        raise DemoError(f"no port of service {service} could be forwarded:\n{process.stderr.read()}")
    return announced.group()
