"""Several experiments at the same time on one machine, as the trials of a sweep on a node: how long all of them take.

Threads of torch wait for each other by OpenMP, which has them try again and again before they sleep. Those turns are on
CPUs that the other experiments need. Each side is our runner, with another number of turns. ::

    python -m benchmarks.busy_node [--models NAME ...] [--at-once N ...] [--images N] [--runs N] [--write]
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.processes import Cost, run_locally
from benchmarks.runner_experiment import Task, manifest
from benchmarks.tables import Spread, Table, add_write, in_turns, publish
from hack.demo.digits import write_mnist_folders

SIDES: dict[str, dict[str, str]] = {
    "ours": {},
    "OpenMP's own 300,000 turns": {"GOMP_SPINCOUNT": "300000"},
    "no turn (`OMP_WAIT_POLICY=PASSIVE`)": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def experiment(folder: Path, environment: dict[str, str], file: Path) -> Cost:
    """Run one experiment to its end."""
    shutil.rmtree(folder / "results", ignore_errors=True)
    return run_locally(file, folder, **environment)


def together(folders: Sequence[Path], files: Sequence[Path], environment: dict[str, str]) -> tuple[float, float]:
    """Run an experiment in each folder at the same time; returns the seconds of the last, and those of all CPUs."""
    with ThreadPoolExecutor(len(folders)) as pool:
        costs = list(pool.map(experiment, folders, [environment] * len(folders), files))
    return max(cost.seconds for cost in costs), sum(cost.cpu_seconds for cost in costs)


def rows(model: str, folders: Sequence[Path], images: int, at_once: Sequence[int], runs: int) -> list[list[str]]:
    """Measure all sides of one model in turns."""
    files = [manifest(Task(model, folder, images, 10 * images)) for folder in folders]
    found: list[list[str]] = []
    experiment(folders[0], {}, files[0])  # compiles modules, and fills the page cache
    for count in at_once:
        print(f"{count} of {model}")
        sides: dict[str, Callable[[], tuple[float, float]]] = {
            name: partial(together, folders[:count], files[:count], environment) for name, environment in SIDES.items()
        }
        measurements = in_turns(
            sides, dict.fromkeys(sides, runs), lambda name, cost: print(f"  {name}: {cost[0]:.1f} s", flush=True)
        )
        ours = Spread.of([seconds for seconds, _ in measurements["ours"]])
        for name, costs in measurements.items():
            seconds, cpu = (Spread.of(values) for values in zip(*costs, strict=True))
            times = "1" if name == "ours" else seconds.over(ours).text()
            found.append([model, str(count), name, str(runs), seconds.text(" s"), times, cpu.middle(" s")])
    return found


def main() -> None:
    """Measure all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", nargs="+", default=["fastflow"])
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4], help="experiments at the same time")
    parser.add_argument("--images", type=int, default=5, help="that each learns from; ten times as many are scored")
    parser.add_argument("--runs", type=int, default=2)
    add_write(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(index) for index in range(max(options.at_once))]
        for folder in folders:
            write_mnist_folders(folder / "data/mnist", per_class=options.images)
            (folder / "weights").mkdir()
        found = [
            row
            for model in options.models
            for row in rows(model, folders, options.images, options.at_once, options.runs)
        ]
        columns = ("Model", "At once", "Side", "Runs", "Until the last ends", "Times ours", "CPU of all")
        publish([Table("busy-node", columns, found, ("anomaly-operator", "torch"))], options.write)


if __name__ == "__main__":
    main()
