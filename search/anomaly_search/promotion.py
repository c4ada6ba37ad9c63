"""Promoting asynchronous successive halving: which points go on to the next fidelity (Li et al. 2020, ASHA).

Optuna's own pruner cannot be used: it keeps in study attributes which trials it has promoted, and promotes all of them
when it is made anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from anomaly_api.reasons import Reason
from anomaly_search.evaluations import Evaluation
from anomaly_search.sweep import Sweep
from anomaly_search.trials import State


class Promotion(NamedTuple):
    """A point that goes on, and the rung it goes to."""

    evaluation: Evaluation
    rung: int


def promotions(sweep: Sweep, evaluations: Sequence[Evaluation], all_asked: bool) -> list[Promotion]:
    """Return the points that are due for the next rung, the furthest first and the best of them first.

    Of n measured points of a rung the best n // reduction go on. At the end, when nothing can arrive at a rung any
    more, at least one does, so that small sweeps reach the full fidelity too.

    A point whose configuration is not valid at a rung (a coreset of no patch of a quarter of the images) goes on after
    the measured ones: the rung says nothing about it.
    """
    if sweep.fidelity is None:
        return []
    found: list[Promotion] = []
    settled = all_asked
    for rung in range(sweep.rungs - 1):
        here = [evaluation for evaluation in evaluations if evaluation.rung == rung]
        settled = settled and not any(evaluation.state is State.RUNNING for evaluation in here)
        due = list(_due(sweep, here, {one.number for one in evaluations if one.rung > rung}, settled))
        found = due + found
        settled = settled and not due
    return found


def _due(sweep: Sweep, here: Iterable[Evaluation], gone_on: set[int], settled: bool) -> Iterator[Promotion]:
    assert sweep.fidelity is not None
    over = [one for one in here if one.state not in (State.RUNNING, State.FAILED)]
    measured, untold = [one for one in over if not _is_invalid(one)], [one for one in over if _is_invalid(one)]
    places = len(measured) // sweep.fidelity.reduction
    if settled:
        places = max(places, 1)
    ranked = sorted(
        (one for one in measured if one.feasible),
        key=lambda one: (sweep.objectives[0].loss(one.objectives[0]), one.number),
    )
    for one in (*ranked[:places], *untold):
        if one.number not in gone_on:
            yield Promotion(one, one.rung + 1)


def _is_invalid(one: Evaluation) -> bool:
    return one.state is State.INFEASIBLE and one.reason == Reason.INVALID_CONFIG
