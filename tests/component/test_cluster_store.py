"""A real etcd beside the cluster's after losses: what it can still work with, and what it cannot."""

import base64
import json
import os
import shutil
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hack.cluster import components, processes, settings, store
from hack.cluster.shell import ClusterError
from support.absent import needs
from support.process import free_port

PROGRAMS = settings.BIN
# Components outlive the process that starts them.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
needs_etcd = needs((PROGRAMS / "etcd").exists(), "needs etcd (hack/cluster builds it)")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders and addresses of a cluster that is not there."""
    monkeypatch.setattr(settings, "RUN", tmp_path)
    monkeypatch.setattr(settings, "LOGS", tmp_path / "log")
    monkeypatch.setattr(settings, "STORE", tmp_path / "etcd")
    monkeypatch.setattr(settings, "ETCD", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(settings, "ETCD_PEER", f"http://127.0.0.1:{free_port()}")
    return tmp_path


class Etcd:
    """The etcd of `home`, its files, and its keys."""

    def start(self) -> None:
        processes.ensure_running(components.etcd())

    def kill(self) -> None:
        """Without warning; its files are what the kernel has of them."""
        pid = int(components.etcd().pid_file.read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def write(self, prefix: str, count: int = 50) -> None:
        for index in range(count):
            self._ask("put", {"key": f"{prefix}{index}", "value": "x" * 1000})

    def keys(self, prefix: str) -> int:
        answer = self._ask("range", {"key": prefix, "range_end": f"{prefix}~"})
        return int(str(answer.get("count", 0)))

    def copy(self, target: Path) -> Path:
        """The files as they are after a write, killed and started again."""
        self.kill()
        shutil.copytree(settings.STORE, target)
        self.start()
        store.ensure_usable()
        return target

    @property
    def database(self) -> Path:
        return settings.STORE / "member/snap/db"

    @property
    def log(self) -> Path:
        """The write-ahead log, which the database follows."""
        [found] = (settings.STORE / "member/wal").glob("*.wal")
        return found

    def _ask(self, method: str, question: dict[str, str]) -> dict[str, object]:
        encoded = {name: base64.b64encode(value.encode()).decode() for name, value in question.items()}
        request = urllib.request.Request(f"{settings.ETCD}/v3/kv/{method}", json.dumps(encoded).encode())
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            content: dict[str, object] = json.load(answer)
            return content


@pytest.fixture
def etcd(home: Path) -> Iterator[Etcd]:
    """An etcd that runs and holds fifty keys."""
    found = Etcd()
    found.start()
    store.ensure_usable()
    found.write("early")
    yield found
    processes.stop(components.etcd())


@needs_etcd
def test_a_killed_etcd_has_lost_nothing(etcd: Etcd) -> None:
    etcd.kill()
    etcd.start()
    store.ensure_usable()
    assert etcd.keys("early") == 50


@needs_etcd
def test_a_store_that_went_back_is_used(etcd: Etcd, tmp_path: Path) -> None:
    before = etcd.copy(tmp_path / "before")
    etcd.write("late")
    etcd.kill()
    shutil.rmtree(settings.STORE)
    before.rename(settings.STORE)
    etcd.start()
    store.ensure_usable()
    assert (etcd.keys("early"), etcd.keys("late")) == (50, 0)


@needs_etcd
def test_a_log_that_is_behind_its_database(etcd: Etcd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such an etcd starts, and never begins to serve."""
    before = etcd.copy(tmp_path / "before")
    etcd.write("late")
    etcd.copy(tmp_path / "after")
    etcd.kill()
    shutil.copy(before / etcd.log.relative_to(settings.STORE), etcd.log)
    monkeypatch.setattr(store, "PATIENCE_SECONDS", 3.0)
    monkeypatch.setattr(store, "REQUEST_SECONDS", 1.0)
    etcd.start()
    with pytest.raises(store.DamagedError, match="answered no read and write of its store within 3 s"):
        store.ensure_usable()


def truncated(etcd: Etcd) -> None:
    os.truncate(etcd.database, etcd.database.stat().st_size // 2)


def overwritten(etcd: Etcd) -> None:
    with etcd.database.open("r+b") as database:
        database.write(bytes(8192))


def scribbled(etcd: Etcd) -> None:
    with etcd.log.open("r+b") as log:
        log.seek(4096)
        log.write(b"\x55" * 4096)


@needs_etcd
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, "etcd crashed: fatal error: fault"),
        (overwritten, "etcd crashed: invalid database"),
        (scribbled, "etcd crashed: "),
    ],
)
def test_files_that_cannot_be_read(etcd: Etcd, damage: Callable[[Etcd], None], message: str) -> None:
    # etcd brings its writes from the log into the database ten times a second.
    time.sleep(0.3)
    etcd.kill()
    damage(etcd)
    etcd.start()
    with pytest.raises(store.DamagedError, match=message):
        store.ensure_usable()


@needs_etcd
def test_a_store_is_not_to_blame_for_an_address_in_use(home: Path) -> None:
    with socket.create_server(("127.0.0.1", int(settings.ETCD_PEER.rpartition(":")[2]))):
        processes.ensure_running(components.etcd())
        with pytest.raises(ClusterError, match="address already in use") as caught:
            store.ensure_usable()
    assert not isinstance(caught.value, store.DamagedError)
