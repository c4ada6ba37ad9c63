"""Sobol's sequence, scrambled: point by index, so that it needs no memory."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from anomaly_search import points
from anomaly_search.space import Value
from anomaly_search.sweep import Sweep


def sobol(sweep: Sweep, number: int, given: Mapping[str, Value] = MappingProxyType({})) -> dict[str, Value]:
    """Return a point of the sequence: one coordinate a parameter, those that do not exist are skipped.

    `given` parameters keep their values.
    """
    from scipy.stats import qmc  # takes half a second: where it is needed

    sequence = qmc.Sobol(len(sweep.space.parameters), scramble=True, rng=sweep.algorithm.seed)
    if number:
        sequence.fast_forward(number)
    return points.from_unit(sweep.space, sequence.random(1)[0].tolist(), given)
