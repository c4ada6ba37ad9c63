"""A real API server: the one of KUBECONFIG, else the embedded cluster's. Without one, these tests are skipped,
and fail under `make test`.

The operator runs as a separate process, under its ServiceAccount, with only the rights of manifests/base. Nothing runs
in its pods: tests act as the kubelet by writing pod statuses, so that they decide what a pod reports and when.
"""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.absent import absent
from support.kube import KubectlError, Namespace, kubectl
from support.process import OperatorProcess, service_account_kubeconfig

ROOT = Path(__file__).parents[2]
SYSTEM = "anomaly-system"


def _kubeconfig() -> str | None:
    if given := os.environ.get("KUBECONFIG"):
        return given
    found = subprocess.run([ROOT / "hack/cluster/cluster", "env"], capture_output=True, text=True, check=False)
    for line in found.stdout.splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        if name == "KUBECONFIG":
            return value.split()[0].strip("'\"")
    return None


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """KUBECONFIG of a cluster with the CRDs, in which no other operator runs."""
    kubeconfig = _kubeconfig()
    if kubeconfig is None or not Path(kubeconfig).exists():
        absent("no Kubernetes: set KUBECONFIG or run hack/cluster/cluster up")
    os.environ["KUBECONFIG"] = kubeconfig
    try:
        kubectl("get", "--raw", "/readyz", "--request-timeout=20s")
    except KubectlError as error:
        absent(f"the Kubernetes of {kubeconfig} does not answer: {error}")
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    for crd in ("anomalyexperiments", "anomalyinferences"):
        kubectl("wait", "--for=condition=Established", f"crd/{crd}.anomalyops.io", "--timeout=30s")
    replicas = _installed_replicas()
    if replicas:
        kubectl("-n", SYSTEM, "scale", "deployment/anomaly-operator", "--replicas=0")
        kubectl(
            "-n",
            SYSTEM,
            "wait",
            "--for=delete",
            "pod",
            "-l",
            "app.kubernetes.io/name=anomaly-operator",
            "--timeout=60s",
        )
    yield kubeconfig
    if replicas:
        kubectl("-n", SYSTEM, "scale", "deployment/anomaly-operator", f"--replicas={replicas}")


def _installed_replicas() -> int:
    found = json.loads(
        kubectl("get", "deployments", "-A", "-o", "json", "-l", "app.kubernetes.io/name=anomaly-operator")
    )["items"]
    return int(found[0]["spec"]["replicas"]) if found else 0


@pytest.fixture(scope="session")
def account(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """KUBECONFIG of the operator's ServiceAccount, with the rights of manifests/base."""
    kubectl("apply", "-f", str(ROOT / "manifests/base/namespace.yaml"))
    kubectl("apply", "-n", SYSTEM, "-f", str(ROOT / "manifests/base/rbac.yaml"))
    return service_account_kubeconfig(SYSTEM, "anomaly-operator", tmp_path_factory.mktemp("account") / "kubeconfig")


@pytest.fixture
def namespace(cluster: str) -> Iterator[Namespace]:
    """A new namespace for the test."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield Namespace(name)
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def operator(account: Path, namespace: Namespace, tmp_path: Path) -> Iterator[OperatorProcess]:
    """A single operator for the test's namespace; its Lease is long, so that it survives a busy machine."""
    process = OperatorProcess(account, namespace.name, tmp_path / "operator.log", "--lease-seconds=120")
    process.start()
    yield process
    process.stop()
    process.forget_lease()
