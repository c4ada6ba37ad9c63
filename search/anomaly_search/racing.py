"""Racing: whether the further replicates of a point can be saved, since it will not be the best.

Wilcoxon's signed-rank test of the point's replicates against the same ones of the best point, as in Optuna's
WilcoxonPruner. Pairs, since categories differ far more than points do; ranks, since a single category in which
a point breaks down would widen any interval until it says nothing. One test has a say after each replicate, so that the
probability of giving up a good point adds up: the level is that of one look. Of n pairs none has a level below 1 / 2^n:
at 0.1, four are needed.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from functools import lru_cache

from anomaly_search.sweep import Racing


def is_hopeless(losses: Mapping[int, float], best: Mapping[int, float], racing: Racing) -> bool:
    """Whether a point is worse than the best one, as far as its replicates tell.

    Args:
        losses: the point's losses by replicate, less being better.
        best: those of the best point.
        racing: from how many replicates on, and at which level.
    """
    differences = tuple(losses[replicate] - best[replicate] for replicate in sorted(losses) if replicate in best)
    if len(differences) < max(2, racing.after_replicates):
        return False
    if statistics.fmean(losses.values()) <= statistics.fmean(best.values()):
        return False
    return _probability(differences) < racing.level


@lru_cache(maxsize=100_000)
def _probability(differences: tuple[float, ...]) -> float:
    """Return the probability of such differences between equals. It is asked again at each decision."""
    from scipy import stats  # takes half a second: where it is needed

    return float(stats.wilcoxon(differences, alternative="greater", zero_method="zsplit").pvalue)
