"""A real API server: that of KUBECONFIG or, where it is the embedded cluster, a control plane of its own beside it, so
that no test of the installed operator notices. Without a cluster, these are skipped, and fail under `make test`.

The operator runs as a separate process, under its ServiceAccount, with only the rights of manifests/base. Nothing runs
in its pods: tests act as the kubelet by writing pod statuses, so that they decide what a pod reports and when.
"""

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import pytest

from support.absent import absent
from support.kube import KubectlError, Namespace, kubectl
from support.kubeconfigs import is_embedded
from support.lone_api_server import lone_control_plane
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
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """KUBECONFIG of a Kubernetes with the CRDs, in which no operator runs that is installed there."""
    kubeconfig = _kubeconfig()
    if kubeconfig is None or not Path(kubeconfig).exists():
        absent("no Kubernetes: set KUBECONFIG or run hack/cluster/cluster up")
    try:
        kubectl(f"--kubeconfig={kubeconfig}", "get", "--raw", "/readyz", "--request-timeout=20s")
    except KubectlError as error:
        absent(f"the Kubernetes of {kubeconfig} does not answer: {error}")
    given = Path(kubeconfig)
    own = lone_control_plane(given, tmp_path_factory.mktemp("plane")) if is_embedded(kubeconfig) else nullcontext(given)
    with own as found, _without_operator(partial(kubectl, f"--kubeconfig={found}")):
        yield found


@contextmanager
def _without_operator(kube: Callable[..., str]) -> Iterator[None]:
    """Apply the CRDs, and have no installed operator run."""
    kube("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    for crd in ("anomalyexperiments", "anomalyinferences"):
        kube("wait", "--for=condition=Established", f"crd/{crd}.anomalyops.io", "--timeout=30s")
    selector = "app.kubernetes.io/name=anomaly-operator"
    found = json.loads(kube("get", "deployments", "-A", "-o", "json", "-l", selector))["items"]
    replicas = int(found[0]["spec"]["replicas"]) if found else 0
    if replicas:
        kube("-n", SYSTEM, "scale", "deployment/anomaly-operator", "--replicas=0")
        kube("-n", SYSTEM, "wait", "--for=delete", "pod", "-l", selector, "--timeout=60s")
    yield
    if replicas:
        kube("-n", SYSTEM, "scale", "deployment/anomaly-operator", f"--replicas={replicas}")


@pytest.fixture(scope="module")
def cluster(control_plane: Path) -> Iterator[str]:
    """KUBECONFIG of a cluster with the CRDs, in which no other operator runs; kubectl talks to it, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(control_plane))
        yield str(control_plane)


@pytest.fixture(scope="module")
def account(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """KUBECONFIG of the operator's ServiceAccount, with the rights of manifests/base."""
    kubectl("apply", "-f", str(ROOT / "manifests/base/namespace.yaml"))
    kubectl("apply", "-n", SYSTEM, "-f", str(ROOT / "manifests/base/rbac.yaml"))
    return service_account_kubeconfig(SYSTEM, "anomaly-operator", tmp_path_factory.mktemp("account") / "kubeconfig")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests with an operator of their own last in each module: the shared one holds the Lease until then."""
    places = {module: place for place, module in enumerate(dict.fromkeys(_module(item) for item in items))}
    items.sort(key=lambda item: (places[_module(item)], item.get_closest_marker("own_operator") is not None))


def _module(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _shares(item: pytest.Item) -> bool:
    """Whether a test uses the operator that its module shares."""
    return "operator" in getattr(item, "fixturenames", ()) and item.get_closest_marker("own_operator") is None


class SharedOperator:
    """One operator for most tests of a module, as its start takes seconds; each test has a namespace of its own.

    Args:
        account: KUBECONFIG of the operator's ServiceAccount.
        log: file of its log.
        tests: how many tests may use it.
    """

    def __init__(self, account: Path, log: Path, tests: int) -> None:
        self._names = [f"test-{uuid.uuid4().hex[:8]}" for _ in range(tests)]
        self._operator = OperatorProcess(account, ",".join(self._names), log, "--lease-seconds=120")
        self._runs = False

    def take_name(self) -> str:
        """Return the name of a namespace that it watches, and that no test had."""
        return self._names.pop()

    def started(self) -> OperatorProcess:
        """Return the operator; the first call starts it."""
        if not self._runs:
            self._operator.start()
        self._runs = True
        return self._operator

    def stop(self) -> None:
        """Stop it for good."""
        if self._runs:
            self._operator.stop()
            self._operator.forget_lease()
        self._runs = False


@pytest.fixture(scope="module")
def shared(
    request: pytest.FixtureRequest, account: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedOperator]:
    """The operator that the tests of this module share."""
    here = (item for item in request.session.items if item.path == request.path)
    tests = sum(_shares(item) for item in here)
    operator = SharedOperator(account, tmp_path_factory.mktemp("shared") / "operator.log", tests)
    yield operator
    operator.stop()


@pytest.fixture
def namespace(cluster: str, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A new namespace for the test."""
    shares = _shares(request.node)
    name = request.getfixturevalue("shared").take_name() if shares else f"test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    kubectl("create", "-f", "-", stdin=json.dumps(made))
    yield Namespace(name)
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def operator(
    account: Path, namespace: Namespace, shared: SharedOperator, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[OperatorProcess]:
    """An operator for the test's namespace: that of the module, or, where a test is marked so, one of its own.

    Its Lease is long, so that it survives a busy machine.
    """
    if _shares(request.node):
        yield shared.started()
        return
    shared.stop()
    process = OperatorProcess(account, namespace.name, tmp_path / "operator.log", "--lease-seconds=120")
    process.start()
    yield process
    process.stop()
    process.forget_lease()
