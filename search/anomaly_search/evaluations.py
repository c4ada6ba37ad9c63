"""The runs of a point at one fidelity, folded into one value."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial
from itertools import chain

from anomaly_search.memo import Memo
from anomaly_search.racing import is_hopeless
from anomaly_search.space import Value
from anomaly_search.sweep import Constraint, Objective, Sweep
from anomaly_search.trials import State, Trial

METRIC_MISSING = "MetricMissing"
HOPELESS = "Hopeless"
BLOCK = 64
"""Numbers that are folded together: what has not changed in a large sweep is recognised by the block."""
AGGREGATES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "median": statistics.median,
    "min": min,
    "max": max,
}


@dataclass(frozen=True)
class Evaluation:
    """A point at one rung.

    `objectives` are aggregates over the complete replicates, `errors` the standard errors of means (None for a single
    one), `violations` by how much of each bound the point is beyond it. All three are empty before the first is
    complete.
    """

    number: int
    rung: int
    parameters: Mapping[str, Value]
    state: State
    trials: tuple[Trial, ...]
    objectives: tuple[float, ...] = ()
    errors: tuple[float | None, ...] = ()
    violations: tuple[float, ...] = ()
    reason: str = ""

    @cached_property
    def feasible(self) -> bool:
        """Whether it is complete and within all constraints."""
        return self.state is State.COMPLETE and all(violation <= 0 for violation in self.violations)

    @property
    def gpu_hours(self) -> float:
        """GPU hours of all its runs."""
        return sum(trial.gpu_hours for trial in self.trials)

    @cached_property
    def ended(self) -> datetime | None:
        """When its last run ended; None while one of them is running, and if nobody knows."""
        times = [trial.ended for trial in self.trials]
        return None if None in times else max(time for time in times if time)

    @property
    def curve(self) -> Mapping[int, float]:
        """The curve of the first run that has one."""
        return next((trial.curve for trial in self.trials if trial.curve), {})


def fold(sweep: Sweep, trials: Iterable[Trial], memo: Memo | None = None) -> tuple[Evaluation, ...]:
    """Return what the trials say of each point, by number and rung."""
    blocks: dict[int, list[Trial]] = defaultdict(list)
    for trial in trials:
        blocks[trial.number // BLOCK].append(trial)
    memo = memo or Memo()
    fold_block = partial(_folded, memo)
    folded = (memo.get(("block", block), (sweep, *blocks[block]), fold_block) for block in sorted(blocks))
    return tuple(_raced(sweep, list(chain.from_iterable(folded))))


def _folded(memo: Memo, sweep: Sweep, *trials: Trial) -> list[Evaluation]:
    groups: dict[tuple[int, int], list[Trial]] = defaultdict(list)
    for trial in trials:
        groups[trial.number, trial.rung].append(trial)
    return [memo.get(("fold", *which), (sweep, *groups[which]), _evaluation) for which in sorted(groups)]


def _judged(sweep: Sweep, trial: Trial) -> Trial:
    """Turn a complete trial that lacks a metric into a failed one: nothing is known of it."""
    if trial.state is not State.COMPLETE:
        return trial
    needed: tuple[Sequence[Objective | Constraint], ...] = (sweep.objectives, sweep.constraints)
    for metrics, values in zip(needed, (trial.objectives, trial.constraints), strict=True):
        for place, one in enumerate(metrics):
            value = values[place] if place < len(values) else None
            if value is None or not math.isfinite(value):
                return replace(trial, state=State.FAILED, reason=f"{METRIC_MISSING}: {one.metric}")
    return trial


def _evaluation(sweep: Sweep, *runs: Trial) -> Evaluation:
    trials = sorted((_judged(sweep, run) for run in runs), key=lambda trial: trial.replicate)
    state, reason = _state(sweep, trials)
    complete = [trial for trial in trials if trial.state is State.COMPLETE]
    objectives = _columns((trial.objectives for trial in complete), len(sweep.objectives))
    bounded = _columns((trial.constraints for trial in complete), len(sweep.constraints))
    return Evaluation(
        number=trials[0].number,
        rung=trials[0].rung,
        parameters=trials[0].parameters,
        state=state,
        trials=tuple(trials),
        objectives=tuple([_aggregate(sweep, values) for values in objectives]),
        errors=tuple([_standard_error(sweep, values) for values in objectives]),
        violations=tuple(
            [
                constraint.violation(_aggregate(sweep, values))
                for constraint, values in zip(sweep.constraints, bounded, strict=False)
            ]
        ),
        reason=reason,
    )


def _state(sweep: Sweep, trials: Sequence[Trial]) -> tuple[State, str]:
    """One replicate that cannot work says so of its point; the others need not run."""
    for state in (State.INFEASIBLE, State.FAILED, State.PRUNED):
        for trial in trials:
            if trial.state is state:
                return state, trial.reason
    complete = {trial.replicate for trial in trials if trial.state is State.COMPLETE}
    whole = all(replicate in complete for replicate in range(sweep.replicates.count))
    return (State.COMPLETE if whole else State.RUNNING), ""


def _columns(rows: Iterable[tuple[float | None, ...]], columns: int) -> list[list[float]]:
    """Return the values by metric; no columns without rows."""
    found = [[value for value in column if value is not None] for column in zip(*rows, strict=False)]
    return found[:columns]


def _aggregate(sweep: Sweep, values: Sequence[float]) -> float:
    # Bytes come as whole numbers, which Optuna's several objectives cannot do with.
    return float(AGGREGATES[sweep.replicates.aggregate](values))


def _standard_error(sweep: Sweep, values: Sequence[float]) -> float | None:
    if sweep.replicates.aggregate != "mean" or len(values) < 2:
        return None
    return statistics.stdev(values) / math.sqrt(len(values))


def _raced(sweep: Sweep, evaluations: list[Evaluation]) -> Iterable[Evaluation]:
    """Give up the points whose first replicates are hopeless. With several objectives none is."""
    racing = sweep.replicates.racing
    if racing is None or sweep.replicates.count == 1 or not sweep.single:
        return evaluations
    best = {rung: _best_losses(sweep, evaluations, rung) for rung in range(sweep.rungs)}
    return [
        replace(evaluation, state=State.PRUNED, reason=HOPELESS)
        if _between_runs(evaluation) and is_hopeless(_losses(sweep, evaluation), best[evaluation.rung], racing)
        else evaluation
        for evaluation in evaluations
    ]


def _between_runs(evaluation: Evaluation) -> bool:
    return evaluation.state is State.RUNNING and all(trial.state is not State.RUNNING for trial in evaluation.trials)


def _best_losses(sweep: Sweep, evaluations: Iterable[Evaluation], rung: int) -> dict[int, float]:
    candidates = [evaluation for evaluation in evaluations if evaluation.rung == rung and evaluation.feasible]
    if not candidates:
        return {}
    return _losses(sweep, min(candidates, key=lambda one: (sweep.objectives[0].loss(one.objectives[0]), one.number)))


def _losses(sweep: Sweep, evaluation: Evaluation) -> dict[int, float]:
    return {
        trial.replicate: sweep.objectives[0].loss(trial.objectives[0])
        for trial in evaluation.trials
        if trial.state is State.COMPLETE and trial.objectives[0] is not None
    }
