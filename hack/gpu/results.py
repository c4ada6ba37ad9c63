"""What tests and benchmarks write while they run, a line of JSON each, and what is read back from the lines.

A process that is ended leaves the lines that it had written, so its part of the results is not lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class TestResult:
    """One test: ``detail`` is the reason of a skip or the text of a failure, ``measured`` what it printed."""

    __test__ = False  # pytest would collect it

    name: str
    outcome: Outcome
    seconds: float
    detail: str = ""
    measured: tuple[str, ...] = ()


@dataclass(frozen=True)
class Collected:
    """Names of the tests that were to run."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Measurement:
    """One line of a benchmark's table.

    Attributes:
        table: title of the table.
        subject: what is measured, such as a model; lines of one subject are compared with its first.
        side: who or what did it.
        values: numbers by the column's name, with their unit.
        note: why something is missing, or what else to know.
    """

    table: str
    subject: str
    side: str
    values: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


Line = TestResult | Collected | Measurement
_KINDS: Mapping[str, type[Line]] = {"test": TestResult, "collected": Collected, "measurement": Measurement}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def append(file: Path, line: Line) -> None:
    """Add a line to a file."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"kind": _NAMES[type(line)], **asdict(line)}) + "\n")


def read(file: Path) -> Iterator[Line]:
    """Yield the lines of a file, in order; none of a file that does not exist. Half a line at the end is left out."""
    for text in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            content: dict[str, Any] = json.loads(text)
        except json.JSONDecodeError:  # the process was ended while it wrote
            continue
        yield _parse(content)


def _parse(content: dict[str, Any]) -> Line:
    kind: type[Any] = _KINDS[content.pop("kind")]
    line: Line = kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in content.items()})
    return line
