"""The point of a number, from nothing but the sweep and its trials: the same in any process, at any time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from anomaly_search import points
from anomaly_search.evaluations import Evaluation, fold
from anomaly_search.samplers.grid import grid, untried
from anomaly_search.samplers.optuna_samplers import random, tpe
from anomaly_search.samplers.rows import rows
from anomaly_search.samplers.seeding import seed_of
from anomaly_search.samplers.sobol import sobol
from anomaly_search.space import Value
from anomaly_search.sweep import Sweep
from anomaly_search.trials import Trial

ATTEMPTS = 8
"""Times that the algorithm is asked before another point is taken in place of a repeated one."""


@dataclass(frozen=True)
class Suggestion:
    """A point to try. `known` is the number of a trial that has tried it already: its value can be taken instead."""

    parameters: Mapping[str, Value]
    known: int | None = None


@dataclass(frozen=True)
class Exhausted:
    """Every point of the space has been tried."""


def suggest(sweep: Sweep, trials: Iterable[Trial], number: int) -> Suggestion | Exhausted:
    """Return the point that trial `number` is to try.

    Start points come first. A point that another trial has already tried is asked for anew a few times; then one that
    is left is drawn, where the space is finite.

    Args:
        sweep: the task.
        trials: all runs that there are; those of this number are not looked at.
        number: counted from 0. It need not be the next one: a deleted trial is asked again.
    """
    others = [trial for trial in trials if trial.number != number]
    if number < len(sweep.start):
        return _suggestion(_start_point(sweep, number), _tried(sweep, others))
    if sweep.algorithm.name == "grid":
        starts = [_start_point(sweep, place) for place in range(len(sweep.start))]
        point = grid(sweep.space, number - len(sweep.start), starts)
        return Exhausted() if point is None else _suggestion(point, _tried(sweep, others))
    return _drawn(sweep, others, number)


def _drawn(sweep: Sweep, others: list[Trial], number: int) -> Suggestion | Exhausted:
    tried = _tried(sweep, others)
    if (size := points.count(sweep.space)) is not None and len(tried) >= size:
        return Exhausted()
    evaluations = fold(sweep, others)
    for attempt in range(ATTEMPTS):
        suggestion = _suggestion(_draw(sweep, evaluations, number, attempt), tried)
        if suggestion.known is None:
            return suggestion
    if size is None:
        return suggestion
    left = untried(sweep.space, (point for point, _ in tried.values()), seed_of(sweep.algorithm.seed, number, ATTEMPTS))
    assert left is not None
    return Suggestion(left)


def _draw(sweep: Sweep, evaluations: tuple[Evaluation, ...], number: int, attempt: int) -> dict[str, Value]:
    seed = seed_of(sweep.algorithm.seed, number, attempt)
    match sweep.algorithm.name:
        case "tpe":
            learned = tpe(sweep, rows(sweep, evaluations), seed)
            if learned is not None:
                return learned
        case "cmaes":
            from anomaly_search.samplers.cma_es import cma_es  # its package loads all of scipy's statistics

            return cma_es(sweep, evaluations, seed)
        case "random":
            return random(sweep, seed)
    # Sobol's sequence, which TPE begins with too. It has one point a number.
    return sobol(sweep, number) if attempt == 0 else random(sweep, seed)


def _start_point(sweep: Sweep, number: int) -> dict[str, Value]:
    return sobol(sweep, number, sweep.start[number])


def _tried(sweep: Sweep, trials: Iterable[Trial]) -> dict[str, tuple[Mapping[str, Value], int]]:
    """Return the points of the space that trials have, by their key, with the first trial's number."""
    tried: dict[str, tuple[Mapping[str, Value], int]] = {}
    for trial in trials:
        point = sweep.space.restrict(trial.parameters)
        if point is not None:
            tried.setdefault(points.key(point), (point, trial.number))
    return tried


def _suggestion(point: Mapping[str, Value], tried: Mapping[str, tuple[Mapping[str, Value], int]]) -> Suggestion:
    known = tried.get(points.key(point))
    return Suggestion(point, None if known is None else known[1])
