"""What is searched for, how, and within which limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeAlias

from anomaly_search.space import Choices, Space, SpaceError, Value

AlgorithmName: TypeAlias = Literal["grid", "random", "sobol", "tpe", "cmaes"]


@dataclass(frozen=True)
class Algorithm:
    """How points are found.

    startup_trials: results that TPE waits for, on Sobol's points.
    candidates: points that TPE draws and compares for each that it suggests.
    population: trials of a generation of CMA-ES; None is 4 + 3 ln(parameters), after Hansen.
    sigma: first step size of CMA-ES, as a share of each parameter's range.
    """

    name: AlgorithmName = "tpe"
    seed: int = 0
    startup_trials: int = 10
    candidates: int = 24
    population: int | None = None
    sigma: float = 1 / 6


@dataclass(frozen=True)
class Objective:
    """A metric to make large or small; at `target` it is good enough."""

    metric: str
    goal: Literal["maximize", "minimize"] = "maximize"
    target: float | None = None

    def loss(self, value: float) -> float:
        """Return the value, turned so that less is better."""
        return -value if self.goal == "maximize" else value

    def reached(self, value: float) -> bool:
        """Whether the value is as good as the target."""
        return self.target is not None and self.loss(value) <= self.loss(self.target)


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric: exactly one of `max` and `min`."""

    metric: str
    max: float | None = None
    min: float | None = None

    def violation(self, value: float) -> float:
        """Return by how much of the bound the value is beyond it; 0 or less if it is not.

        TPE adds up the violations of all constraints: those in bytes would drown those in milliseconds.
        """
        if self.max is not None:
            return (value - self.max) / (abs(self.max) or 1.0)
        assert self.min is not None
        return (self.min - value) / (abs(self.min) or 1.0)


@dataclass(frozen=True)
class Racing:
    """When the further replicates of a point are saved: from how many on, and at which level of the test."""

    after_replicates: int = 2
    level: float = 0.1


@dataclass(frozen=True)
class Replicates:
    """Each point is measured so many times, over seeds and categories; its value is their aggregate.

    racing: None measures every point in full.
    """

    count: int = 1
    aggregate: Literal["mean", "median", "min", "max"] = "mean"
    racing: Racing | None = Racing()


@dataclass(frozen=True)
class Fidelity:
    """The values of one field from cheap to full, and which share (1 / reduction) of the points goes on to the next."""

    values: tuple[float, ...]
    reduction: int = 4


@dataclass(frozen=True)
class Limits:
    """How many points, how many runs at a time, and how many points may fail."""

    max: int
    parallel: int = 1
    max_failed: int | None = None


@dataclass(frozen=True)
class Budget:
    """What the sweep may use; without_improvement counts finished points since the best one."""

    gpu_hours: float | None = None
    wall_clock: timedelta | None = None
    without_improvement: int | None = None


@dataclass(frozen=True)
class Sweep:
    """The whole task.

    `start` are points to begin with; parameters that one leaves out are filled in.

    Raises:
        SpaceError: the algorithm or a start point does not go with the space.
    """

    space: Space
    limits: Limits
    objectives: tuple[Objective, ...]
    algorithm: Algorithm = Algorithm()
    constraints: tuple[Constraint, ...] = ()
    replicates: Replicates = Replicates()
    fidelity: Fidelity | None = None
    budget: Budget = Budget()
    start: tuple[Mapping[str, Value], ...] = ()

    def __post_init__(self) -> None:
        if reason := unsuitable(self):
            raise SpaceError(reason)
        domains = {parameter.path: parameter for parameter in self.space.parameters}
        for point in self.start:
            for path, value in point.items():
                if path not in domains or not domains[path].contains(value):
                    raise SpaceError(f"start: {path} has no value {value!r}")

    @property
    def rungs(self) -> int:
        """How many fidelities there are."""
        return len(self.fidelity.values) if self.fidelity else 1

    @property
    def single(self) -> bool:
        """Whether there is one objective alone."""
        return len(self.objectives) == 1


def unsuitable(sweep: Sweep) -> str | None:
    """Return why the algorithm cannot search this space; None if it can."""
    domains = [parameter.domain for parameter in sweep.space.parameters]
    if sweep.algorithm.name == "grid" and any(domain.size is None for domain in domains):
        return "grid needs a step for every range of real numbers"
    if sweep.algorithm.name != "cmaes":
        return None
    if sweep.space.conditional or any(isinstance(domain, Choices) for domain in domains):
        return "cmaes needs numbers that always exist: no choices and no conditions"
    return None if sweep.single else "cmaes needs a single objective"
