"""The scores by module, and the mutants that survive for a reason."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from hack.mutants.found import Tried
from hack.mutants.making import Mutant

REASONS = Path(__file__).with_name("survivors.yaml")
"""Mutants that mean the same as the code: by module, function and changed line, with the reason."""
PAGE = Path(__file__).resolve().parents[2] / "docs" / "mutants.md"
WHOLE = "all"
"""Name of the row of all modules."""
BEGIN, END = "<!-- scores -->", "<!-- end of scores -->"
COLUMNS = ("Mutants", "Killed", "Equivalent", "Survived", "Not tried", "Score")


class Reasons:
    """Why mutants may survive, by module, function, line and changed line."""

    def __init__(self, file: Path = REASONS) -> None:
        known = yaml.safe_load(file.read_text()) or []
        self.known: dict[tuple[str, str, str, str], str] = {
            (one["module"], one["function"], one["line"], changed): one["reason"]
            for one in known
            for changed in one["mutants"]
        }

    def of(self, mutant: Mutant) -> str | None:
        """Return why a mutant may survive; None if nobody has said."""
        return self.known.get((mutant.module, mutant.function, mutant.line, mutant.changed))


@dataclass(frozen=True)
class Score:
    """What became of the mutants of a module."""

    module: str
    killed: int
    equivalent: int
    survived: int
    untried: int

    @property
    def share(self) -> str:
        """Share of the valid mutants that a test notices, rounded down to whole percent; the untried are left out."""
        valid = self.killed + self.survived
        return f"{100 * self.killed // valid} %" if valid else "-"

    def cells(self) -> list[str]:
        """Return the row of the table."""
        numbers = (self.killed, self.equivalent, self.survived, self.untried)
        return [self.module, str(sum(numbers)), *map(str, numbers), self.share]


def scores(tried: Iterable[Tried], reasons: Reasons) -> list[Score]:
    """Return the score of each module that has mutants, in the order of their names."""
    counts: dict[str, Counter[str]] = {}
    for one in tried:
        counts.setdefault(one.mutant.module, Counter())[_column(one, reasons)] += 1
    columns = ("killed", "equivalent", "survived", "untried")
    return [Score(module, *(count[column] for column in columns)) for module, count in sorted(counts.items())]


def _column(one: Tried, reasons: Reasons) -> str:
    if one.verdict is None:
        return "untried"
    if not one.survived:
        return "killed"
    return "equivalent" if reasons.of(one.mutant) else "survived"


def table(rows: Sequence[Score]) -> list[list[str]]:
    """Return the cells of the table by module, with all of them in the last row."""
    numbers = ((row.killed, row.equivalent, row.survived, row.untried) for row in rows)
    whole = Score(WHOLE, *(sum(column) for column in zip(*numbers, strict=True)))
    return [["Module", *COLUMNS], ["---", *["--:"] * len(COLUMNS)], *(row.cells() for row in (*rows, whole))]


def lines(cells: Iterable[Sequence[str]]) -> list[str]:
    """Return a table as Markdown."""
    return [f"| {' | '.join(row)} |" for row in cells]


def write(rows: Sequence[Score]) -> None:
    """Write the rows into the page's table; other modules keep theirs, and each the score that it had at first."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    old, _, after = rest.partition(END)
    known = {found[0]: found for line in old.splitlines() if (found := _cells(line)) and found[1].isdigit()}
    new = {row.module: row for row in rows if row.share != "-"}
    kept = {module: Score(module, *map(int, row[2:6])) for module, row in known.items() if module != WHOLE}
    cells = table([row for _, row in sorted((kept | new).items())])
    first = ["At first", "--:", *(known[row[0]][-1] if row[0] in known else row[-1] for row in cells[2:-1]), "-"]
    text = "\n".join(lines([*row, last] for row, last in zip(cells, first, strict=True)))
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]
