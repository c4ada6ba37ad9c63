"""Which credentials are used, and what cannot be read."""

from pathlib import Path

import kopf
import pytest

from anomaly_operator.cluster.credentials import login
from anomaly_operator.errors import LoginError

SETTINGS = kopf.OperatorSettings()
KUBECONFIG = """
current-context: here
contexts: [{name: here, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://elsewhere:6443"}}]
users: [{name: u, user: {token: t}}]
"""
IN_CLUSTER = kopf.ConnectionInfo(server="https://kubernetes.default.svc", token="of-the-pod", ca_path="/ca.crt")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any credentials."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(kopf, "login_with_service_account", lambda **_: None)
    return tmp_path


def configure(monkeypatch: pytest.MonkeyPatch, home: Path, content: str = KUBECONFIG) -> None:
    file = home / "kubeconfig.yaml"
    file.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(file))


def in_cluster(monkeypatch: pytest.MonkeyPatch, **environment: str) -> None:
    def found(*, settings: kopf.OperatorSettings) -> kopf.ConnectionInfo:
        assert settings is SETTINGS
        return IN_CLUSTER

    monkeypatch.setattr(kopf, "login_with_service_account", found)
    for name, value in environment.items():
        monkeypatch.setenv(f"KUBERNETES_SERVICE_{name}", value)


@pytest.mark.parametrize(
    ("environment", "server"),
    [
        ({"HOST": "10.96.0.1", "PORT": "6443"}, "https://10.96.0.1:6443"),
        ({"HOST": "fd00::1"}, "https://[fd00::1]:443"),
        ({}, "https://kubernetes.default.svc"),
    ],
)
def test_in_a_cluster_it_is_the_service_account_by_its_servers_address(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], server: str
) -> None:
    in_cluster(monkeypatch, **environment)
    found = login(SETTINGS)
    assert (found.server, found.token, found.ca_path) == (server, "of-the-pod", "/ca.crt")


def test_a_kubeconfig_that_is_named_wins(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    in_cluster(monkeypatch, HOST="10.96.0.1")
    configure(monkeypatch, home)
    assert (login(SETTINGS).server, login(SETTINGS).token) == ("https://elsewhere:6443", "t")


def test_outside_of_a_cluster_alone_it_is_the_users_kubeconfig(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    (home / ".kube").mkdir()
    (home / ".kube" / "config").write_text(KUBECONFIG)
    assert login(SETTINGS).server == "https://elsewhere:6443"
    in_cluster(monkeypatch, HOST="10.96.0.1")
    assert login(SETTINGS).server == "https://10.96.0.1:443"


def test_without_any_it_is_said_what_to_set() -> None:
    with pytest.raises(LoginError, match=r"set KUBECONFIG$"):
        login(SETTINGS)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("contexts: [", "ParserError"),
        ("contexts: []", "Current context is not set"),
        ("current-context: gone", "gone"),
        ("current-context: here\ncontexts: [{name: here, context: {cluster: c, user: u}}]", "'c'"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_no_defect(
    monkeypatch: pytest.MonkeyPatch, home: Path, content: str, why: str
) -> None:
    """It may be written at this moment: whoever waits for credentials waits on."""
    configure(monkeypatch, home, content)
    with pytest.raises(LoginError, match=f"the credentials cannot be read: .*{why}"):
        login(SETTINGS)


def test_a_kubeconfig_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(home / "missing.yaml"))
    with pytest.raises(LoginError, match=r"missing\.yaml"):
        login(SETTINGS)
