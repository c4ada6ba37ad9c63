"""Tables of docs/benchmarks.md, written by the benchmarks that measured them: nobody types a number there.

A table stands between ``<!-- table NAME -->`` and ``<!-- end NAME -->``, and below it what it was taken with: the
command, the day, the machine and the versions. What each side does and leaves out is prose around the markers.
"""

import argparse
import math
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Self, TypeVar

from anomaly_runner.system.machine import cpu_limit

Found = TypeVar("Found")

PAGE = Path(__file__).parents[1] / "docs/benchmarks.md"
DIGITS = 3
"""Most significant digits of a number of several runs."""


@dataclass(frozen=True)
class Spread:
    """One quantity, measured several times."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The measurements in the order in which they were made; ValueError if there are none."""
        if not values:
            raise ValueError("nothing was measured")
        return cls(tuple(values))

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.values)

    def over(self, other: Self) -> Self:
        """This in units of the other, turn by turn; turns that one of both lacks are left out."""
        return type(self)(tuple(mine / its for mine, its in zip(self.values, other.values, strict=False)))

    def text(self, unit: str = "") -> str:
        """Median, lowest and highest, with the digits that their range allows: ``18.4 s (18.1 to 19.0)``."""
        low, high = (_rounded(value, self._digit) for value in (min(self.values), max(self.values)))
        return f"{self.middle(unit)} (one run)" if len(self.values) == 1 else f"{self.middle(unit)} ({low} to {high})"

    def middle(self, unit: str = "") -> str:
        """The median alone, with the digits that the range allows."""
        return f"{_rounded(self.median, self._digit)}{unit}"

    @property
    def _digit(self) -> int:
        """The power of ten of the last digit that says something; a single run could be anything in its third."""
        low, high = min(self.values), max(self.values)
        if len(self.values) == 1:
            return _place(low, DIGITS - 1)
        return max(_place(high, DIGITS), _noise(high - low))


def _place(value: float, digits: int) -> int:
    """The power of ten of the last of some significant digits."""
    return math.floor(math.log10(abs(value))) - digits + 1 if value else 0


def _noise(width: float) -> int:
    """The power of ten of a last digit that is between a twentieth and a half of a range."""
    return math.floor(math.log10(width / 2)) if width else -DIGITS


def _rounded(value: float, place: int) -> str:
    return f"{round(value, -place):,.{max(0, -place)}f}"


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        name: that of its markers.
        columns: the header.
        rows: as many cells each, none of them empty: what was not measured says why.
        libraries: distributions whose versions matter to the numbers.
        note: a sentence on this run, behind what it was taken with.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    libraries: Sequence[str] = ()
    note: str = ""

    def markdown(self) -> str:
        """The table alone.

        Raises:
            ValueError: a row is too short or too long, or has an empty cell.
        """
        for row in self.rows:
            if len(row) != len(self.columns) or not all(cell.strip() for cell in row):
                raise ValueError(f"{self.name}: {list(row)} are not {len(self.columns)} cells with something in each")
        lines = [f"| {' | '.join(line)} |" for line in (self.columns, *self.rows)]
        return "\n".join([lines[0], "|" + "---|" * len(self.columns), *lines[1:]])


def in_turns(
    sides: Mapping[str, Callable[[], Found]], runs: Mapping[str, int], each: Callable[[str, Found], None] | None = None
) -> dict[str, list[Found]]:
    """Run all sides one after the other, then again; every second turn begins with the last.

    Args:
        sides: what is measured, by name.
        runs: in how many turns each takes part.
        each: is told of each run.
    """
    found: dict[str, list[Found]] = {name: [] for name in sides}
    for turn in range(max(runs[name] for name in sides)):
        taking_part = [name for name in sides if turn < runs[name]]
        for name in reversed(taking_part) if turn % 2 else taking_part:
            found[name].append(sides[name]())
            if each:
                each(name, found[name][-1])
    return found


def machine() -> str:
    """Model and number of the CPUs that this process may use, and its memory."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in cpus if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{model}, {cpu_limit()} CPUs, {memory / 2**30:.0f} GiB"


def taken_with(table: Table, taken_by: str, day: datetime) -> str:
    """What a table was taken with, as a sentence."""
    versions = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in table.libraries)]
    parts = f"Taken on {day:%Y-%m-%d} with `{taken_by}`: {machine()}; {', '.join(versions)}."
    return f"{parts} {table.note}".strip()


def replaced(page: str, name: str, content: str) -> str:
    """The page with other content between the markers of a table.

    Raises:
        ValueError: the page does not have the two markers once each, in their order.
    """
    begin, end = f"<!-- table {name} -->\n", f"\n<!-- end {name} -->"
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"the page needs {begin.strip()} and, behind it, {end.strip()}, each once")
    return page.partition(begin)[0] + begin + content + end + page.partition(end)[2]


def add_write(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark the option that has it write its tables into the page."""
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}, too")


def command_line() -> str:
    """The command line of this process, which runs a module of the benchmarks; of a path of this machine, its name."""
    module = sys.modules["__main__"].__spec__
    given = [Path(argument).name if argument.startswith("/") else argument for argument in sys.argv[1:]]
    return shlex.join(["python", "-m", module.name if module else "benchmarks", *given])


def publish(tables: Sequence[Table], write: bool, page: Path = PAGE) -> None:
    """Print tables with what they were taken with, and write them into the page if it is asked for.

    Args:
        tables: of one benchmark, which is what this process runs.
        write: whether the page is written.
        page: Markdown, with markers.
    """
    for table in tables:
        content = f"{table.markdown()}\n\n{taken_with(table, command_line(), datetime.now(UTC))}"
        print(f"\n{content}\n", flush=True)
        if write:
            page.write_text(replaced(page.read_text(encoding="utf-8"), table.name, content), encoding="utf-8")
