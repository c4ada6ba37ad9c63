"""The embedded cluster's `up`: starting etcd, replacing a damaged store, and keeping a store without fault."""

from pathlib import Path

import pytest

from hack.cluster import components, config, lifecycle, network, pki, processes, settings, store, toolchain
from hack.cluster.shell import ClusterError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of a cluster that does not exist."""
    monkeypatch.setattr(settings, "RUN", tmp_path)
    monkeypatch.setattr(settings, "LOGS", tmp_path / "log")
    monkeypatch.setattr(settings, "ETCD", "http://127.0.0.1:1")
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        '{"level":"fatal","msg":"discovery failed","error":"write wal/0.tmp: no space left on device"}',
        "panic: open etcd/member/snap/db: permission denied",
        "fatal error: runtime: out of memory",
        '{"level":"warn","msg":"simple token is not cryptographically signed"}',
        "",
    ],
)
def test_faults_of_the_machine_are_not_blamed_on_the_store(home: Path, line: str) -> None:
    settings.LOGS.mkdir()
    components.etcd().log.write_text(f"starting\n{line}\n")
    with pytest.raises(ClusterError, match="etcd died") as caught:
        store.ensure_usable()
    assert not isinstance(caught.value, store.DamagedError)


@pytest.mark.parametrize("content", ["", "\0" * 70, "not-a-number abc", "1"])
def test_a_pid_file_that_a_dying_machine_left(home: Path, content: str) -> None:
    components.etcd().pid_file.write_text(content)
    assert not processes.is_running(components.etcd())
    assert not processes.is_current(components.etcd())
    processes.stop(components.etcd())
    assert not components.etcd().pid_file.exists()


@pytest.fixture
def calls(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that `up` makes; every process and command is replaced by a record of its call."""
    made: list[str] = []

    def note(module: object, name: str, result: object = None) -> None:
        def replacement(*arguments: object, **_: object) -> object:
            made.append(" ".join([name, *(getattr(argument, "name", "") for argument in arguments)]).strip())
            return result

        monkeypatch.setattr(module, name, replacement)

    for module in (toolchain, pki, config, network):
        monkeypatch.setattr(module, "ensure", lambda: None)
    for name in ("_start_runtime", "_start_node", "down", "_stop_pods"):
        note(lifecycle, name)
    for name in ("ensure_running", "stop"):
        note(processes, name)
    monkeypatch.setattr(lifecycle, "wait_until", lambda *_, **__: None)
    monkeypatch.setattr(processes, "is_current", lambda _: False)
    note(store, "ensure_usable")
    return made


def test_readers_of_etcd_stop_before_it_starts(calls: list[str]) -> None:
    lifecycle.up()
    readers = ["coredns", "kube-proxy", "kubelet", "kube-scheduler", "kube-controller-manager", "kube-apiserver"]
    assert calls == [
        "_start_runtime",
        "_stop_pods",
        *(f"stop {name}" for name in readers),
        "ensure_running etcd",
        "ensure_usable",
        *(f"ensure_running {name}" for name in reversed(readers[-3:])),
        "_start_node",
    ]


def test_an_etcd_that_runs_leaves_its_readers_running(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "is_current", lambda _: True)
    lifecycle.up()
    assert not [call for call in calls if "stop" in call or "etcd" in call]
    assert "ensure_usable" in calls


def test_a_damaged_store_is_replaced_once(
    calls: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problems: list[Exception | None] = [store.DamagedError("etcd crashed: fatal error: fault"), None]

    def ensure_usable() -> None:
        calls.append("ensure_usable")
        if problem := problems.pop(0):
            raise problem

    monkeypatch.setattr(store, "ensure_usable", ensure_usable)
    lifecycle.up()
    assert [call for call in calls if call in ("ensure_usable", "down", "_start_node")] == [
        "ensure_usable",
        "down",
        "ensure_usable",
        "_start_node",
    ]
    output = capsys.readouterr().err
    assert "STORE IS DAMAGED" in output
    assert "fatal error: fault" in output
    problems += [store.DamagedError("first"), store.DamagedError("second")]
    with pytest.raises(ClusterError, match="second"):
        lifecycle.up()


def test_a_store_without_fault_is_kept(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def port_in_use() -> None:
        raise ClusterError("etcd died: address already in use")

    monkeypatch.setattr(store, "ensure_usable", port_in_use)
    with pytest.raises(ClusterError, match="in use"):
        lifecycle.up()
    assert "down" not in calls
