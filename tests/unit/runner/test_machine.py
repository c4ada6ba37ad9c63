"""What the machine gives and takes: CPUs and memory of a cgroup, log lines, versions, the life of a child."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from anomaly_runner.errors import Stopped
from anomaly_runner.system import machine
from anomaly_runner.system.environment import versions
from anomaly_runner.system.logging_setup import log_for_people, log_for_pods
from anomaly_runner.system.stop import StopSignal


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "250000 100000"}, 3),
        ({"cpu.max": "110000 50000"}, 3),
        ({"cpu.max": "9900000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 2),
    ],
    ids=["two and a half", "a shorter period", "more than there are", "cgroup v1"],
)
def test_a_part_of_a_cpu_is_one_more(
    files: dict[str, str], cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    write(tmp_path, files)
    assert machine.cpu_limit(tmp_path) == cpus


def test_page_cache_of_a_cgroup_v1_counts_as_free(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "meminfo": "MemTotal: 9000 kB\nMemAvailable: 4000 kB\n",
            "memory/memory.limit_in_bytes": "2000000",
            "memory/memory.usage_in_bytes": "1500000",
            "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 600000\n",
        },
    )
    assert machine.available_memory(tmp_path, tmp_path / "meminfo") == 2_000_000 - (1_500_000 - 600_000)


def test_the_memory_of_a_process_is_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("VmRSS:\t  9000 kB\nRssAnon:\t  2000 kB\nRssFile:\t 7000 kB\n")
    assert machine.used_memory(tmp_path / "status") == 2_048_000
    here = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    assert machine.peak_memory() >= int(here["VmRSS"].split()[0]) * 1024 // 2
    assert machine.peak_memory() < 1 << 40


def test_the_age_of_a_process_is_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may hold spaces and brackets; the 22nd field is the start in clock ticks, 100 a second."""
    fields = ["1", "(a (b) c)", "S", *("0" for _ in range(18)), "4200", "7"]
    (tmp_path / "stat").write_text(" ".join(fields))
    monkeypatch.setattr(os, "sysconf", lambda _: 100)
    monkeypatch.setattr("time.clock_gettime", lambda _: 50.0)
    assert machine.process_seconds(tmp_path / "stat") == 8.0


def test_gigabytes_are_powers_of_ten() -> None:
    assert machine.gigabytes(1_234_567_890) == "1.23 GB"


def test_versions_are_those_of_what_is_installed() -> None:
    found = versions(("pydantic", "no-such-package"))
    assert found.keys() == {"anomaly-operator", "python", "pydantic"}
    assert found["pydantic"] == version("pydantic")
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    root = logging.getLogger()
    names = ("", "anomaly_runner", "timm")
    handlers, levels = root.handlers[:], {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def say_something() -> None:
    logging.getLogger("anomaly_runner.somewhere").info("looked", extra={"images": 3, "folder": Path("/data")})
    logging.getLogger("anomaly_runner.somewhere").debug("too much")
    logging.getLogger("botocore").info("of a library")
    logging.getLogger("botocore").warning("of a library, %s", "important")
    logging.getLogger("timm").warning("weights of the head are missing")


def test_a_pod_logs_lines_of_json_with_what_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    log_for_pods()
    say_something()
    try:
        raise ValueError("no such image")
    except ValueError as error:
        logging.getLogger("anomaly_runner").error("unexpected", exc_info=error)
    written = capsys.readouterr()
    assert written.out == ""
    looked, library, unexpected = (json.loads(line) for line in written.err.splitlines())
    assert looked.pop("time").endswith("+00:00")
    assert looked == {
        "level": "info",
        "logger": "anomaly_runner.somewhere",
        "event": "looked",
        "images": 3,
        "folder": "/data",
    }
    assert (library["level"], library["event"]) == ("warning", "of a library, important")
    assert "ValueError: no such image" in unexpected["exception"]


@pytest.mark.parametrize(
    ("verbose", "lines"),
    [
        (False, ["WARNING: of a library, important"]),
        (True, ["INFO: looked", "WARNING: of a library, important"]),
    ],
)
def test_people_see_what_the_runner_does_only_if_they_ask(
    verbose: bool, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    log_for_people(verbose)
    say_something()
    assert capsys.readouterr().err.splitlines() == lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_signals_ask_a_run_to_stop_and_are_given_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignal().listening() as stop:
        stop.check()
        signal.raise_signal(number)
        assert stop.is_set
        with pytest.raises(Stopped):
            stop.check()
    assert signal.getsignal(number) is before
    with pytest.raises(Stopped):
        stop.check()


@pytest.mark.parametrize(("parent", "code"), [("os.getppid()", 0), ("1 << 22", -signal.SIGKILL)], ids=["own", "gone"])
def test_a_child_of_somebody_else_ends_at_once(parent: str, code: int) -> None:
    program = f"import os; from anomaly_runner.system.orphans import die_with; die_with({parent})"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == code
