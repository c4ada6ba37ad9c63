"""A row for each trial, as Parquet and CSV, for programs."""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from anomaly_api.sweep import Sweep
from anomaly_runner.reporting.sweep.trials import TrialResult

PARQUET, CSV = "trials.parquet", "trials.csv"

Columns = Mapping[str, Sequence[Any]]

_BEFORE: dict[str, Callable[[TrialResult], Any]] = {
    "trial": lambda one: one.name,
    "number": lambda one: one.record.number,
    "rung": lambda one: one.record.rung,
    "replicate": lambda one: one.record.replicate,
    "state": lambda one: one.record.state,
    "reason": lambda one: one.record.reason,
}
_AFTER: dict[str, Callable[[TrialResult], Any]] = {
    "gpu_hours": lambda one: one.record.gpu_hours,
    "started": lambda one: one.record.started,
    "ended": lambda one: one.record.ended,
    "seconds": lambda one: one.seconds,
    "folder": lambda one: one.folder,
}


def trial_columns(sweep: Sweep, trials: Sequence[TrialResult]) -> Columns:
    """Make the columns of the table, by name.

    Which trial it is and how it ended; its values by path, those of replicates and fidelity after the searched ones;
    its metrics by path, those that the sweep names first; GPU hours, times (UTC) and the folder of its artifacts below
    the output location. What a trial does not have is None.
    """
    columns = {name: [take(one) for one in trials] for name, take in _BEFORE.items()}
    for path in value_paths(sweep):
        columns[path] = [one.record.values.get(path, one.settings.get(path)) for one in trials]
    for metric in metric_paths(sweep, trials):
        columns[metric] = [one.record.metrics.get(metric) for one in trials]
    return columns | {name: [take(one) for one in trials] for name, take in _AFTER.items()}


def value_paths(sweep: Sweep) -> list[str]:
    """Paths of all fields that differ between trials: searched, of replicates, of the fidelity."""
    paths = [parameter.path for parameter in sweep.parameters]
    paths += [path.path for path in sweep.replicates.paths] if sweep.replicates else []
    return paths + ([sweep.fidelity.path] if sweep.fidelity else [])


def metric_paths(sweep: Sweep, trials: Iterable[TrialResult]) -> list[str]:
    """Paths of all metrics that some trial has: objectives and constraints first, the others by name."""
    named = [one.metric for one in sweep.objectives] + [one.metric for one in sweep.constraints]
    others = {metric for trial in trials for metric in trial.record.metrics}
    return list(dict.fromkeys([*named, *sorted(others)]))


def write_trials(columns: Columns, folder: Path) -> None:
    """Write trials.parquet and trials.csv."""
    _write_parquet(columns, folder / PARQUET)
    with (folder / CSV).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(map(_cell, column) for column in columns.values()), strict=True))


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value) if isinstance(value, bool | list | tuple | dict) else value


def _write_parquet(columns: Columns, file: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    arrays = {name: pyarrow.array(*_typed(column)) for name, column in columns.items()}
    pyarrow.parquet.write_table(pyarrow.table(arrays), file)


def _typed(values: Sequence[Any]) -> tuple[list[Any], Any]:
    """The values with the Arrow type that all of them have; JSON text where they have none in common."""
    import pyarrow

    kinds = {type(value) for value in values if value is not None}
    if kinds <= {datetime} and kinds:
        return list(values), pyarrow.timestamp("us", tz="UTC")
    if kinds == {bool}:
        return list(values), pyarrow.bool_()
    if kinds == {int} and all(value is None or abs(value) < 2**63 for value in values):
        return list(values), pyarrow.int64()
    if kinds and kinds <= {int, float}:
        return [None if value is None else float(value) for value in values], pyarrow.float64()
    if kinds <= {str}:
        return list(values), pyarrow.string()
    return [None if value is None else json.dumps(value) for value in values], pyarrow.string()
