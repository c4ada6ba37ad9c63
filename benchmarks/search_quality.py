"""How many trials TPE and successive halving need to come near the optimum, against random points.

Near is the best 0.5 % of the space. TPE is counted in trials, successive halving (over random points, so that it is
seen alone, eight at a time) in full trials: one at a tenth of the data costs a tenth. Medians over seeds. ::

    python -m benchmarks.search_quality [--seeds N] [--jobs N] [--table FILE.csv --objective COLUMN [--minimize]]

A table has a measured grid: a column for each parameter, and one for the objective. Near is then the best value. It
says nothing of lower fidelities, so that halving is left out.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from scipy.stats import qmc

from anomaly_search import points
from anomaly_search.schedule import schedule
from anomaly_search.space import Choices, Condition, FloatRange, IntRange, Parameter, Space
from anomaly_search.suggest import Suggestion, suggest
from anomaly_search.sweep import Algorithm, AlgorithmName, Fidelity, Limits, Objective, Sweep
from anomaly_search.trials import State, Trial

Point = Mapping[str, Any]
NEAR = 0.005
SAMPLED = 2**15
MOST = 600
FIDELITIES = (0.1, 1.0)
REDUCTION = 4
PARALLEL = 8
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Problem:
    """A function to minimise, and the value that is near enough."""

    name: str
    space: Space
    loss: Callable[[Point], float]
    near: float


def box(dimensions: int, low: float, high: float) -> Space:
    """Return a cube."""
    return Space(tuple(Parameter(f"x{place}", FloatRange(low, high)) for place in range(dimensions)))


def sphere(point: Point) -> float:
    """Return the squared distance from (1, 1, ...)."""
    return math.fsum((value - 1) ** 2 for value in point.values())


def rosenbrock(point: Point) -> float:
    """Return the height of a bent valley (Rosenbrock 1960)."""
    values = list(point.values())
    return math.fsum(100 * (b - a**2) ** 2 + (1 - a) ** 2 for a, b in pairwise(values))


def branin(point: Point) -> float:
    """Return a function with three optima (Dixon and Szego 1978)."""
    x, y = point["x0"], point["x1"]
    bowl = (y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6) ** 2
    return float(bowl + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10)


def ackley(point: Point) -> float:
    """Return a function with many optima around one (Ackley 1987)."""
    values = [value - 3 for value in point.values()]
    far = math.sqrt(statistics.fmean(value**2 for value in values))
    waves = statistics.fmean(math.cos(2 * math.pi * value) for value in values)
    return 20 + math.e - 20 * math.exp(-0.2 * far) - math.exp(waves)


HARTMANN = (
    (1.0, (10, 3, 17, 3.5, 1.7, 8), (0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886)),
    (1.2, (0.05, 10, 17, 0.1, 8, 14), (0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991)),
    (3.0, (3, 3.5, 1.7, 10, 17, 8), (0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650)),
    (3.2, (17, 8, 0.05, 10, 0.1, 14), (0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381)),
)


def hartmann(point: Point) -> float:
    """Return a function of six parameters with six optima (Hartmann 1972)."""
    values = list(point.values())
    return -math.fsum(
        height * math.exp(-math.fsum(a * (x - c) ** 2 for a, x, c in zip(widths, values, centre, strict=True)))
        for height, widths, centre in HARTMANN
    )


MIXED = Space(
    (
        Parameter("model", Choices(("patchcore", "padim", "stfpm"))),
        Parameter("ratio", FloatRange(0.001, 1, log=True), Condition("model", ("patchcore",))),
        Parameter("neighbours", IntRange(1, 50), Condition("model", ("patchcore",))),
        Parameter("features", IntRange(10, 550), Condition("model", ("padim",))),
        Parameter("rate", FloatRange(1e-5, 1, log=True), Condition("model", ("stfpm",))),
        Parameter("size", Choices((128, 192, 256, 320, 384))),
    )
)


def mixed(point: Point) -> float:
    """Return what choosing a model and its parameters is like: each has its own optimum, PatchCore's is the best."""
    size = abs(float(point["size"]) - 256) / 2560
    if point["model"] == "patchcore":
        return size + abs(math.log10(float(point["ratio"]) / 0.1)) / 5 + abs(int(point["neighbours"]) - 9) / 200
    if point["model"] == "padim":
        return size + 0.1 + abs(int(point["features"]) - 100) / 1000
    return size + 0.15 + abs(math.log10(float(point["rate"]) / 0.01)) / 10


FUNCTIONS: tuple[tuple[str, Space, Callable[[Point], float]], ...] = (
    ("sphere, 4", box(4, -5, 5), sphere),
    ("Rosenbrock, 3", box(3, -2, 2), rosenbrock),
    ("Branin, 2", Space((Parameter("x0", FloatRange(-5, 10)), Parameter("x1", FloatRange(0, 15)))), branin),
    ("Ackley, 4", box(4, -5, 10), ackley),
    ("Hartmann, 6", box(6, 0, 1), hartmann),
    ("models, 6 conditional", MIXED, mixed),
)


