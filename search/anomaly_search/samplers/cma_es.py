"""CMA-ES, replayed: the distribution follows from the generations that are over.

Optuna's sampler pickles the optimiser into the study and begins from its prior without it. Here the `cmaes` package is
told again all that is known, generation by generation, and draws the point of a number from a generator of its own.
(Hansen 2016, The CMA Evolution Strategy: A Tutorial.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import count

import numpy as np
from cmaes import CMA
from numpy.typing import NDArray

from anomaly_search import points
from anomaly_search.evaluations import Evaluation
from anomaly_search.space import Value
from anomaly_search.sweep import Sweep
from anomaly_search.trials import State


def cma_es(sweep: Sweep, evaluations: Iterable[Evaluation], seed: int) -> dict[str, Value]:
    """Return a point drawn from what the finished generations have led to."""
    optimizer = _replayed(sweep, evaluations)
    optimizer.reseed_rng(seed)
    return points.from_unit(sweep.space, optimizer.ask().tolist())


def _replayed(sweep: Sweep, evaluations: Iterable[Evaluation]) -> CMA:
    dimensions = len(sweep.space.parameters)
    optimizer = CMA(
        mean=np.full(dimensions, 0.5),
        sigma=sweep.algorithm.sigma,
        bounds=np.tile([0.0, 1.0], (dimensions, 1)),
        seed=sweep.algorithm.seed,
        population_size=sweep.algorithm.population,
    )
    for generation in _generations(evaluations, optimizer.population_size):
        optimizer.tell(_ranked(sweep, generation))
    return optimizer


def _generations(evaluations: Iterable[Evaluation], size: int) -> Iterator[list[Evaluation]]:
    """Yield the generations, as many numbers in a row each, of which no trial is missing or at work.

    A slow one holds nobody up: its generation is told later, in its place. Points are compared at the lowest fidelity,
    the only one that all of them have.
    """
    lowest: Mapping[int, Evaluation] = {one.number: one for one in evaluations if one.rung == 0}
    last = max(lowest, default=-1)
    for start in count(0, size):
        if start + size > last + 1:
            return
        members = [lowest.get(number) for number in range(start, start + size)]
        done = [one for one in members if one is not None and one.state is not State.RUNNING]
        if len(done) == size:
            yield done


def _ranked(sweep: Sweep, generation: Iterable[Evaluation]) -> list[tuple[NDArray[np.float64], float]]:
    """Return each point in the unit cube with its rank, which is all that CMA-ES looks at."""
    order = sorted(generation, key=lambda one: (*_badness(sweep, one), one.number))
    return [(_cube(sweep, one), float(rank)) for rank, one in enumerate(order)]


def _badness(sweep: Sweep, one: Evaluation) -> tuple[float, float]:
    """Return by what points are compared: first within the constraints, then least beyond them, then the rest."""
    if one.state is not State.COMPLETE:
        return math.inf, 0.0
    return sum(max(0.0, violation) for violation in one.violations), sweep.objectives[0].loss(one.objectives[0])


def _cube(sweep: Sweep, one: Evaluation) -> NDArray[np.float64]:
    return np.array(
        [points.to_unit(parameter.domain, one.parameters[parameter.path]) for parameter in sweep.space.parameters]
    )
