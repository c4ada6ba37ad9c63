"""95 % confidence intervals of image metrics.

AUROC: DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988, from ranks as in Sun and Xu, IEEE Signal Processing
Letters 21, 2014. Shares (precision, recall, accuracy): Wilson, JASA 22, 1927.
"""

import math

import numpy as np

from anomaly_runner.curves import Counts, Ranked, auroc

_Z = 1.959963984540054
"""The normal distribution's 97.5 % point."""

Interval = tuple[float, float]


def auroc_interval(ranked: Ranked) -> Interval | None:
    """DeLong's interval within 0..1; None with fewer than two items of a class."""
    positive, negative = ranked.positive, ranked.negative
    if len(positive) < 2 or len(negative) < 2:
        return None
    wins = _share_below(negative, positive)
    losses = 1 - _share_below(positive, negative)
    deviation = math.sqrt(wins.var(ddof=1) / len(positive) + losses.var(ddof=1) / len(negative))
    middle = auroc(ranked)
    return max(0.0, middle - _Z * deviation), min(1.0, middle + _Z * deviation)


def _share_below(ranked: np.ndarray, values: np.ndarray) -> np.ndarray:
    below = np.searchsorted(ranked, values, "left") + np.searchsorted(ranked, values, "right")
    return below / (2 * len(ranked))


def share_interval(part: int, whole: int) -> Interval | None:
    """Wilson's interval of a share; None of nothing."""
    if whole == 0:
        return None
    share, weight = part / whole, _Z * _Z / whole
    middle = (share + weight / 2) / (1 + weight)
    half = _Z / (1 + weight) * math.sqrt(share * (1 - share) / whole + weight / (4 * whole))
    return max(0.0, middle - half), min(1.0, middle + half)


def image_intervals(ranked: Ranked, counts: Counts) -> dict[str, Interval]:
    """Intervals by metric, of those that have one."""
    found = counts.true_positive
    right = found + counts.true_negative
    intervals = {
        "AUROC": auroc_interval(ranked),
        "Precision": share_interval(found, found + counts.false_positive),
        "Recall": share_interval(found, len(ranked.positive)),
        "Accuracy": share_interval(right, len(ranked.positive) + len(ranked.negative)),
    }
    return {name: interval for name, interval in intervals.items() if interval is not None}
