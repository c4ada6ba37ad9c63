"""The points of a finite space, in their order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from anomaly_search import points
from anomaly_search.space import Space, Value


def grid(space: Space, index: int, without: Iterable[Mapping[str, Value]]) -> dict[str, Value] | None:
    """Return the point at a place among those that are not `without`; None behind the last one."""
    for place in sorted({points.place_of(space, point) for point in without}):
        if place <= index:
            index += 1
    total = points.count(space)
    assert total is not None
    return points.point_at(space, index) if index < total else None


def untried(space: Space, tried: Iterable[Mapping[str, Value]], seed: int) -> dict[str, Value] | None:
    """Return one of the points that are not `tried`, each as likely as any other; None if there is none."""
    known = list(tried)
    total = points.count(space)
    assert total is not None
    left = total - len({space.key(point) for point in known})
    return grid(space, int(np.random.default_rng(seed).integers(left)), known) if left > 0 else None
