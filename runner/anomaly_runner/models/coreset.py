"""PatchCore's coreset: the greedy k-center algorithm on patches, projected where that makes them shorter.

Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018;
projection of Li, Hastie, Church, "Very Sparse Random Projections", KDD 2006. Random draws and arithmetic are those of
anomalib's ``KCenterGreedy``, so that the same seed picks the same patches.

The algorithm picks one point after the other, each by its distances to all points. Here many points are picked between
two looks at all of them (see ``_next_farthest``), so that nearly all of the work is a few large products of matrices.
"""

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anomaly_runner.models.threads import TorchThreads, gpu_arithmetic

_EPSILON = 0.9
_STEPS = 32
"""Number of points that are picked before a value is read back from the device."""
_BLOCK_ON_CPU, _BLOCK_ON_GPU = 1 << 10, 1 << 13
"""Number of farthest points among which the next ones are picked: so few that they stay in a CPU's cache, so many that
a GPU is busy."""
_ROWS_ON_CPU, _ROWS_ON_GPU = 1 << 12, 1 << 16
"""Largest number of points whose distances to new centres are computed at the same time, on each thread."""
_PRODUCTS_ON_CPU, _PRODUCTS_ON_GPU = 1 << 20, 1 << 26
"""Largest number of such distances."""
_PAIRS_ON_CPU, _PAIRS_ON_GPU = 1 << 10, 1 << 16
"""Number of pairs of points whose differences are held at the same time, on each thread."""
_ROUNDING = 2.0**-24
"""Largest relative error of a float32 operation."""


def projected_dimension(samples: int) -> int:
    """Dimension of a random projection that keeps distances between samples, two or more, within epsilon 0.9.

    The bound of Johnson and Lindenstrauss, as in ``sklearn.random_projection.johnson_lindenstrauss_min_dim``.
    """
    return int(4 * np.log(max(samples, 2)) / (_EPSILON**2 / 2 - _EPSILON**3 / 3))


def compared_numbers(samples: int, features: int) -> int:
    """Length of the vectors by which this many samples are compared: projected ones only where those are shorter.

    anomalib always projects: 100,000 patches of EfficientNet-Lite0 from 152 numbers to 284, which are slower to compare
    and tell distances less exactly.
    """
    return min(features, projected_dimension(samples))


def projected(patches: Tensor, seed: int) -> Tensor:
    """Patches (N, D) as they are compared: (N, ``compared_numbers``); the patches themselves if that is D."""
    if compared_numbers(*patches.shape) == patches.shape[1]:
        return patches
    return projected_always(patches, seed)


def projected_always(patches: Tensor, seed: int) -> Tensor:
    """Patches (N, D), projected to (N, ``projected_dimension``) even where that makes them longer, as anomalib does."""
    matrix = sparse_random_projection(len(patches), patches.shape[1], seed).to(patches.device)
    found = patches.new_empty(len(patches), len(matrix))
    # in parts, because a product needs as much memory again as its factors
    for part, into in zip(*(torch.split(rows, _ROWS_ON_GPU) for rows in (patches, found)), strict=True):
        torch.mm(part, matrix.T, out=into)
    return found


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


def k_center_greedy(points: Tensor, count: int, check: Callable[[int], None], threads: TorchThreads) -> Tensor:
    """Indices (count,) of points, each the farthest from those before it; the first is drawn at random.

    Of points that are equally far the first is picked, and none again unless all others are copies of picked ones.

    Args:
        points: (N, D) float32.
        count: number of points to pick.
        check: called regularly with the number of points picked so far; may raise to stop.
        threads: the points are divided among them on the CPU, which does not change the result.
    """
    with torch.inference_mode(), gpu_arithmetic(tf32=False, deterministic=True):
        cover, picked = Cover(points, threads), torch.randint(high=len(points), size=(1,)).to(points.device)
        cover.add(picked)
        while len(picked) < count:
            check(len(picked))
            farthest = _next_farthest(points, cover.distance, count - len(picked))
            cover.add(farthest)
            picked = torch.cat([picked, farthest])
        return picked


def _next_farthest(points: Tensor, distance: Tensor, count: int) -> Tensor:
    """Indices of the next points to pick, at least one and at most ``count``.

    Picks among those points that are farthest from the centres now. A pick is certain for as long as it is farther than
    all other points are now: their distances can only fall.

    Args:
        points: (N, D).
        distance: (N,), distances to the nearest centre.
        count: number of points that are still wanted.
    """
    size = min(_BLOCK_ON_CPU if points.device.type == "cpu" else _BLOCK_ON_GPU, len(points))
    farthest = torch.topk(distance, size)
    block = farthest.indices.sort().values  # in order, so that the first of equally far points is found
    bound = farthest.values[-1:] if size < len(points) else distance.new_full((1,), -1.0)
    picking, picked = PickingInBlock(points[block], distance[block]), block[:0]
    while len(picked) < count:
        wanted = min(count - len(picked), _STEPS)
        indices, distances = picking.pick(wanted)
        certain = int((distances > bound).sum())  # the only value that is read: a GPU waits once in so many steps
        picked = torch.cat([picked, block[indices[:certain]]])
        if certain < wanted:
            break
    return picked if len(picked) else _first_of_equals(distance, count)


