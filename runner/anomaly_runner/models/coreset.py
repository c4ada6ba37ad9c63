"""The coreset of PatchCore: greedy k-centres over randomly projected patches.

Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018;
projection of Li, Hastie, Church, "Very Sparse Random Projections", KDD 2006. Draws and arithmetic are those of
anomalib's ``KCenterGreedy``, so that the same seed picks the same patches.

What is faster here: a patch p with nearest centre a cannot come nearer to a new centre c when
d(a, c) >= 2 d(p, a) (triangle inequality; Elkan, "Using the Triangle Inequality to Accelerate k-Means", ICML
2003), so each step recomputes only the patches that the new centre can win.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

_EPSILON = 0.9
_AT_ONCE = 1 << 14
"""Points whose differences from a centre are held at once."""
_MARGIN = 1.0 - 1e-4
"""Room for rounding in the triangle inequality: a few patches too many are recomputed, never one too few."""


def components(samples: int) -> int:
    """To how many numbers a sample is projected (Johnson and Lindenstrauss)."""
    return int(4 * np.log(samples) / (_EPSILON**2 / 2 - _EPSILON**3 / 3))


def projection(samples: int, features: int, seed: int) -> Tensor:
    """Sparse random matrix (components, features) that keeps distances within epsilon 0.9.

    Draws from torch's generator and from numpy's legacy generator of this seed, as anomalib does after
    ``seed_everything``.
    """
    from sklearn.utils.random import sample_without_replacement

    random = np.random.RandomState(seed)
    density = 1 / math.sqrt(features)
    matrix = torch.zeros(components(samples), features)
    half: Any = torch.distributions.Binomial(total_count=1, probs=torch.tensor(0.5))
    count: Any = torch.distributions.Binomial(total_count=features, probs=torch.tensor(density))
    for row in matrix:
        chosen = sample_without_replacement(features, int(count.sample()), random_state=random)
        row[torch.as_tensor(chosen, dtype=torch.long)] = half.sample(torch.Size([len(chosen)])) * 2 - 1
    # as a numpy scalar would: anomalib multiplies by this one product
    return matrix * float(np.sqrt(1 / density) / np.sqrt(len(matrix)))


def greedy_centres(points: Tensor, count: int, check: Callable[[int], None]) -> Tensor:
    """Indices (count,) of points, each the farthest from those before it; the first is drawn at random.

    Args:
        points: (N, D) float32.
        count: how many to pick.
        check: called with the number picked so far, now and then; may raise to stop.
    """
    index = torch.randint(high=len(points), size=(1,)).squeeze()
    picked = torch.empty(count, dtype=torch.long, device=points.device)
    picked[0] = index
    centres = points.new_empty(count, points.shape[1])
    nearest = torch.full((len(points),), torch.inf, device=points.device)
    owner = torch.zeros(len(points), dtype=torch.long, device=points.device)
    room = points.new_empty(min(len(points), _AT_ONCE), points.shape[1])
    for step in range(count - 1):
        centres[step] = points[index]
        _adopt(points, centres[: step + 1], nearest, owner, room)
        index = torch.argmax(nearest)
        nearest[index] = 0.0
        picked[step + 1] = index
        if step % 64 == 0:
            check(step + 1)
    return picked


def _adopt(points: Tensor, centres: Tensor, nearest: Tensor, owner: Tensor, room: Tensor) -> None:
    """Give points to the last of the centres where it is nearer than theirs."""
    *_, centre = centres
    apart = torch.linalg.norm(centres - centre, ord=2, dim=1) * (0.5 * _MARGIN)
    reach = torch.nonzero(apart[owner] < nearest).squeeze(1)
    distance = _distances(points, reach, centre, room)
    won = distance < nearest[reach]
    winners = reach[won]
    nearest[winners] = distance[won]
    owner[winners] = len(centres) - 1


def _distances(points: Tensor, rows: Tensor, centre: Tensor, room: Tensor) -> Tensor:
    """Of some points from a centre. ``room`` (n, D) holds n of them at a time: memory that is freed is not always used
    again.
    """
    found = points.new_empty(len(rows))
    for some, distances in zip(*(torch.split(values, len(room)) for values in (rows, found)), strict=True):
        held = torch.index_select(points, 0, some, out=room[: len(some)])
        torch.linalg.norm(held.sub_(centre), ord=2, dim=1, out=distances)
    return found
