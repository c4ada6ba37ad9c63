"""Measures every point of a sweep's grid with the real runner, at each fidelity, and writes them as a table.

Searches can then be tried on real values in milliseconds (search_quality). The digits and the weights are those of the
demo: 50 nines to learn from, 40 of each digit to test on, EfficientNet-Lite0. Points that the table has already are not
measured again, so that it can be made in parts, and by two processes from both ends::

    python -m benchmarks.measured_grid [--seconds N] [--backwards]

A column for each parameter, JSON where it is no text, empty where it does not apply; then the objective at
each fidelity.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.run import RunConfig, RunIdentity
from anomaly_api.sweep import Sweep as SweepSpec
from anomaly_api.sweep_exchange import RunOfPoint, by_path, trial_name
from anomaly_api.sweep_trial import rung_point, trial_spec
from anomaly_search import points
from anomaly_search.spec import sweep_of

DATA = Path(__file__).parent / "data"
MANIFEST, TABLE = DATA / "mnist-grid.yaml", DATA / "mnist-grid.csv"
TRAIN, TEST = 50, 40

Row = dict[str, str]


class Task(NamedTuple):
    """What is measured: a sweep's experiment, below a folder that stands for all storage."""

    run: RunIdentity
    spec: ExperimentSpec
    sweep: SweepSpec
    folder: Path


def write_data(folder: Path) -> None:
    """Write the buckets of the digits and of the weights."""
    from hack.demo.digits import write_mnist_folders
    from hack.demo.weights import write_efficientnet_lite0

    digits = folder / "data" / "mnist"
    write_mnist_folders(digits, TRAIN)
    for kind in (digits / "test").iterdir():
        for file in sorted(kind.iterdir())[TEST:]:
            file.unlink()
    write_efficientnet_lite0(folder / "weights")


def objective_column(sweep: SweepSpec, rung: int) -> str:
    """Return the name of the column that has the objective at a fidelity."""
    metric = sweep.objectives[0].metric
    return f"{metric} at {rung_point(sweep, rung)[sweep.fidelity.path]:g}" if sweep.fidelity else metric


def columns_of(sweep: SweepSpec) -> list[str]:
    """Return the names of the table's columns."""
    return [one.path for one in sweep.parameters] + [objective_column(sweep, rung) for rung in range(rungs(sweep))]


def rungs(sweep: SweepSpec) -> int:
    """Return how many fidelities there are."""
    return len(sweep.fidelity.values) if sweep.fidelity else 1


def written(value: Any) -> str:
    """Return a value as the table has it."""
    return value if isinstance(value, str) else json.dumps(value)


def measured(task: Task, point: Mapping[str, Any], number: int) -> Iterator[tuple[str, str]]:
    """Yield the objective at each fidelity; an empty text where the run failed, with the reason on the terminal."""
    from anomaly_runner.local import run_config

    for rung in range(rungs(task.sweep)):
        trial = ExperimentSpec.model_validate(trial_spec(task.spec, {**point, **rung_point(task.sweep, rung)}))
        run = task.run.model_copy(update={"name": trial_name(task.run.name, RunOfPoint(number, rung))})
        summary = run_config(RunConfig(run=run, experiment=trial), task.folder, []).summary
        value = by_path(summary.metrics).get(task.sweep.objectives[0].metric)
        if value is None:
            print(f"{run.name}: {summary.reason}: {summary.message}", flush=True)
        yield objective_column(task.sweep, rung), "" if value is None else repr(round(value, 6))


def take_shortcuts() -> None:
    """Leave out what takes most of the time of so small trials, and changes no score.

    A backbone is compiled once for its layers and size, since its weights are the same in all trials, and nobody asks
    beforehand whether the memory suffices.
    """
    from anomaly_runner.models import compiled
    from anomaly_runner.training import train

    made, compile_anew = dict[Any, Any](), compiled._compile

    def compile_or_reuse(network: Any, size: tuple[int, ...]) -> Any:
        key = (*network.feature_info.module_name(), *size)
        if key not in made:
            made[key] = compile_anew(network, size)
        return made[key]

    compiled._compile = compile_or_reuse
    vars(train).update(check_memory=lambda *arguments: None)


def task_in(folder: Path) -> Task:
    """Return what is measured below a folder, with its data in place."""
    from anomaly_runner.manifests import read_resource

    config = read_resource(MANIFEST, folder)
    assert config.experiment is not None
    assert config.experiment.sweep is not None
    write_data(folder)
    return Task(config.run, config.experiment, config.experiment.sweep, folder)


def key_of(row: Mapping[str, str], sweep: SweepSpec) -> tuple[str, ...]:
    """Return which point a row is of."""
    return tuple(row[one.path] for one in sweep.parameters)


def read_table() -> list[Row]:
    """Return the rows that there are."""
    if not TABLE.exists():
        return []
    with TABLE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(rows: Iterable[Row], columns: Sequence[str], mode: str) -> None:
    """Write rows, with the names of the columns where the file is new."""
    with TABLE.open(mode, newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)


def grid_of(sweep: SweepSpec) -> list[tuple[dict[str, Any], Row]]:
    """Return the points of the grid in their order, each with its columns in the table."""
    space = sweep_of(sweep).space
    found = [points.point_at(space, number) for number in range(points.count(space) or 0)]
    paths = [one.path for one in sweep.parameters]
    return [(point, {path: written(point[path]) if path in point else "" for path in paths}) for point in found]


def fill(task: Task, deadline: float, backwards: bool) -> None:
    """Measure what the table lacks, then bring it in order."""
    grid, columns = list(enumerate(grid_of(task.sweep))), columns_of(task.sweep)
    for number, (point, row) in reversed(grid) if backwards else grid:
        known = {key_of(one, task.sweep) for one in read_table()}  # another process may be at work on it
        if time.monotonic() > deadline:
            return
        if key_of(row, task.sweep) not in known:
            write_rows([row | dict(measured(task, point, number))], columns, "a")
            print(f"{len(known) + 1} of {len(grid)}", flush=True)
    by_key = {key_of(row, task.sweep): row for row in read_table()}
    write_rows([by_key[key_of(row, task.sweep)] for _, (_, row) in grid], columns, "w")


def main() -> None:
    """Measure what the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no point after so many seconds")
    parser.add_argument("--backwards", action="store_true", help="begin at the end, beside another process")
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    take_shortcuts()
    with tempfile.TemporaryDirectory() as name:
        fill(task_in(Path(name)), deadline, options.backwards)


if __name__ == "__main__":
    main()
