"""The course of a training in few points. Imports neither torch nor Lightning."""

import math
from collections.abc import Sequence

from anomaly_api.status import MAX_CURVE, Curve
from anomaly_api.training import WatchedMetric

Point = tuple[int, float]
"""Number of epochs, and the value of a metric after them."""


def make_curve(
    metric: WatchedMetric, points: Sequence[Point], most: int = MAX_CURVE, *, synthetic: bool | None = None
) -> Curve:
    """A curve of at most ``most`` points (3 or more), with values rounded to six digits."""
    kept = thinned(points, most, lowest_is_best=metric == "trainLoss")
    return Curve(
        metric=metric,
        synthetic=synthetic or None,
        epochs=tuple(epoch for epoch, _ in kept),
        values=tuple(float(f"{value:.6g}") for _, value in kept),
    )


def thinned(points: Sequence[Point], most: int, *, lowest_is_best: bool) -> Sequence[Point]:
    """At most ``most`` (3 or more) of the points: some at equal distances, the best one and the last one, in order."""
    if len(points) <= most:
        return points
    stride = math.ceil(len(points) / (most - 2))
    sign = -1 if lowest_is_best else 1
    best = max(range(len(points)), key=lambda index: sign * points[index][1])
    kept = {*range(0, len(points), stride), best, len(points) - 1}
    return [points[index] for index in sorted(kept)]
