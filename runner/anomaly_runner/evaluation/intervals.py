"""95 % confidence intervals of image metrics.

AUROC: DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988, from ranks as in Sun and Xu, IEEE Signal Processing
Letters 21, 2014; where that interval has no width, Newcombe, Statistics in Medicine 25, 2006 (part 2). Proportions
(precision, recall, accuracy): Wilson, JASA 22, 1927.
"""

import math

import numpy as np

from anomaly_runner.evaluation.curves import ConfusionCounts, ScoresByClass, auroc

_Z = 1.959963984540054
"""The normal distribution's 97.5 % point."""

Interval = tuple[float, float]


def auroc_interval(scores: ScoresByClass) -> Interval | None:
    """DeLong's 95 % interval of the AUROC, within 0..1; None with fewer than two items of a class.

    DeLong's variance is 0 if one class is entirely above the other or all scores are equal. A single point would claim
    certainty, so Newcombe's interval is used then.
    """
    positive, negative = scores.positive, scores.negative
    if len(positive) < 2 or len(negative) < 2:
        return None
    wins = _share_below(negative, positive)
    losses = 1 - _share_below(positive, negative)
    deviation = math.sqrt(wins.var(ddof=1) / len(positive) + losses.var(ddof=1) / len(negative))
    middle = auroc(scores)
    if deviation == 0:
        return _newcombe(middle, len(positive), len(negative))
    return max(0.0, middle - _Z * deviation), min(1.0, middle + _Z * deviation)


def _newcombe(middle: float, positive: int, negative: int) -> Interval:
    """Newcombe's method 5: all AUROCs that ``middle`` is at most 1.96 of their own standard errors away from."""
    others = (positive + negative) / 2 - 1

    def reach(value: float) -> float:
        skew = (1 - value) / (2 - value) + value / (1 + value)
        return _Z * math.sqrt(value * (1 - value) * (1 + others * skew) / (positive * negative))

    def outermost(end: float) -> float:
        outside, inside = end, middle
        for _ in range(60):
            value = (outside + inside) / 2
            outside, inside = (value, inside) if abs(middle - value) > reach(value) else (outside, value)
        return outside

    return outermost(0.0), outermost(1.0)


def _share_below(sorted_scores: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Share (N,) of the sorted scores that are below each value (N,), with ties counting half."""
    below = np.searchsorted(sorted_scores, values, "left") + np.searchsorted(sorted_scores, values, "right")
    return below / (2 * len(sorted_scores))


def share_interval(part: int, whole: int) -> Interval | None:
    """Wilson's 95 % interval of the proportion part / whole; None if whole is 0."""
    if whole == 0:
        return None
    share, weight = part / whole, _Z * _Z / whole
    middle = (share + weight / 2) / (1 + weight)
    half = _Z / (1 + weight) * math.sqrt(share * (1 - share) / whole + weight / (4 * whole))
    return max(0.0, middle - half), min(1.0, middle + half)


def image_intervals(scores: ScoresByClass, counts: ConfusionCounts) -> dict[str, Interval]:
    """95 % intervals by name of the image metric: AUROC, Precision, Recall and Accuracy, each if it is defined."""
    found = counts.true_positive
    right = found + counts.true_negative
    intervals = {
        "AUROC": auroc_interval(scores),
        "Precision": share_interval(found, found + counts.false_positive),
        "Recall": share_interval(found, len(scores.positive)),
        "Accuracy": share_interval(right, len(scores.positive) + len(scores.negative)),
    }
    return {name: interval for name, interval in intervals.items() if interval is not None}
