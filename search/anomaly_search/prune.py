"""Median stopping: whether a running trial is stopped for its curve (Golovin et al. 2017, Google Vizier, 3.2.1)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MedianPruning:
    """A trial is stopped if its best value so far is worse than the median of others at the same epoch.

    after_trials: complete trials that there have to be.
    after_epochs: epochs, counted from 0, before which none is stopped.
    """

    goal: Literal["maximize", "minimize"] = "maximize"
    after_trials: int = 5
    after_epochs: int = 0


def prune(curve: Mapping[int, float], peers: Iterable[Mapping[int, float]], settings: MedianPruning) -> bool:
    """Whether the trial is to be stopped now; the same as Optuna's MedianPruner, with its rules for missing values.

    Args:
        curve: the trial's objective by epoch, so far.
        peers: the curves of the complete trials at the same rung and of the same replicate.
        settings: when, and which way is better.
    """
    others = list(peers)
    if not others or len(others) < settings.after_trials or not curve or max(curve) < settings.after_epochs:
        return False
    sign = -1.0 if settings.goal == "maximize" else 1.0
    own = [sign * value for value in curve.values() if not math.isnan(value)]
    if not own:
        return True
    epoch = max(curve)
    known = [sign * other[epoch] for other in others if epoch in other and not math.isnan(other[epoch])]
    return bool(known) and min(own) > statistics.median(known)
