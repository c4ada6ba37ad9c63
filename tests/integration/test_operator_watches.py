"""What the operator watches comes, goes and comes back: definitions of its resources, and namespaces.

It runs against an API server of its own: in the shared one, a deleted definition would take everybody's runs along.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.fake_kubelet import experiment
from support.kube import Namespace, kubectl
from support.kubeconfigs import is_embedded
from support.lone_api_server import lone_api_server
from support.process import ROOT, OperatorProcess, service_account_kubeconfig

pytestmark = pytest.mark.cluster

CRDS = str(ROOT / "manifests/base/crds")
SECONDS = 60
"""Time for the operator to notice: it looks every two seconds, and a process takes some to start on a busy machine."""


@pytest.fixture(scope="module")
def alone(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """KUBECONFIG of an API server that nobody else uses; kubectl talks to it, too."""
    if not is_embedded(cluster):
        pytest.skip("only an API server of the embedded cluster can be started another time")
    with (
        lone_api_server(Path(cluster), tmp_path_factory.mktemp("lone")) as kubeconfig,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("KUBECONFIG", str(kubeconfig))
        kubectl("apply", "-f", str(ROOT / "manifests/base/namespace.yaml"))
        kubectl("apply", "-n", "anomaly-system", "-f", str(ROOT / "manifests/base/rbac.yaml"))
        yield kubeconfig


class Supervised:
    """An operator that is started anew whenever it ends, as the kubelet does."""

    def __init__(self, process: OperatorProcess) -> None:
        self.process = process
        process.start(wait=False)

    def wait_until(self, reached: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not reached():
            assert time.monotonic() < deadline, f"never {what}; its log:\n{self.process.log.read_text()[-4000:]}"
            if self.process.ended:
                self.process.start(wait=False)
            time.sleep(0.2)


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[[Path, str], Supervised]]:
    """Starts operators, given a kubeconfig and namespaces, and ends them after the test."""
    started: list[OperatorProcess] = []

    def start(kubeconfig: Path, namespaces: str) -> Supervised:
        started.append(OperatorProcess(kubeconfig, namespaces, tmp_path / "operator.log", "--lease-seconds=120"))
        return Supervised(started[-1])

    yield start
    for process in started:
        process.stop()
        process.forget_lease()


def install_crds() -> None:
    kubectl("apply", "--server-side", "-f", CRDS)


def remove_crds() -> None:
    kubectl("delete", "-f", CRDS, "--ignore-not-found", "--timeout=60s")


def has_job(namespace: Namespace, name: str) -> bool:
    return any(job["metadata"]["name"].startswith(name) for job in namespace.list("jobs"))


@pytest.fixture
def place(alone: Path) -> Namespace:
    """A namespace of the API server of this module."""
    name = f"watched-{time.monotonic_ns()}"
    kubectl("create", "namespace", name)
    return Namespace(name)


def test_definitions_may_be_installed_after_the_operator_and_again(
    alone: Path, place: Namespace, supervise: Callable[[Path, str], Supervised]
) -> None:
    remove_crds()
    operator = supervise(alone, place.name)
    operator.wait_until(lambda: operator.process.get("/healthz"), "healthy")
    assert operator.process.get("/readyz") is None, "it watches nothing yet"
    for name in ("first", "second"):
        install_crds()
        operator.wait_until(lambda: operator.process.get("/readyz"), "ready")
        place.apply(experiment(name))
        operator.wait_until(lambda name=name: has_job(place, name), f"a Job of {name}")  # type: ignore[misc]
        remove_crds()
        operator.wait_until(lambda: operator.process.get("/readyz") is None, "not ready")


def test_a_namespace_that_may_not_be_read_stops_no_other(
    alone: Path, place: Namespace, supervise: Callable[[Path, str], Supervised], tmp_path: Path
) -> None:
    install_crds()
    kubectl("create", "namespace", forbidden := f"{place.name}-forbidden")
    kubectl("delete", "clusterrolebinding", "anomaly-operator", "--ignore-not-found")
    account = service_account_kubeconfig("anomaly-system", "anomaly-operator", tmp_path / "account")
    allow(place.name)
    operator = supervise(account, f"{forbidden},{place.name}")
    operator.wait_until(lambda: operator.process.get("/readyz"), "ready")
    place.apply(experiment("here"))
    operator.wait_until(lambda: has_job(place, "here"), "a Job in the namespace that may be read")
    assert "namespace skipped" in operator.process.log.read_text()
    allow(forbidden)
    there = Namespace(forbidden)
    there.apply(experiment("there"))
    operator.wait_until(lambda: has_job(there, "there"), "a Job in the namespace that may be read again")


def allow(namespace: str) -> None:
    """Grant the operator its rights in a namespace."""
    binding = ("--clusterrole=anomaly-operator", "--serviceaccount=anomaly-system:anomaly-operator")
    kubectl("-n", namespace, "create", "rolebinding", "anomaly-operator", *binding)
