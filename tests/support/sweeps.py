"""Spaces, sweeps and trials of tests of the search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from anomaly_search.space import Choices, Condition, FloatRange, IntRange, Parameter, Space
from anomaly_search.suggest import Suggestion, suggest
from anomaly_search.sweep import Algorithm, Limits, Objective, Sweep
from anomaly_search.trials import State, Trial

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)

PLANE = Space((Parameter("x", FloatRange(-5.0, 5.0)), Parameter("y", FloatRange(-5.0, 5.0))))
FINITE = Space(
    (
        Parameter("model", Choices(("patchcore", "padim", "stfpm"))),
        Parameter("layers", Choices((["a"], ["a", "b"])), Condition("model", ("patchcore", "stfpm"))),
        Parameter("features", IntRange(50, 150, step=50), Condition("model", ("padim",))),
        Parameter("size", Choices(({"height": 256}, {"height": 384}))),
    )
)
"""14 points: (2 + 3 + 2) x 2."""
CONDITIONAL = Space(
    (
        Parameter("model", Choices(("patchcore", "padim"))),
        Parameter("ratio", FloatRange(0.01, 0.25, log=True), Condition("model", ("patchcore",))),
        Parameter("neighbours", IntRange(1, 50, log=True), Condition("model", ("patchcore",))),
        Parameter("features", IntRange(50, 550), Condition("model", ("padim",))),
        Parameter("size", Choices(({"height": 256}, {"height": 384}))),
    )
)


def sweep_of(space: Space = PLANE, most: int = 100, **options: Any) -> Sweep:
    """Return a sweep that makes image.AUROC large."""
    options.setdefault("objectives", (Objective("image.AUROC"),))
    options.setdefault("algorithm", Algorithm("tpe", 7))
    options.setdefault("limits", Limits(most, 4))
    return Sweep(space, **options)


def complete(number: int, parameters: Mapping[str, Any], *objectives: float, **options: Any) -> Trial:
    """Return a measured trial, of one minute and a tenth of a GPU hour, that ended as the number says."""
    started = BEGIN + timedelta(minutes=number)
    usual: dict[str, Any] = {"gpu_hours": 0.1, "started": started, "ended": started + timedelta(minutes=1)}
    return Trial(number, parameters, State.COMPLETE, objectives, **(usual | options))


def bowl(point: Mapping[str, Any]) -> float:
    """Return the height of a bowl upside down over PLANE: 0 at (1, -2), less elsewhere."""
    return -float((point["x"] - 1) ** 2 + (point["y"] + 2) ** 2)


def run(
    sweep: Sweep, trials: int, measure: Callable[[Mapping[str, Any]], float], before: Sequence[Trial] = ()
) -> list[Trial]:
    """Return the trials of a sweep, one after the other."""
    done = list(before)
    for number in range(len(done), len(done) + trials):
        suggestion = suggest(sweep, done, number)
        assert isinstance(suggestion, Suggestion)
        done.append(complete(number, suggestion.parameters, measure(suggestion.parameters)))
    return done
