"""Metrics of raw scores, exact, from one sort of each class.

A score is positive when ``score >= threshold``. Everything follows from the sorted scores of both classes:
nothing is binned, squashed through a sigmoid or averaged over batches. Ties count as ties.

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
class Ranked:
    """Scores of defective and of good items, each sorted upwards; may be larger than memory (memory-mapped)."""

    positive: Scores
    negative: Scores

    @property
    def both_classes(self) -> bool:
        """Whether there are items of either class."""
        return len(self.positive) > 0 and len(self.negative) > 0


@dataclass(frozen=True)
class Counts:
    """Decisions against labels."""

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int

    @property
    def precision(self) -> float:
        """Share of positives that are right; 0 when there are none."""
        return _share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """Share of defective items found; 0 when there are none."""
        return _share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 when nothing is found."""
        return _share(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative)

    @property
    def iou(self) -> float:
        """Intersection over union (Jaccard index) of what is found and what is defective; 0 when nothing is found."""
        return _share(self.true_positive, self.true_positive + self.false_positive + self.false_negative)

    @property
    def accuracy(self) -> float:
        """Share of right decisions."""
        right = self.true_positive + self.true_negative
        return _share(right, right + self.false_positive + self.false_negative)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def rank(scores: Scores, positive: NDArray[np.bool_]) -> Ranked:
    """Sort scores (N,) by class."""
    return Ranked(np.sort(scores[positive]), np.sort(scores[~positive]))


def count_at(ranked: Ranked, threshold: float) -> Counts:
    """Decisions at a threshold."""
    lowest = _lowest_float32(threshold)
    missed = int(np.searchsorted(ranked.positive, lowest, "left"))
    passed = int(np.searchsorted(ranked.negative, lowest, "left"))
    return Counts(len(ranked.positive) - missed, len(ranked.negative) - passed, passed, missed)


def _lowest_float32(threshold: float) -> np.float32:
    """The lowest float32 that is not below the threshold; searching by it copies no array to float64."""
    with np.errstate(over="ignore"):
        near = np.float32(threshold)
    return near if float(near) >= threshold else np.nextafter(near, np.float32(np.inf))


def auroc(ranked: Ranked) -> float:
    """Chance that a defective item scores higher than a good one, ties counting half. Needs both classes."""
    twice = 0
    for start in range(0, len(ranked.positive), _CHUNK):
        part = np.asarray(ranked.positive[start : start + _CHUNK])
        twice += int(np.searchsorted(ranked.negative, part, "left").sum(dtype=np.int64))
        twice += int(np.searchsorted(ranked.negative, part, "right").sum(dtype=np.int64))
    return twice / (2 * len(ranked.positive) * len(ranked.negative))


def average_precision(ranked: Ranked) -> float:
    """Mean precision over the defective items, each at its own score as threshold. Needs both classes."""
    total = 0.0
    for point in _points(ranked):
        total += float(np.sum(point.gained / len(ranked.positive) * (point.found / (point.found + point.alarms))))
    return total


def best_f1_threshold(ranked: Ranked) -> float:
    """The threshold with the highest F1, always the score of a defective item; the lowest of equals.

    A threshold between or at good items' scores alone is never better: raising it to the next defective item
    only removes false alarms.
    """
    best, threshold = -1.0, 0.0
    for point in _points(ranked):
        f1 = 2 * point.found / (len(ranked.positive) + point.found + point.alarms)
        index = int(np.argmax(f1))
        if f1[index] > best:
            best, threshold = float(f1[index]), float(point.threshold[index])
    return threshold


@dataclass(frozen=True)
class _Points:
    """Distinct scores of defective items, upwards: how many are found at each, how many good ones alarm."""

    threshold: Scores
    found: NDArray[np.float64]
    gained: NDArray[np.float64]
    alarms: NDArray[np.float64]


def _points(ranked: Ranked) -> Iterator[_Points]:
    total = len(ranked.positive)
    start = 0
    while start < total:
        stop = _end_of_ties(ranked.positive, min(start + _CHUNK, total))
        part = np.asarray(ranked.positive[start:stop])
        first = np.flatnonzero(np.concatenate(([True], part[1:] != part[:-1])))
        threshold = part[first]
        alarms = len(ranked.negative) - np.searchsorted(ranked.negative, threshold, "left")
        found = total - (start + first)
        gained = np.diff(np.append(first, len(part)))
        yield _Points(threshold, found.astype(float), gained.astype(float), alarms.astype(float))
        start = stop


def _end_of_ties(scores: Scores, stop: int) -> int:
    """The first index from ``stop`` on whose score differs from the one before it."""
    if stop >= len(scores):
        return len(scores)
    return int(np.searchsorted(scores, scores[stop - 1], "right"))
