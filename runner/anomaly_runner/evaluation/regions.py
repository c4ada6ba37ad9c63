"""AUPRO: the area under the per-region overlap, exact.

Every connected defect counts the same, however large. Over falling thresholds the mean share of each region that is
found is drawn against the share of good pixels that alarm, up to a false positive rate of 0.3, and the area is
divided by 0.3 (Bergmann et al., "Uninformed Students", CVPR 2020; points are joined by straight lines).

A defective pixel with score s is found from the false positive rate at s on, so it adds what is left of the interval
from there, weighed by its region: no thresholds need to be drawn, and no map is held longer than its image.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

FPR_LIMIT = 0.3
_NEIGHBOURS = np.ones((3, 3), int)
"""Pixels that touch by a side or a corner are one region."""


def aupro(defects: Iterable[tuple[NDArray[np.float32], NDArray[np.bool_]]], good: NDArray[np.float32]) -> float | None:
    """Area under the per-region overlap up to a false positive rate of 0.3, divided by 0.3 (Bergmann et al., 2020).

    Args:
        defects: scores (H, W) and mask (H, W) of each image with a defect.
        good: sorted scores of all good pixels, of good and defective images; at least one.

    Returns:
        0..1, or None if there is no region.
    """
    from scipy.ndimage import label  # here: most runs do not ask for it, and it is slow to import

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
    """Area that each defective pixel adds; among good pixels of the same score, the curve is a straight line."""
    first = (len(good) - np.searchsorted(good, scores, "right")) / len(good)
    last = (len(good) - np.searchsorted(good, scores, "left")) / len(good)
    whole = FPR_LIMIT - (first + last) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(last > first, (FPR_LIMIT - first) ** 2 / (2 * (last - first)), 0.0)
    return np.where(last <= FPR_LIMIT, whole, np.where(first < FPR_LIMIT, part, 0.0))
