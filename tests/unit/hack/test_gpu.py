"""The checks on a GPU, around them: which wheels are carried, the lines that are read back, the page."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hack.gpu import page, session, wheels
from hack.gpu.page import Part
from hack.gpu.results import Collected, Line, Measurement, TestResult, append, read

RESOLUTION = """
anomalib==2.7.0           # via -c constraints.txt, -r hack/gpu/requirements.in
freia==0.2                # via anomalib
hub==2.4.0                # via timm
http==1.0                 # via hub
numpy==2.4.6              # via anomalib, timm
small==1.0                # via freia, numpy
timm==1.0.31              # via anomalib, -r hack/gpu/requirements.in
"""
MACHINE = {"GPU": "1 x Some GPU, 80 GB", "compute capability": "9.0", "Python": "3.12"}
NO_GPU = {"GPU": "none that torch can use", "Python": "3.12"}


def names(there: set[str]) -> list[str]:
    resolved = {package.name: package for package in wheels.parse(RESOLUTION)}
    return [package.name for package in wheels.missing(resolved, there)]


def test_what_only_a_provided_package_asks_for_is_not_carried() -> None:
    assert names({"timm", "numpy"}) == ["anomalib", "freia", "small"]
    assert names(set()) == ["anomalib", "freia", "http", "hub", "numpy", "small", "timm"]
    assert names({"anomalib", "timm"}) == []


def test_names_of_provided_packages_are_read_in_any_spelling(tmp_path: Path) -> None:
    file = tmp_path / "there.txt"
    file.write_text("# some\nAnnotated_Types\nruamel.yaml  # a comment\n\n")
    assert wheels.read_names(file) == {"annotated-types", "ruamel-yaml"}


@pytest.fixture
def part(tmp_path: Path) -> Callable[..., Part]:
    def made(*lines: Line, problem: str = "") -> Part:
        file = tmp_path / "lines.jsonl"
        for line in lines:
            append(file, line)
        return Part("tests", file, 3.0, problem)

    return made


PASSED = TestResult("test_a[padim]", "passed", 1.5, measured=("apart by 1e-7",))
SKIPPED = TestResult("test_b", "skipped", 0.0, "needs two GPUs")
OURS = Measurement("Speed", "padim", "ours", {"images/s": 50.0})
THEIRS = Measurement("Speed", "padim", "theirs", {"images/s": 10.0, "MB": 7.0}, "one < two")


def test_lines_are_read_back_but_for_the_half_one_of_a_process_that_was_ended(part: Callable[..., Part]) -> None:
    lines = [Collected(("test_a[padim]", "test_b")), PASSED, SKIPPED, OURS]
    file = part(*lines).file
    with file.open("a") as more:
        more.write('{"kind": "test", "na')
    assert list(read(file)) == lines
    assert list(read(file.with_name("absent"))) == []


def test_a_test_that_did_not_run_has_failed(part: Callable[..., Part]) -> None:
    found = part(Collected((PASSED.name, "test_late")), PASSED)
    assert [(test.name, test.outcome) for test in found.tests] == [(PASSED.name, "passed"), ("test_late", "failed")]
    assert found.failed == 1
    assert found.summary == "1 passed, 1 failed, 0 skipped in 3 s"


def test_measurements_are_compared_with_the_first_of_their_subject() -> None:
    (table,) = page.tables([OURS, THEIRS])
    assert table.columns == ("images/s", "MB")
    assert [(row.first, dict(row.ratios)) for row in table.rows] == [
        (True, {"images/s": 1.0}),
        (False, {"images/s": 0.2}),
    ]


def test_the_page_escapes_and_says_what_the_results_are_of(tmp_path: Path, part: Callable[..., Part]) -> None:
    parts = [part(PASSED, SKIPPED, OURS, THEIRS, problem="ended with exit status 1")]
    page.write(tmp_path, "cuda", MACHINE, parts)
    text = (tmp_path / page.FILE).read_text()
    for shown in ("Some GPU", "needs two GPUs", "apart by 1e-7", "one &lt; two", "0.2 times", "exit status 1"):
        assert shown in text
    assert "Nothing on this page was computed by a GPU" not in text
    content = json.loads((tmp_path / page.DATA).read_text())
    assert [test["outcome"] for test in content["tests"]] == ["passed", "skipped"]
    assert content["measurements"][0]["values"] == OURS.values


@pytest.mark.parametrize(("device", "machine"), [("cpu", MACHINE), ("cuda", NO_GPU)], ids=["not asked for", "absent"])
def test_the_page_says_that_no_gpu_was_used(
    tmp_path: Path, part: Callable[..., Part], device: str, machine: dict[str, str]
) -> None:
    page.write(tmp_path, device, machine, [part(PASSED)])
    assert "Nothing on this page was computed by a GPU" in (tmp_path / page.FILE).read_text()


@pytest.mark.parametrize(
    ("program", "seconds", "expected"),
    [
        ("import time; time.sleep(300)", 1, "ended after 1 seconds, which was all its time"),
        ("raise SystemExit(3)", 60, "ended with exit status 3"),
        ("", 60, ""),
    ],
    ids=["endless", "failed", "succeeded"],
)
def test_a_part_is_ended_when_its_time_is_up(program: str, seconds: float, expected: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True, stderr=subprocess.DEVNULL)
    assert session._wait(process, seconds) == expected
    assert process.poll() is not None


def test_an_interrupted_session_ends_what_is_running() -> None:
    before = signal.signal(signal.SIGUSR1, session._interrupt)
    try:
        ready = f"import os, time; os.kill({os.getpid()}, {int(signal.SIGUSR1)}); time.sleep(300)"
        process = subprocess.Popen([sys.executable, "-c", ready], start_new_session=True, stderr=subprocess.DEVNULL)
        assert session._wait(process, 300) == session.INTERRUPTED
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert process.poll() is not None
