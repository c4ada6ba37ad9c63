"""Exact metrics of raw scores, from one sort of each class. Knows neither images nor masks.

A score is positive when ``score >= threshold``. All metrics are computed from the sorted scores of both classes:
nothing is binned, squashed through a sigmoid or averaged over batches. Ties are treated exactly.

F1 as van Rijsbergen, "Information Retrieval", 1979; AUROC as the Mann-Whitney statistic (Hanley and McNeil,
Radiology 143, 1982); AUPR is average precision, without interpolation between points, which would be too
optimistic (Davis and Goadrich, ICML 2006).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 20
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class ScoresByClass:
    """Scores of defective and good items (images or pixels), each (N,) in ascending order.

    The arrays may be memory-mapped, and larger than memory.
    """

    positive: Scores
    negative: Scores

    @property
    def has_both_classes(self) -> bool:
        """Whether there is at least one item of each class."""
        return len(self.positive) > 0 and len(self.negative) > 0

    @property
    def empty(self) -> bool:
        """Whether there are no items at all."""
        return not len(self.positive) and not len(self.negative)


@dataclass(frozen=True)
class ConfusionCounts:
    """Numbers of right and wrong decisions; a defect is positive."""

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int

    @property
    def precision(self) -> float:
        """Share of the items found that are defective, 0..1; 0 when nothing is found."""
        return _share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """Share of the defective items that are found, 0..1; 0 when there are none."""
        return _share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, 0..1; 0 when no defective item is found."""
        return _share(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative)

    @property
    def iou(self) -> float:
        """Intersection over union (Jaccard index) of the items found and the defective ones, 0..1."""
        return _share(self.true_positive, self.true_positive + self.false_positive + self.false_negative)

    @property
    def accuracy(self) -> float:
        """Share of right decisions, 0..1."""
        right = self.true_positive + self.true_negative
        return _share(right, right + self.false_positive + self.false_negative)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def sort_by_class(scores: Scores, positive: NDArray[np.bool_]) -> ScoresByClass:
    """Sort scores (N,) by class."""
    return ScoresByClass(np.sort(scores[positive]), np.sort(scores[~positive]))


def confusion_at(scores: ScoresByClass, threshold: float) -> ConfusionCounts:
    """Count the decisions at a threshold of raw scores, in O(log N)."""
    lowest = _lowest_float32(threshold)
    missed = int(np.searchsorted(scores.positive, lowest, "left"))
    passed = int(np.searchsorted(scores.negative, lowest, "left"))
    return ConfusionCounts(len(scores.positive) - missed, len(scores.negative) - passed, passed, missed)


def _lowest_float32(threshold: float) -> np.float32:
    """The lowest float32 that is not below the threshold: a search for a float64 would copy the scores to float64."""
    with np.errstate(over="ignore"):
        near = np.float32(threshold)
    return near if float(near) >= threshold else np.nextafter(near, np.float32(np.inf))


def auroc(scores: ScoresByClass) -> float:
    """Area under the ROC curve, 0..1. Needs both classes.

    Equals the probability that a defective item scores higher than a good one, with ties counting half (Mann-Whitney's
    U).
    """
    twice = 0
    for start in range(0, len(scores.positive), _CHUNK):
        part = np.asarray(scores.positive[start : start + _CHUNK])
        twice += int(np.searchsorted(scores.negative, part, "left").sum(dtype=np.int64))
        twice += int(np.searchsorted(scores.negative, part, "right").sum(dtype=np.int64))
    return twice / (2 * len(scores.positive) * len(scores.negative))


def average_precision(scores: ScoresByClass) -> float:
    """Average precision, 0..1: the mean, over the defective items, of the precision at their scores.

    Needs both classes. Same as scikit-learn's ``average_precision_score``.
    """
    total = 0.0
    for point in operating_points(scores):
        precision = point.true_positives / (point.true_positives + point.false_positives)
        total += float(np.sum(point.new_true_positives / len(scores.positive) * precision))
    return total


def best_f1_threshold(scores: ScoresByClass) -> float:
    """The threshold with the highest F1: the score of a defective item, the lowest one if several give the same F1.

    A threshold that is not the score of a defective item is never better: raising it to the next such score only
    removes false positives.
    """
    best, threshold = -1.0, 0.0
    for point in operating_points(scores):
        f1 = 2 * point.true_positives / (len(scores.positive) + point.true_positives + point.false_positives)
        index = int(np.argmax(f1))
        if f1[index] > best:
            best, threshold = float(f1[index]), float(point.threshold[index])
    return threshold


@dataclass(frozen=True)
class OperatingPoints:
    """Counts at each distinct score of a defective item as the threshold; four arrays (n,), ascending by threshold.

    ``new_true_positives``: number of defective items with exactly this score.
    """

    threshold: Scores
    true_positives: NDArray[np.float64]
    new_true_positives: NDArray[np.float64]
    false_positives: NDArray[np.float64]


def operating_points(scores: ScoresByClass) -> Iterator[OperatingPoints]:
    """Yield the operating points in chunks, because the scores may be larger than memory."""
    total = len(scores.positive)
    start = 0
    while start < total:
        stop = _end_of_ties(scores.positive, min(start + _CHUNK, total))
        part = np.asarray(scores.positive[start:stop])
        first = np.flatnonzero(np.concatenate(([True], part[1:] != part[:-1])))
        threshold = part[first]
        false_positives = len(scores.negative) - np.searchsorted(scores.negative, threshold, "left")
        yield OperatingPoints(
            threshold=threshold,
            true_positives=(total - (start + first)).astype(float),
            new_true_positives=np.diff(np.append(first, len(part))).astype(float),
            false_positives=false_positives.astype(float),
        )
        start = stop


def _end_of_ties(scores: Scores, stop: int) -> int:
    """The first index, from ``stop`` on, whose score differs from the score before it."""
    if stop >= len(scores):
        return len(scores)
    return int(np.searchsorted(scores, scores[stop - 1], "right"))
