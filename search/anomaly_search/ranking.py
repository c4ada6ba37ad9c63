"""Which point is better than which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from anomaly_search.evaluations import Evaluation
from anomaly_search.sweep import Sweep


def ranked(sweep: Sweep, evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """Return each feasible point once, at its highest fidelity: higher ones first, better ones first among equals.

    Of several objectives the first decides.
    """
    highest: dict[int, Evaluation] = {}
    for one in evaluations:
        if one.feasible and (one.number not in highest or highest[one.number].rung < one.rung):
            highest[one.number] = one
    return sorted(
        highest.values(), key=lambda one: (-one.rung, sweep.objectives[0].loss(one.objectives[0]), one.number)
    )


def losses(sweep: Sweep, one: Evaluation) -> tuple[float, ...]:
    """Return the objectives, turned so that less is better."""
    return tuple(objective.loss(value) for objective, value in zip(sweep.objectives, one.objectives, strict=True))


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether some loss is less and none is more."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def improvements(sweep: Sweep, finished: Sequence[Evaluation]) -> list[int]:
    """Return the places, in the order given, of points at the full fidelity that none before was as good as.

    With several objectives: that enlarged the Pareto front.
    """
    front: list[tuple[float, ...]] = []
    places = []
    for place, one in enumerate(finished):
        if not one.feasible or one.rung < sweep.rungs - 1:
            continue
        own = losses(sweep, one)
        if any(other == own or dominates(other, own) for other in front):
            continue
        front = [other for other in front if not dominates(own, other)] + [own]
        places.append(place)
    return places
