"""AUPRO: the exact area under the per-region overlap curve.

Every connected region of defective pixels has the same weight, whatever its size. For falling thresholds, the curve
shows the mean share of each region that is found over the false positive rate of the good pixels, up to 0.3; the area
is divided by 0.3 (Bergmann et al., "Uninformed Students", CVPR 2020; points are joined by straight lines).

A defective pixel with score s is found at all false positive rates from the rate at threshold s on. It therefore adds
the rest of the interval up to 0.3, divided by the size of its region: no list of thresholds is needed, and only one map
is held at a time.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

FPR_LIMIT = 0.3
_NEIGHBOURS = np.ones((3, 3), int)
"""Pixels that touch by a side or a corner belong to the same region."""


def aupro(defects: Iterable[tuple[NDArray[np.float32], NDArray[np.bool_]]], good: NDArray[np.float32]) -> float | None:
    """Area under the per-region overlap up to a false positive rate of 0.3, divided by 0.3 (Bergmann et al., 2020).

    Args:
        defects: scores (H, W) and mask (H, W) of each defective image.
        good: (N,) scores of all good pixels of good and defective images, ascending; at least one.

    Returns:
        0..1, or None if there is no region.
    """
    from scipy.ndimage import label  # slow to import, and most runs do not compute AUPRO

    total, regions = 0.0, 0
    for scores, mask in defects:
        found, count = label(mask, structure=_NEIGHBOURS)
        inside = found[mask]
        gained = _area_gained(scores[mask], good)
        sizes = np.bincount(inside, minlength=count + 1)[1:]
        total += float((np.bincount(inside, gained, count + 1)[1:] / sizes).sum())
        regions += int(count)
    return total / regions / FPR_LIMIT if regions else None


def _area_gained(scores: NDArray[np.float32], good: NDArray[np.float32]) -> NDArray[np.float64]:
    """Area (N,) that each defective pixel with these scores (N,) adds.

    Among good pixels of the same score, the curve is a straight line.
    """
    first = (len(good) - np.searchsorted(good, scores, "right")) / len(good)
    last = (len(good) - np.searchsorted(good, scores, "left")) / len(good)
    whole = FPR_LIMIT - (first + last) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(last > first, (FPR_LIMIT - first) ** 2 / (2 * (last - first)), 0.0)
    return np.where(last <= FPR_LIMIT, whole, np.where(first < FPR_LIMIT, part, 0.0))
