"""Searches whose answer is known: six functions that are cheap to compute, and a grid that the real runner measured."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from scipy.stats import qmc

from anomaly_api.experiment import ExperimentSpec
from anomaly_search import points
from anomaly_search.space import Choices, Condition, FloatRange, IntRange, Parameter, Space
from anomaly_search.spec import sweep_of
from benchmarks.measured_grid import MANIFEST, TABLE, objective_column, rungs, written

Point = Mapping[str, Any]
SAMPLED = 2**15
"""Points of the net on which the best shares of a function's space are found."""


@dataclass(frozen=True)
class Problem:
    """Something to minimise.

    Attributes:
        name: for people.
        space: of its points.
        losses: of a net over the space, or of all its points; sorted.
        loss: of a point at a rung; infinite where it cannot work there.
        costs: of a trial at each rung, in full trials; the last one is 1.
    """

    name: str
    space: Space
    losses: Sequence[float]
    loss: Callable[[Point, int], float]
    costs: tuple[float, ...]

    def near(self, share: float) -> float:
        """Return the loss of the worst point that is among the best share of the space."""
        return self.losses[max(1, round(share * len(self.losses))) - 1]

    def random_median(self, share: float) -> float:
        """Return how many random points it takes to be near in half of all cases, each drawn once in a finite space."""
        near = sum(loss <= self.near(share) for loss in self.losses)
        if points.count(self.space) is None:
            return math.log(0.5) / math.log(1 - near / len(self.losses))
        return float(_median_without_repeats(len(self.losses), near))


def _median_without_repeats(total: int, near: int) -> int:
    missed, drawn = 1.0, 0
    while missed > 0.5:
        missed *= (total - near - drawn) / (total - drawn)
        drawn += 1
    return drawn


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

FRACTION = 0.1
"""Share of the data that a function's cheap look is played to have."""


def functions() -> list[Problem]:
    """Return the functions, each with a cheap look beside the full one."""
    return [_function(*one) for one in FUNCTIONS]


def _function(name: str, space: Space, loss: Callable[[Point], float]) -> Problem:
    net = qmc.Sobol(len(space.parameters), scramble=True, rng=0).random(SAMPLED).tolist()
    losses = sorted(loss(points.from_unit(space, cube)) for cube in net)
    return Problem(name, space, losses, partial(_seen, loss), (FRACTION, 1.0))


def _seen(loss: Callable[[Point], float], point: Point, rung: int) -> float:
    """Return a loss as a share of the data shows it: with an error of up to a fifth, the same each time."""
    whole = loss(point)
    noise = math.sin(1e4 * (1 + abs(whole) % 1))
    return whole if rung else whole + (1 - FRACTION) * 0.2 * abs(whole) * noise


def measured_grid(manifest: Path = MANIFEST, table: Path = TABLE) -> Problem:
    """Return the search for the best row of a table that measured_grid has written."""
    spec = ExperimentSpec.model_validate(yaml.safe_load(manifest.read_text(encoding="utf-8"))["spec"]).sweep
    assert spec is not None
    assert spec.fidelity is not None
    sweep = sweep_of(spec)
    assert sweep.fidelity is not None
    names = [objective_column(spec, rung) for rung in range(rungs(spec))]
    with table.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    better, paths = sweep.objectives[0], paths_of(sweep.space)
    known = {
        tuple(row[path] for path in paths): [better.loss(float(row[name])) if row[name] else math.inf for name in names]
        for row in rows
    }
    costs = tuple(value / sweep.fidelity.values[-1] for value in sweep.fidelity.values)
    loss = partial(_looked_up, sweep.space, known)
    return Problem("measured grid", sweep.space, sorted(values[-1] for values in known.values()), loss, costs)


def paths_of(space: Space) -> list[str]:
    """Return the paths of all parameters."""
    return [parameter.path for parameter in space.parameters]


def _looked_up(space: Space, known: Mapping[tuple[str, ...], Sequence[float]], point: Point, rung: int) -> float:
    key = tuple(written(point[path]) if path in point else "" for path in paths_of(space))
    return known[key][rung]
