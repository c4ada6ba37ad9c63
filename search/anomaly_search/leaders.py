"""Which points are the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from optuna.study._multi_objective import _fast_non_domination_rank

from anomaly_search.evaluations import Evaluation
from anomaly_search.ranking import losses
from anomaly_search.sweep import Sweep


def ranked(sweep: Sweep, evaluations: Iterable[Evaluation], top: int | None = None) -> list[Evaluation]:
    """Return each feasible point once, at its highest fidelity: higher ones first, better ones first among equals.

    With several objectives, points that no other one beats in all of them come first, then those of which this holds
    among the rest, and so on (non-dominated sorting, Deb et al. 2002); within such a layer the first objective decides.

    Args:
        sweep: the task.
        evaluations: points by number and rung.
        top: how many are wanted; None for all.
    """
    highest: dict[int, Evaluation] = {}
    for one in evaluations:
        if one.feasible and (one.number not in highest or highest[one.number].rung < one.rung):
            highest[one.number] = one
    found = list(highest.values())
    order = sorted(
        zip(layers(sweep, found, top), found, strict=True),
        key=lambda pair: (-pair[1].rung, pair[0], losses(sweep, pair[1])[0], pair[1].number),
    )
    return [one for _, one in order[:top]]


def pareto_front(sweep: Sweep, evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """Return the feasible points at the full fidelity that no other one beats in all objectives, by number."""
    full = [one for one in evaluations if one.feasible and one.rung == sweep.rungs - 1]
    return [one for layer, one in zip(layers(sweep, full, 1), full, strict=True) if layer == 0]


def layers(sweep: Sweep, evaluations: Sequence[Evaluation], top: int | None = None) -> list[int]:
    """Return the layer of each evaluation, 0 for the Pareto front; all are of one layer where there is one objective.

    Beyond the layer in which the first ``top`` are complete, all have the next one.
    """
    if sweep.single or not evaluations:
        return [0] * len(evaluations)
    values = np.array([losses(sweep, one) for one in evaluations])
    return [int(layer) for layer in _fast_non_domination_rank(values, n_below=top)]
