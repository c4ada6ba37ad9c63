"""When the best got better."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from anomaly_search.evaluations import Evaluation
from anomaly_search.sweep import Sweep


def improvements(sweep: Sweep, finished: Sequence[Evaluation]) -> list[int]:
    """Return the places, in the order given, of points at the full fidelity that none before was as good as.

    With several objectives: that enlarged the Pareto front.
    """
    full = [place for place, one in enumerate(finished) if one.feasible and one.rung == sweep.rungs - 1]
    if sweep.single:
        return list(_records(full, [losses(sweep, finished[place])[0] for place in full]))
    return list(_enlargements(full, [losses(sweep, finished[place]) for place in full]))


def _records(places: Sequence[int], losses: Sequence[float]) -> Iterator[int]:
    best = math.inf
    for place, loss in zip(places, losses, strict=True):
        if loss < best:
            best = loss
            yield place


def _enlargements(places: Sequence[int], losses: Sequence[tuple[float, ...]]) -> Iterator[int]:
    import numpy as np  # fronts may have thousands of points

    front = np.empty((0, len(losses[0]) if losses else 0))
    for place, own in zip(places, losses, strict=True):
        at_least_as_good = (front <= own).all(axis=1)
        if at_least_as_good.any():
            continue
        beaten = (front >= own).all(axis=1)
        front = np.vstack([front[~beaten] if beaten.any() else front, own])
        yield place


def losses(sweep: Sweep, one: Evaluation) -> tuple[float, ...]:
    """Return the values of the objectives, turned so that less is better."""
    return tuple(objective.loss(value) for objective, value in zip(sweep.objectives, one.objectives, strict=True))
