"""The page of results and results.json, from the lines that tests and benchmarks wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from hack.gpu.results import Collected, Line, Measurement, TestResult, read

FILE, DATA = "results.html", "results.json"
_TEMPLATES = Path(__file__).parent


@dataclass(frozen=True)
class Part:
    """A part that has ended: its lines, its seconds, and what went wrong with its process, or nothing."""

    name: str
    file: Path
    seconds: float
    problem: str

    @cached_property
    def lines(self) -> list[Line]:
        """What it wrote."""
        return list(read(self.file))

    @cached_property
    def tests(self) -> list[TestResult]:
        """Its tests, and those that it did not come to."""
        found = [line for line in self.lines if isinstance(line, TestResult)]
        names = {test.name for test in found}
        wanted = [name for line in self.lines if isinstance(line, Collected) for name in line.names]
        late = [TestResult(name, "failed", 0, "did not run: the time was up") for name in wanted if name not in names]
        return found + late

    @property
    def failed(self) -> int:
        """Number of tests that failed or did not run."""
        return self.count("failed")

    def count(self, outcome: str) -> int:
        """Number of tests with this outcome."""
        return sum(test.outcome == outcome for test in self.tests)

    @property
    def summary(self) -> str:
        """What came of it, in one line."""
        measurements = sum(isinstance(line, Measurement) for line in self.lines)
        tests = ", ".join(f"{self.count(outcome)} {outcome}" for outcome in ("passed", "failed", "skipped"))
        counted = tests if self.tests else f"{measurements} measurements"
        return f"{counted} in {self.seconds:.0f} s" + (f"; {self.problem}" if self.problem else "")


@dataclass(frozen=True)
class Row:
    """A line of a table; ``first`` where its subject begins; ``ratios`` are its values in units of that first line."""

    measurement: Measurement
    first: bool
    ratios: Mapping[str, float]


@dataclass(frozen=True)
class Table:
    """Measurements of one title: its columns, and its rows by subject."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def tables(measurements: Sequence[Measurement]) -> list[Table]:
    """Arrange measurements in tables, in the order in which titles, columns and subjects first appear."""
    found = []
    for title in dict.fromkeys(one.table for one in measurements):
        lines = [one for one in measurements if one.table == title]
        columns = tuple(dict.fromkeys(name for one in lines for name in one.values))
        subjects = dict.fromkeys(one.subject for one in lines)
        rows = [row for subject in subjects for row in _rows([one for one in lines if one.subject == subject])]
        found.append(Table(title, columns, tuple(rows)))
    return found


def _rows(lines: Sequence[Measurement]) -> list[Row]:
    base = lines[0].values
    return [
        Row(one, not index, {name: value / base[name] for name, value in one.values.items() if base.get(name)})
        for index, one in enumerate(lines)
    ]


def has_gpu(machine: Mapping[str, str]) -> bool:
    """Whether torch found a GPU on the machine that was described."""
    return "compute capability" in machine


def write(folder: Path, device: str, machine: Mapping[str, str], parts: Sequence[Part]) -> None:
    """Write the page and results.json into a folder."""
    lines = [line for part in parts for line in part.lines]
    content = {
        "device": device,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": dict(machine),
        "parts": [{"name": part.name, "summary": part.summary, "problem": part.problem} for part in parts],
        "tests": [asdict(test) for part in parts for test in part.tests],
        "measurements": [asdict(line) for line in lines if isinstance(line, Measurement)],
    }
    (folder / DATA).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (folder / FILE).write_text(_render(content, parts, lines), encoding="utf-8")


def _render(content: Mapping[str, Any], parts: Sequence[Part], lines: Sequence[Line]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    measured = [line for line in lines if isinstance(line, Measurement)]
    return environment.get_template("results.html.j2").render(
        **content,
        on_gpu=content["device"] == "cuda" and has_gpu(content["machine"]),
        done=parts,
        tables=tables(measured),
    )
