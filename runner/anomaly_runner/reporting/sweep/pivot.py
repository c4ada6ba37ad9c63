"""The table that papers print: models down, categories across, and the mean at the end.

Of each row's value, the best point is shown: with replicates, its runs by one of their fields. Without, a cell has the
best point with both values.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from anomaly_api.sweep_space import canonical
from anomaly_runner.reporting.sweep.findings import Findings
from anomaly_runner.reporting.sweep.leaders import Link, address, error_text, json_text, metric_text
from anomaly_search.evaluations import Evaluation
from anomaly_search.trials import State

_MODEL, _CATEGORY = "model.name", "dataset.category"


@dataclass(frozen=True)
class Cell:
    """A value of the first objective and its standard error, as text; both may be empty."""

    value: str = ""
    error: str = ""
    is_best: bool = False


@dataclass(frozen=True)
class Row:
    """A value, the point that stands for it, and its cells."""

    value: str
    trial: Link
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Pivot:
    """The table: the paths of both fields, the values across, and the rows.

    with_mean: whether the last column is the mean over the others, as the search saw it.
    """

    down: str
    across: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    with_mean: bool


@dataclass(frozen=True)
class _Measured:
    """A number of a cell, before it is text."""

    value: float
    error: float | None = None


def pivot(findings: Findings) -> Pivot | None:
    """Make the table; None if no two fields with listed values differ between trials, or nothing is measured."""
    listed = _listed(findings)
    down = _first(listed, (_MODEL,))
    if down is None:
        return None
    replicated: dict[str, Sequence[Any]] = (
        {path.path: path.values for path in findings.spec.replicates.paths} if findings.spec.replicates else {}
    )
    with_mean = bool(replicated)
    values = replicated or {path: values for path, values in listed.items() if path != down}
    across = _first(values, (_CATEGORY, _MODEL))
    if across is None:
        return None
    take = _of_runs if with_mean else _of_points
    shown = []
    for value in listed[down]:
        own = [one for one in findings.leaders if down in one.parameters and _same(one.parameters[down], value)]
        if own:
            cells = [take(findings, own, across, column) for column in values[across]]
            mean = [_Measured(own[0].objectives[0], own[0].errors[0])] if with_mean else []
            shown.append((json_text(value), _link(findings, own[0]), [*cells, *mean]))
    if not shown:
        return None
    columns = (*map(json_text, values[across]), *(("mean",) if with_mean else ()))
    rows = _rows(findings, [row for _, _, row in shown])
    return Pivot(
        down=down,
        across=across,
        columns=columns,
        rows=tuple(Row(name, link, cells) for (name, link, _), cells in zip(shown, rows, strict=True)),
        with_mean=with_mean,
    )


def _listed(findings: Findings) -> dict[str, Sequence[Any]]:
    """Searched fields with choices, the most important first; one that only some points have makes no table."""
    known = findings.known.importances
    listed = {one.path: one.choices for one in findings.spec.parameters if one.choices and one.when is None}
    return dict(sorted(listed.items(), key=lambda item: -known.get(item[0], 0.0)))


def _first(paths: Iterable[str], preferred: Sequence[str]) -> str | None:
    known = list(paths)
    return next((path for path in (*preferred, *known) if path in known), None)


def _link(findings: Findings, one: Evaluation) -> Link:
    return Link(str(one.number), address(findings.run_of(one)))


def _of_runs(findings: Findings, own: Sequence[Evaluation], path: str, value: Any) -> _Measured | None:
    """The runs of the best point at this value of a field of replicates."""
    best = own[0]
    found = [
        trial.objectives[0]
        for trial in best.trials
        if trial.state is State.COMPLETE and _same(findings.run_of(best, trial.replicate).settings.get(path), value)
    ]
    known = [one for one in found if one is not None]
    if not known:
        return None
    error = statistics.stdev(known) / math.sqrt(len(known)) if len(known) > 1 else None
    return _Measured(statistics.fmean(known), error)


def _of_points(findings: Findings, own: Sequence[Evaluation], path: str, value: Any) -> _Measured | None:
    """The best point with this value too."""
    best = next((one for one in own if path in one.parameters and _same(one.parameters[path], value)), None)
    return None if best is None else _Measured(best.objectives[0], best.errors[0])


def _same(one: Any, other: Any) -> bool:
    return canonical(one) == canonical(other)


def _rows(findings: Findings, rows: Sequence[Sequence[_Measured | None]]) -> list[tuple[Cell, ...]]:
    objective = findings.sweep.objectives[0]
    best = [
        min((cell.value for cell in column if cell), key=objective.loss, default=None)
        for column in zip(*rows, strict=True)
    ]
    return [tuple(_cell(findings, cell, best[place]) for place, cell in enumerate(row)) for row in rows]


def _cell(findings: Findings, cell: _Measured | None, best: float | None) -> Cell:
    if cell is None:
        return Cell()
    metric = findings.sweep.objectives[0].metric
    return Cell(metric_text(metric, cell.value), error_text(metric, cell.error), cell.value == best)
