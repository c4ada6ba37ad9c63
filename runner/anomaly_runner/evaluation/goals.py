"""Thresholds that achieve something: a rate of false alarms, a share of the defects, or the lowest cost. All are exact.

The rate of false alarms is promised as in split conformal prediction (Vovk et al., "Algorithmic Learning in a Random
World", 2005): of n good scores that the model has not learnt from and one new good score, each is equally likely to be
the k-th lowest. A new one is therefore above the k-th lowest of the n with probability (n + 1 - k) / (n + 1) at most,
whatever the distribution; exactly so if no scores are equal, and then the true rate of the threshold that was found has
the distribution Beta(n + 1 - k, k).
"""

import math
from fractions import Fraction

import numpy as np

from anomaly_api.status import FalseAlarms
from anomaly_api.threshold_goals import DecisionCosts, GoalSettings
from anomaly_runner.evaluation.curves import Scores, ScoresByClass, operating_points

_INTERVAL = (0.05, 0.95)
"""Quantiles of the true rate of false alarms that its 90 % interval lies between."""


def needed_good_images(rate: float) -> int:
    """The smallest number of good images by which a rate of false alarms above 0 can be promised."""
    return math.ceil(1 / _decimal(rate)) - 1


def false_alarm_threshold(good: Scores, rate: float) -> tuple[float, FalseAlarms]:
    """The lowest threshold that, in expectation, at most a share of new good items reaches, and what it promises.

    It lies just above a score, not on it: where scores are equal, the promise would not hold.

    Args:
        good: (N,) scores of good items that the model has not learnt from, ascending; at least one.
        rate: the share, above 0 and below 1. With fewer than ``needed_good_images`` it cannot be promised: the smallest
            one that can is promised instead, 1 / (N + 1).
    """
    above = max(1, math.floor(_decimal(rate) * (len(good) + 1)))
    rank = len(good) + 1 - above
    return just_above(good[rank - 1]), _promise(above, rank)


def _promise(above: int, rank: int) -> FalseAlarms:
    from scipy.special import betaincinv  # slow to import, and most runs have another threshold

    low, high = (float(betaincinv(above, rank, quantile)) for quantile in _INTERVAL)
    count = above + rank
    return FalseAlarms(good_images=count - 1, expected=above / count, low=low, high=high)


def _decimal(number: float) -> Fraction:
    """The decimal number that a person has written, of which a float is only the nearest binary one."""
    return Fraction(str(number))


def goal_threshold(spec: GoalSettings, scores: ScoresByClass, *, pixels: bool = False) -> float:
    """The threshold that finds a share of the defects, or costs least; the scores have both classes.

    Args:
        spec: has either of them.
        scores: of images or pixels.
        pixels: whether they are those of pixels, to which the share of defective parts does not apply.
    """
    if spec.cost is not None:
        return cost_threshold(scores, spec.cost, as_found=pixels)
    return recall_threshold(scores.positive, spec.recall or 1.0)


def recall_threshold(defective: Scores, share: float) -> float:
    """The highest threshold that finds at least a share of the defective items.

    The lowest such threshold finds everything and alarms on everything; every threshold up to this one finds enough,
    and this one has the fewest false alarms.

    Args:
        defective: (N,) scores of defective items, ascending; at least one.
        share: above 0, 1 at most.
    """
    return float(defective[len(defective) - math.ceil(_decimal(share) * len(defective))])


def cost_threshold(scores: ScoresByClass, costs: DecisionCosts, *, as_found: bool = False) -> float:
    """The threshold at which wrong decisions cost least, of several the lowest, which misses least.

    A threshold that is not the score of a defective item is never better than the next such score, which has the same
    misses; above all of them, where everything is missed, the best one is above all scores.

    Args:
        scores: of both classes.
        costs: of a miss and a false alarm.
        as_found: count the items as they are, whatever share of defects the costs are about.
    """
    miss, alarm = _weights(scores, costs, as_found)
    lowest, threshold = math.inf, math.nan
    for point in operating_points(scores):
        missed = len(scores.positive) - point.true_positives
        cost = miss * missed + alarm * point.false_positives
        index = int(np.argmin(cost))
        if cost[index] < lowest:
            lowest, threshold = float(cost[index]), float(point.threshold[index])
    if miss * len(scores.positive) < lowest:
        return just_above(max(scores.positive[-1], scores.negative[-1]))
    return threshold


def _weights(scores: ScoresByClass, costs: DecisionCosts, as_found: bool) -> tuple[float, float]:
    """Cost of each defective item that is missed, and of each good one that alarms, up to a common factor."""
    share = costs.defect_share
    if share is None or as_found:
        return costs.miss, costs.false_alarm
    return costs.miss * share * len(scores.negative), costs.false_alarm * (1 - share) * len(scores.positive)


def just_above(score: np.float32) -> float:
    """The lowest threshold that a score does not reach."""
    return float(np.nextafter(score, np.float32(np.inf)))