def _first_of_equals(distance: Tensor, count: int) -> Tensor:
    """Index of the first of the farthest points, where more points are equally far than a block holds.

    It is repeated if all distances are zero: then the others are copies of picked points.
    """
    first = torch.argmax(distance, dim=0, keepdim=True)
    return first if distance[first].any() else first.repeat(count)


class PickingInBlock:
    """Picks the farthest of a few points, by their distances to each new pick.

    Args:
        points: (n, D).
        distance: (n,), distances to the nearest centre; changed by picks.
    """

    def __init__(self, points: Tensor, distance: Tensor) -> None:
        self._points, self._distance = points, distance
        self._difference, self._to_picked = torch.empty_like(points), torch.empty_like(distance)

    def pick(self, count: int) -> tuple[Tensor, Tensor]:
        """Pick ``count`` points, each the farthest: their indices, and their distances when they were picked.

        Indices stay tensors on the points' device: reading one would make a GPU wait at each step.
        """
        indices = torch.empty(count, dtype=torch.long, device=self._points.device)
        distances = self._distance.new_empty(count)
        for step in range(count):
            index = torch.argmax(self._distance, dim=0, keepdim=True)
            indices[step : step + 1] = index
            distances[step : step + 1] = self._distance.index_select(0, index)
            torch.sub(self._points, self._points.index_select(0, index), out=self._difference)
            torch.linalg.norm(self._difference, ord=2, dim=1, out=self._to_picked)
            torch.minimum(self._distance, self._to_picked, out=self._distance)
            self._distance.index_fill_(0, index, 0.0)  # as in anomalib, a picked point is not picked again
        return indices, distances


class Cover:
    """Distances of N points to the nearest of the centres added so far, to the last bit those of their differences.

    Distances to many centres at once are a product of matrices, ``x^2 + y^2 - 2xy``, which is fast and loses digits. So
    it only tells which centres may be nearer than those before, within a bound of its rounding errors (Higham,
    "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1). Distances to these, to hardly one in a
    thousand, are computed from differences.

    Args:
        points: (N, D) float32.
        threads: the points are divided among them on the CPU.
    """

    distance: Tensor
    """(N,), infinite before the first centre; zero for a centre."""

    def __init__(self, points: Tensor, threads: TorchThreads) -> None:
        self.distance = torch.full((len(points),), torch.inf, device=points.device)
        self._points, self._threads = points, threads
        on_cpu = points.device.type == "cpu"
        self._rows = _ROWS_ON_CPU if on_cpu else _ROWS_ON_GPU
        self._products = _PRODUCTS_ON_CPU if on_cpu else _PRODUCTS_ON_GPU
        self._pairs = _PAIRS_ON_CPU if on_cpu else _PAIRS_ON_GPU
        # errors grow with the lengths of vectors, which are small when seen from the middle of all points
        self._middle = points.mean(0)
        parts = torch.split(points, self._rows)
        self._squares = torch.cat([(part - self._middle).square().sum(1) for part in parts])
        # twice the bound for a product of vectors, their squares and the comparison with a distance
        self._error = 4 * (points.shape[1] + 4) * _ROUNDING * (self._squares + self._squares.max())

    def add(self, indices: Tensor) -> None:
        """Make the points with these indices (m,) centres."""
        for centres in torch.split(indices, self._products // self._rows * 4):
            rows = min(self._rows, self._products // len(centres))
            parts = [slice(start, start + rows) for start in range(0, len(self._points), rows)]
            deque(self._threads.map(partial(self._lower, centres), parts), maxlen=0)
        self.distance.index_fill_(0, indices, 0.0)

    def _lower(self, centres: Tensor, part: slice) -> None:
        """Lower the distances of a part of the points to those to the centres, where these are nearer."""
        points, distance, error = self._points[part], self.distance[part], self._error[part]
        held = self._points[centres]
        products = torch.addmm(self._squares[centres], points - self._middle, (held - self._middle).T, alpha=-2)
        least = products.min(1).values
        nearer = torch.nonzero(least + self._squares[part] < distance.square() + error).squeeze(1)
        candidates = torch.nonzero(products[nearer] <= (least + 2 * error)[nearer, None])
        for pairs in torch.split(candidates, self._pairs):
            point, centre = nearer[pairs[:, 0]], pairs[:, 1]
            exact = torch.linalg.norm(points[point] - held[centre], ord=2, dim=1)
            distance.scatter_reduce_(0, point, exact, "amin")
