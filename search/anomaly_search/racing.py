"""Racing: whether the further replicates of a point can be saved, since it will not be the best.

Replicates are paired: the same seed and category for the point and for the best one, since categories differ far more
than points do. An interval is used (that of a t-test), not Wilcoxon's test: that cannot reach 1 % with fewer than seven
pairs, whatever they are, and most sweeps have two to six. (Maron and Moore 1994, Hoeffding Races.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping

LEVEL = 0.01
"""One look's probability of giving up a point that is as good: a few looks at it stay below 5 %."""


def is_hopeless(losses: Mapping[int, float], best: Mapping[int, float]) -> bool:
    """Whether a point is worse than the best one, by a one-sided paired t-test at `LEVEL`.

    Args:
        losses: the point's losses by replicate, less being better.
        best: those of the best point.
    """
    differences = [loss - best[replicate] for replicate, loss in losses.items() if replicate in best]
    if len(differences) < 2:
        return False
    if math.isclose(max(differences), min(differences), abs_tol=1e-12):
        return min(differences) > 1e-12
    return _worse(differences)


def _worse(differences: list[float]) -> bool:
    from scipy import stats  # takes half a second: where it is needed

    result = stats.ttest_1samp(differences, 0.0, alternative="greater")
    return not math.isnan(result.pvalue) and float(result.pvalue) < LEVEL
