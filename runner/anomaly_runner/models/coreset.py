"""PatchCore's coreset: the greedy k-center algorithm on randomly projected patches.

Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018;
projection of Li, Hastie, Church, "Very Sparse Random Projections", KDD 2006. Random draws and arithmetic are those of
anomalib's ``KCenterGreedy``, so that the same seed picks the same patches.

It is faster than anomalib's: a patch p with nearest centre a cannot be nearer to a new centre c if
d(a, c) >= 2 d(p, a) (triangle inequality; Elkan, "Using the Triangle Inequality to Accelerate k-Means", ICML 2003), so
each step recomputes only the distances of patches that may be nearer to the new centre.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

_EPSILON = 0.9
_ROWS_ON_CPU, _ROWS_ON_GPU = 1 << 12, 1 << 16
"""Number of points whose differences from a centre are held at the same time: so few that they stay in a CPU's cache,
so many that a GPU is busy."""
_MARGIN = 1.0 - 1e-4
"""Margin for rounding in the triangle inequality: a few patches too many are recomputed, never one too few."""
_CHECK_EVERY = 64
"""Number of centres picked between two calls of ``check``."""


def projected_dimension(samples: int) -> int:
    """Dimension of a random projection that keeps distances between this many samples within epsilon 0.9.

    The bound of Johnson and Lindenstrauss, as in ``sklearn.random_projection.johnson_lindenstrauss_min_dim``.
    """
    return int(4 * np.log(samples) / (_EPSILON**2 / 2 - _EPSILON**3 / 3))


def sparse_random_projection(samples: int, features: int, seed: int) -> Tensor:
    """Sparse random matrix (``projected_dimension``, features) that keeps distances within epsilon 0.9.

    Draws from torch's generator and from numpy's legacy generator of this seed, as anomalib does after
    ``seed_everything``.
    """
    from sklearn.utils.random import sample_without_replacement

    random = np.random.RandomState(seed)
    density = 1 / math.sqrt(features)
    matrix = torch.zeros(projected_dimension(samples), features)
    # Any: torch.distributions has no types
    half: Any = torch.distributions.Binomial(total_count=1, probs=torch.tensor(0.5))
    count: Any = torch.distributions.Binomial(total_count=features, probs=torch.tensor(density))
    for row in matrix:
        chosen = sample_without_replacement(features, int(count.sample()), random_state=random)
        row[torch.as_tensor(chosen, dtype=torch.long)] = half.sample(torch.Size([len(chosen)])) * 2 - 1
    # a single factor, computed in float64: two float32 products would round differently from anomalib's
    return matrix * float(np.sqrt(1 / density) / np.sqrt(len(matrix)))


def k_center_greedy(points: Tensor, count: int, check: Callable[[int], None]) -> Tensor:
    """Indices (count,) of points, each the farthest from those before it; the first is drawn at random.

    Args:
        points: (N, D) float32.
        count: number of points to pick.
        check: called regularly with the number of points picked so far; may raise to stop.
    """
    nearest = PrunedDistances(points, count) if points.device.type == "cpu" else DenseDistances(points)
    return pick_farthest(nearest, count, check)


class DistancesToCentres(Protocol):
    """Distances of N points to the nearest of the centres added so far."""

    distance: Tensor
    """(N,), infinite before the first centre."""

    def add(self, index: Tensor) -> None:
        """Make the point with this index, a tensor (1,) on the points' device, a centre."""


def pick_farthest(nearest: DistancesToCentres, count: int, check: Callable[[int], None]) -> Tensor:
    """Indices (count,) of points, each the farthest from those before it; arguments as in ``k_center_greedy``.

    Every index stays a tensor on the points' device: reading one would make a GPU wait at each step.
    """
    device = nearest.distance.device
    index = torch.randint(high=len(nearest.distance), size=(1,)).to(device)
    picked = torch.empty(count, dtype=torch.long, device=device)
    picked[:1] = index
    for step in range(1, count):
        nearest.add(index)
        index = torch.argmax(nearest.distance, dim=0, keepdim=True)
        nearest.distance.index_fill_(0, index, 0.0)  # as in anomalib, a picked point is not picked again
        picked[step : step + 1] = index
        if step % _CHECK_EVERY == 1:
            check(step)
    return picked


class DenseDistances:
    """Computes the distances of all points to each new centre: on a GPU this takes less time than choosing points.

    Nothing is read back from the device. Memory beside the points: ``_ROWS_ON_GPU`` x D and N numbers.
    """

    def __init__(self, points: Tensor) -> None:
        self.distance = torch.full((len(points),), torch.inf, device=points.device)
        self._points = points
        self._buffer = points.new_empty(min(len(points), _ROWS_ON_GPU), points.shape[1])

    def add(self, index: Tensor) -> None:
        """Make the point with this index, a tensor (1,), a centre."""
        centre = torch.index_select(self._points, 0, index)
        parts = (torch.split(values, _ROWS_ON_GPU) for values in (self._points, self.distance))
        for points, distance in zip(*parts, strict=True):
            difference = torch.sub(points, centre, out=self._buffer[: len(points)])
            torch.minimum(distance, torch.linalg.norm(difference, ord=2, dim=1), out=distance)


class PrunedDistances:
    """Computes the distances of those points alone that may be nearer to the new centre, by the triangle inequality.

    Args:
        points: (N, D).
        count: largest number of centres.
    """

    def __init__(self, points: Tensor, count: int) -> None:
        self.distance = torch.full((len(points),), torch.inf, device=points.device)
        self._points = points
        self._centres = points.new_empty(count, points.shape[1])
        self._count = 0
        self._owner = torch.zeros(len(points), dtype=torch.long, device=points.device)
        self._buffer = points.new_empty(min(len(points), _ROWS_ON_CPU), points.shape[1])

    def add(self, index: Tensor) -> None:
        """Make the point with this index, a tensor (1,), a centre, and assign the points nearest to it."""
        centre = torch.index_select(self._points, 0, index, out=self._centres[self._count : self._count + 1])[0]
        self._count += 1
        candidates = self._candidates(centre)
        to_centre = self._distances(candidates, centre)
        nearer = to_centre < self.distance[candidates]
        won = candidates[nearer]
        self.distance[won] = to_centre[nearer]
        self._owner[won] = self._count - 1

    def _candidates(self, centre: Tensor) -> Tensor:
        """Indices of the points that may be nearer to the last centre (D,) than to the centre that owns them."""
        apart = torch.linalg.norm(self._centres[: self._count] - centre, ord=2, dim=1)
        # triangle inequality: a point p of centre a can be nearer to the last centre only if d(a, last) < 2 d(p, a)
        return torch.nonzero((apart * (0.5 * _MARGIN))[self._owner] < self.distance).squeeze(1)

    def _distances(self, rows: Tensor, centre: Tensor) -> Tensor:
        """Distances (len(rows),) of the points ``rows`` from a centre (D,).

        All steps share one buffer, because allocators do not always reuse freed memory.
        """
        found = self._points.new_empty(len(rows))
        for some, distances in zip(*(torch.split(values, _ROWS_ON_CPU) for values in (rows, found)), strict=True):
            held = torch.index_select(self._points, 0, some, out=self._buffer[: len(some)])
            torch.linalg.norm(held.sub_(centre), ord=2, dim=1, out=distances)
        return found
