"""The command that runs all benchmarks: it forgets none, and one that fails neither stops the others nor is hidden."""

import re
import subprocess
import sys

import pytest

from benchmarks.__main__ import BENCHMARKS, Benchmark, main, run
from benchmarks.tables import PAGE

FOLDER = PAGE.parents[1] / "benchmarks"


def test_each_benchmark_that_writes_a_table_is_run() -> None:
    writing = {file.stem for file in FOLDER.glob("*.py") if "add_write(" in file.read_text()} - {"tables"}
    assert {benchmark.module for benchmark in BENCHMARKS} == writing


def test_each_benchmark_is_named_on_the_page() -> None:
    named = set(re.findall(r"python -m benchmarks\.(\w+)", PAGE.read_text(encoding="utf-8")))
    assert {benchmark.module for benchmark in BENCHMARKS} <= named


def test_a_quick_run_never_writes() -> None:
    one = Benchmark("one", quick="--names 'a b'", full="--runs 3")
    assert one.command(quick=True) == [sys.executable, "-m", "benchmarks.one", "--names", "a b"]
    assert one.command(quick=False) == [sys.executable, "-m", "benchmarks.one", "--runs", "3", "--write"]


def test_one_that_fails_stops_no_other_and_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def played(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 3 if "benchmarks.visualize" in command else 0)

    monkeypatch.setattr(subprocess, "run", played)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick", "--only", "visualize", "bank_search"])
    assert main() == 1
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split(" s  ")[1].split()[0] for line in lines] == ["FAILED", "done"]
    assert lines[0].endswith("python -m benchmarks.visualize --images 2 --sides 64 --runs 1")
    assert [status for *_, status in run([Benchmark("bank_search", "")], quick=True)] == [0]
