"""Progress of long work, on a terminal and in a log, and of Go builds."""

import io
import re
from pathlib import Path

import pytest

from hack.cluster import golang, progress
from hack.cluster.progress import Progress, duration
from hack.cluster.shell import ClusterError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.9, "0s"), (7, "7s"), (59.9, "59s"), (60, "1m00s"), (372, "6m12s"), (3720, "1h02m"), (90_000, "25h00m")],
)
def test_durations_are_readable(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_log_has_a_line_for_each_message() -> None:
    log = io.StringIO()
    work = Progress("cluster: building kube", log)
    work.begin()
    work.state = "3 of 9 packages compiled"
    work.show()
    work.print("STEP 1")
    work.end()
    assert log.getvalue().splitlines() == [
        "cluster: building kube",
        "cluster: building kube: 3 of 9 packages compiled, 0s",
        "STEP 1",
        "cluster: building kube: done in 0s",
    ]


def test_a_terminal_has_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal()
    work = Progress("cluster: building kube", terminal)
    work.begin()
    work.state = "a state much longer than the line"
    work.show()
    work.print("STEP 1")
    work.end()
    shown = terminal.getvalue()
    clear = re.escape(progress.CLEAR_LINE)
    assert [len(line) for line in re.split(f"{clear}|\n", shown)][2] == 39
    assert re.sub(f"[^\n]*{clear}", "", shown).splitlines() == ["STEP 1", "cluster: building kube: done in 0s"]


def test_work_that_fails_is_not_reported_as_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ClusterError), progress.progress("building kube"):
        raise ClusterError("no")
    assert capsys.readouterr().err == "cluster: building kube\n"


FAKE_GO = """#!/bin/sh
case "$1" in
    list)
        echo "go: downloading example.com/module v1"
        printf '%s\\n' unsafe runtime fmt {name}
        ;;
    *)
        [ "$CGO_ENABLED" = 0 ] || exit 9
        case "$2" in -v) ;; *) exit 8 ;; esac
        printf '%s\\n' {compiled} {name}
        exit {status}
        ;;
esac
"""


class States(Progress):
    """Progress that records its states."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        super().__init__("work", io.StringIO())
        self.seen.clear()

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "state":
            self.seen.append(str(value))


def fake_go(folder: Path, name: str, compiled: str, status: int = 0) -> str:
    program = folder / "go"
    program.write_text(FAKE_GO.format(name=name, compiled=compiled, status=status))
    program.chmod(0o755)
    return str(program)


def test_packages_are_counted_and_shared_ones_once(tmp_path: Path) -> None:
    go = golang.Go(fake_go(tmp_path, "first", "runtime fmt"))
    work = States()
    go.compile("build", folder=tmp_path, work=work, expected=go.dependencies(tmp_path, work))
    modules = "1 modules downloaded"
    assert work.seen[:1] == [modules]
    assert work.seen[-3:] == ["1 of 3 packages compiled", "2 of 3 packages compiled", "linking"]
    fake_go(tmp_path, "second", "strings")
    other = States()
    go.compile("build", folder=tmp_path, work=other, expected=go.dependencies(tmp_path, other))
    assert other.seen[-2:] == ["1 of 1 packages compiled", "linking"]
    tool = States()
    go.compile("install", folder=tmp_path, work=tool)
    assert tool.seen == ["1 packages compiled", "2 packages compiled"]


def test_a_build_that_fails_shows_the_end_of_its_output(tmp_path: Path) -> None:
    go = golang.Go(fake_go(tmp_path, "first", "fmt", status=1))
    with pytest.raises(ClusterError, match=r"failed \(1\):\nfmt\nfirst"):
        go.compile("build", folder=tmp_path, work=States())
