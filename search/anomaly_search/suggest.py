"""The point of a number, from nothing but the sweep and its trials: the same in any process, at any time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from anomaly_search import points
from anomaly_search.evaluations import fold
from anomaly_search.memo import Memo
from anomaly_search.samplers.grid import grid, untried
from anomaly_search.samplers.optuna_samplers import random, tpe
from anomaly_search.samplers.rows import rows
from anomaly_search.samplers.seeding import seed_of
from anomaly_search.samplers.sobol import sobol
from anomaly_search.space import Key, Space, Value
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


def suggest(sweep: Sweep, trials: Iterable[Trial], number: int, memo: Memo | None = None) -> Suggestion | Exhausted:
    """Return the point that trial `number` is to try.

    Start points come first. A point that another trial has already tried is asked for anew a few times; then one that
    is left is drawn, where the space is finite.

    Args:
        sweep: the task.
        trials: all runs that there are; those of this number are not looked at. Of several numbers that are asked at
            once, each has to see the earlier ones as running trials.
        number: counted from 0. It need not be the next one: a deleted trial is asked again.
        memo: what earlier calls for this sweep computed.
    """
    others = [trial for trial in trials if trial.number != number]
    if number < len(sweep.start):
        return _suggestion(_start_point(sweep, number), others)
    if sweep.algorithm.name == "grid":
        starts = [_start_point(sweep, place) for place in range(len(sweep.start))]
        point = grid(sweep.space, number - len(sweep.start), starts)
        return Exhausted() if point is None else _suggestion(point, others)
    return _drawn(sweep, others, number, memo or Memo())


def _drawn(sweep: Sweep, others: Sequence[Trial], number: int, memo: Memo) -> Suggestion | Exhausted:
    size = points.count(sweep.space)
    if size is not None and len(_keys(sweep, others, memo)) >= size:
        return Exhausted()
    for attempt in range(ATTEMPTS):
        suggestion = _suggestion(_draw(sweep, others, number, attempt, memo), others)
        if suggestion.known is None:
            return suggestion
    if size is None:
        return suggestion
    left = untried(sweep.space, _held(sweep, others, memo), seed_of(sweep.algorithm.seed, number, ATTEMPTS))
    return Exhausted() if left is None else Suggestion(left)


def _draw(sweep: Sweep, others: Sequence[Trial], number: int, attempt: int, memo: Memo) -> dict[str, Value]:
    seed = seed_of(sweep.algorithm.seed, number, attempt)
    match sweep.algorithm.name:
        case "tpe":
            learned = tpe(sweep, rows(sweep, fold(sweep, others, memo), memo), seed)
            if learned is not None:
                return learned
        case "cmaes":
            from anomaly_search.samplers.cma_es import cma_es  # its package loads all of scipy's statistics

            return cma_es(sweep, fold(sweep, others, memo), seed)
        case "random":
            return random(sweep, seed)
    # Sobol's sequence, which TPE begins with too. It has one point a number.
    return sobol(sweep, number) if attempt == 0 else random(sweep, seed)


def _start_point(sweep: Sweep, number: int) -> dict[str, Value]:
    return sobol(sweep, number, sweep.start[number])


def _keys(sweep: Sweep, trials: Iterable[Trial], memo: Memo) -> set[Key]:
    """Return the keys of the points that trials have and the space holds."""
    found = memo.each("keys", (sweep.space,), (trial.parameters for trial in trials), Space.key)
    return {key for key in found if key is not None}


def _held(sweep: Sweep, trials: Iterable[Trial], memo: Memo) -> list[dict[str, Value]]:
    """Return the points of trials that the space holds."""
    restricted = memo.each("points", (sweep.space,), (trial.parameters for trial in trials), Space.restrict)
    return [point for point in restricted if point is not None]


def _suggestion(point: Mapping[str, Value], others: Iterable[Trial]) -> Suggestion:
    return Suggestion(point, next((trial.number for trial in others if trial.parameters == point), None))
