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
from typing import Any

import numpy as np
import torch
from torch import Tensor

_EPSILON = 0.9
_BUFFER_ROWS = 1 << 14
"""Number of points whose differences from a centre are held at the same time."""
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
    index = torch.randint(high=len(points), size=(1,)).squeeze()
    picked = torch.empty(count, dtype=torch.long, device=points.device)
    picked[0] = index
    centres = points.new_empty(count, points.shape[1])
    distance = torch.full((len(points),), torch.inf, device=points.device)
    owner = torch.zeros(len(points), dtype=torch.long, device=points.device)
    buffer = points.new_empty(min(len(points), _BUFFER_ROWS), points.shape[1])
    for step in range(count - 1):
        centres[step] = points[index]
        _assign_to_last(points, centres[: step + 1], distance, owner, buffer)
        index = torch.argmax(distance)
        distance[index] = 0.0  # as in anomalib, a picked point is not picked again
        picked[step + 1] = index
        if step % _CHECK_EVERY == 0:
            check(step + 1)
    return picked


def _assign_to_last(points: Tensor, centres: Tensor, distance: Tensor, owner: Tensor, buffer: Tensor) -> None:
    """Assign to the last centre all points that are nearer to it than to their current centre.

    Args:
        points: (N, D).
        centres: (K, D), the centres picked so far.
        distance: (N,), distance of each point to its nearest centre; changed in place.
        owner: (N,), index of the nearest centre; changed in place.
        buffer: (n, D), see ``_distances``.
    """
    *_, centre = centres
    half_apart = torch.linalg.norm(centres - centre, ord=2, dim=1) * (0.5 * _MARGIN)
    # triangle inequality: a point p of centre a can be nearer to the last centre only if d(a, last) < 2 d(p, a)
    candidates = torch.nonzero(half_apart[owner] < distance).squeeze(1)
    to_centre = _distances(points, candidates, centre, buffer)
    nearer = to_centre < distance[candidates]
    won = candidates[nearer]
    distance[won] = to_centre[nearer]
    owner[won] = len(centres) - 1


def _distances(points: Tensor, rows: Tensor, centre: Tensor, buffer: Tensor) -> Tensor:
    """Distances (len(rows),) of the points ``rows`` from a centre (D,), n points at a time in a buffer (n, D).

    All steps share one buffer, because allocators do not always reuse freed memory.
    """
    found = points.new_empty(len(rows))
    for some, distances in zip(*(torch.split(values, len(buffer)) for values in (rows, found)), strict=True):
        held = torch.index_select(points, 0, some, out=buffer[: len(some)])
        torch.linalg.norm(held.sub_(centre), ord=2, dim=1, out=distances)
    return found
