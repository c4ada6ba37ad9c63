"""The embedded cluster after its etcd lost writes, or its store was damaged.

Deletes everything in the cluster, so it runs only on request:
`pytest tests/e2e/test_lost_store.py --lose-cluster`. No second cluster can take its place: addresses,
firewall rules and the pods' cgroups are the machine's.
"""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hack.cluster import components, settings
from hack.demo.cluster import kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
COMMAND = settings.SOURCE / "cluster"
# Resolves the name of a Service and connects to it: this succeeds only if DNS and kube-proxy work.
REACH_API = "import socket; socket.create_connection(('kubernetes.default.svc.cluster.local', 443), 10)"


@pytest.fixture(autouse=True)
def require_flag(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip unless the flag is given; otherwise bring the embedded cluster up."""
    if not request.config.getoption("--lose-cluster"):
        pytest.skip("deletes the embedded cluster's objects: --lose-cluster")
    monkeypatch.setenv("KUBECONFIG", str(settings.KUBECONFIG))
    monkeypatch.setenv("PATH", f"{settings.BIN}:{os.environ['PATH']}")
    up()


def up() -> str:
    """Run `cluster up`, and return its messages."""
    done = subprocess.run([COMMAND, "up"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def pods(**containers: object) -> dict[str, Any]:
    """Return the spec of a pod that starts and ends fast; ``containers`` are fields of its container."""
    container = {"name": "only", "image": settings.BASE_IMAGE, **containers}
    return {"terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False, "containers": [container]}


def create_deployment(name: str) -> None:
    """Create a Deployment of one pod, and wait until it is rolled out."""
    labels = {"app": name}
    spec = pods(image=settings.PAUSE_IMAGE)
    template = {"metadata": {"labels": labels}, "spec": spec}
    deployment = {"selector": {"matchLabels": labels}, "template": template}
    create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": deployment})
    kubectl("rollout", "status", f"deployment/{name}", "--timeout=120s")


def create(found: dict[str, Any]) -> None:
    """Create an object in the namespace default."""
    kubectl("create", "--filename=-", stdin=json.dumps(found))


def kill(name: str) -> None:
    """Kill a component with SIGKILL."""
    found = next(component for component in components.all_components() if component.name == name)
    os.kill(int(found.pid_file.read_text().split()[0]), signal.SIGKILL)


def assert_works(name: str) -> None:
    """Check that a Job's pod completes, and is deleted together with the Job."""
    spec = {"restartPolicy": "Never", **pods(command=["python3", "-c", REACH_API])}
    create(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name},
            "spec": {"backoffLimit": 0, "template": {"spec": spec}},
        }
    )
    kubectl("wait", "--for=condition=Complete", f"job/{name}", "--timeout=120s")
    kubectl("delete", "job", name, "--cascade=background")
    kubectl("wait", "--for=delete", "pod", f"--selector=batch.kubernetes.io/job-name={name}", "--timeout=120s")


def deployments() -> set[str]:
    """Return the names of the Deployments in the namespace default."""
    return set(kubectl("get", "deployments", "--output=jsonpath={.items[*].metadata.name}").split())


@pytest.mark.parametrize("killed", [["etcd"], [component.name for component in components.all_components()]])
def test_lost_writes(killed: list[str], tmp_path: Path) -> None:
    kubectl("delete", "deployment", "--all", "--wait")
    create_deployment("early")
    before = shutil.copytree(settings.STORE, tmp_path / "before")
    create_deployment("late")
    for name in killed:
        kill(name)
    shutil.rmtree(settings.STORE)
    shutil.copytree(before, settings.STORE)
    assert "DAMAGED" not in up()
    assert_works("after-loss")
    assert deployments() == {"early"}
    kubectl("rollout", "status", "deployment/early", "--timeout=120s")
    kubectl("wait", "--for=delete", "pod", "--selector=app=late", "--timeout=120s")
    kubectl("delete", "deployment", "early", "--cascade=background")
    kubectl("wait", "--for=delete", "pod", "--selector=app=early", "--timeout=120s")


def test_a_damaged_store() -> None:
    create_deployment("lost")
    kill("etcd")
    os.truncate(settings.STORE / "member/snap/db", 100_000)
    assert "STORE IS DAMAGED" in up()
    assert_works("after-damage")
    assert deployments() == set()
    assert "DAMAGED" not in up()