def problem(name: str, space: Space, loss: Callable[[Point], float]) -> Problem:
    """Return a problem, with what is near found on a fine net over the space."""
    net = qmc.Sobol(len(space.parameters), scramble=True, rng=0).random(SAMPLED).tolist()
    losses = sorted(loss(points.from_unit(space, cube)) for cube in net)
    return Problem(name, space, loss, losses[round(NEAR * SAMPLED)])


def from_table(file: Path, objective: str, minimize: bool) -> Problem:
    """Return the search for the best row of a measured grid; combinations that it lacks are the worst."""
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    names = [name for name in rows[0] if name != objective]
    sign = 1.0 if minimize else -1.0
    measured = {tuple(row[name] for name in names): sign * float(row[objective]) for row in rows}
    space = Space(tuple(Parameter(name, Choices(tuple(dict.fromkeys(row[name] for row in rows)))) for name in names))
    look_up = partial(looked_up, measured, tuple(names))
    return Problem(file.name, space, look_up, min(measured.values()))


def looked_up(measured: Mapping[tuple[str, ...], float], names: tuple[str, ...], point: Point) -> float:
    """Return a measured value."""
    return measured.get(tuple(point[name] for name in names), max(measured.values()))


def sweep_of(task: Problem, name: AlgorithmName, seed: int) -> Sweep:
    """Return the search for the smallest loss."""
    return Sweep(task.space, Limits(100 * MOST, PARALLEL), (Objective("loss", "minimize"),), Algorithm(name, seed))


def trials_needed(task: Problem, name: AlgorithmName, seed: int) -> float:
    """Return the trials until one is near; MOST if none is."""
    sweep = sweep_of(task, name, seed)
    done: list[Trial] = []
    for number in range(MOST):
        # Random points depend on nothing but their number; in a table none is drawn twice.
        known = [] if name == "random" and points.count(task.space) is None else done
        suggestion = suggest(sweep, known, number)
        if not isinstance(suggestion, Suggestion):
            break
        loss = task.loss(suggestion.parameters)
        if loss <= task.near:
            return number + 1
        done.append(Trial(number, suggestion.parameters, State.COMPLETE, (loss,)))
    return MOST


def halving_needed(task: Problem, seed: int) -> float:
    """Return the cost, in full trials, until one of full fidelity is near; MOST if none is, or a table ends."""
    sweep = replace(sweep_of(task, "random", seed), fidelity=Fidelity(FIDELITIES, REDUCTION))
    done: list[Trial] = []
    spent = 0.0
    while spent < MOST and (starts := schedule(sweep, done, NOW).start):
        for start in starts:
            number, rung, _ = start.identity
            parameters = start.parameters or suggested(sweep, number)
            loss = seen(task, parameters, FIDELITIES[rung])
            spent += FIDELITIES[rung]
            if rung == len(FIDELITIES) - 1 and loss <= task.near:
                return spent
            done.append(Trial(number, parameters, State.COMPLETE, (loss,), rung=rung))
    return MOST


def suggested(sweep: Sweep, number: int) -> Point:
    """Return a random point."""
    suggestion = suggest(sweep, [], number)
    assert isinstance(suggestion, Suggestion)
    return suggestion.parameters


def seen(task: Problem, parameters: Point, fidelity: float) -> float:
    """Return a loss as a smaller share of the data shows it: with an error of up to a fifth, the same each time."""
    loss = task.loss(parameters)
    noise = math.sin(1e4 * (1 + abs(loss) % 1))
    return loss + (1 - fidelity) * 0.2 * abs(loss) * noise


def median(pool: ProcessPoolExecutor, run: Callable[[int], float], seeds: int) -> float:
    """Return the median over seeds."""
    return statistics.median(pool.map(run, range(seeds)))


def measured(pool: ProcessPoolExecutor, task: Problem, seeds: int) -> Iterator[tuple[str, float]]:
    """Yield what each way needs."""
    yield "random", median(pool, partial(trials_needed, task, "random"), seeds)
    yield "tpe", median(pool, partial(trials_needed, task, "tpe"), seeds)
    if points.count(task.space) is None:
        yield "halving", median(pool, partial(halving_needed, task), seeds)


def main() -> None:
    """Print a line a function."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--objective", default="image.AUROC")
    parser.add_argument("--minimize", action="store_true")
    options = parser.parse_args()
    tasks = [problem(*function) for function in FUNCTIONS]
    if options.table:
        tasks = [from_table(options.table, options.objective, options.minimize)]
    print(f"medians of {options.seeds} seeds; trials, halving in full trials; ratios to random's")
    with ProcessPoolExecutor(options.jobs) as pool:
        for task in tasks:
            found = dict(measured(pool, task, options.seeds))
            told = (f"{name} {needed:6.1f} ({needed / found['random']:.2f})" for name, needed in found.items())
            print(f"{task.name:24}", *told, sep="   ", flush=True)


if __name__ == "__main__":
    main()
