"""What a status and a report say of a sweep."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from anomaly_search.evaluations import Evaluation, fold
from anomaly_search.leaders import pareto_front, ranked
from anomaly_search.memo import Memo
from anomaly_search.ranking import improvements
from anomaly_search.samplers.rows import directions, rows
from anomaly_search.samplers.storage import study_of
from anomaly_search.stopping import in_order_of_end
from anomaly_search.sweep import Sweep
from anomaly_search.trials import State, Trial

BEST = 10
"""Points of the leaderboard."""
ENOUGH_FOR_IMPORTANCES = 20
"""Complete points below which importances would say nothing."""
AT_THE_TOP = 5
"""Points that PED-ANOVA compares with all others; its authors' least."""
ENOUGH_FOR_CORRELATION = 5
"""Points measured at both of two rungs below which their correlation would say nothing."""
WEAK_CORRELATION = 0.5
MANY = 50
"""Points above which importances are not of each one at once."""


@dataclass(frozen=True)
class Counts:
    """Points by how they are now, each counted once, at the highest fidelity that it has been started at.

    Infeasible are also those that are measured and beyond a constraint.
    """

    asked: int
    running: int
    complete: int
    pruned: int
    infeasible: int
    failed: int


@dataclass(frozen=True)
class Improvement:
    """A point that was better than all that had ended before it."""

    number: int
    ended: datetime | None
    objectives: tuple[float, ...]


@dataclass(frozen=True)
class Summary:
    """The sweep so far.

    best: feasible points, those of higher fidelity first, as ``ranked`` has them; ten at most.
    pareto_front: of several objectives, feasible points at the full fidelity that no other is better than.
    importances: share of each parameter in being among the best by the first objective, adding up to 1; empty while
    there are too few points.
    rung_correlations: Spearman's between each rung and the next, over points measured at both; None for too few.
    history: when the best got better; with several objectives, when the Pareto front grew.
    """

    counts: Counts
    gpu_hours: float
    best: tuple[Evaluation, ...]
    pareto_front: tuple[Evaluation, ...]
    importances: Mapping[str, float]
    rung_correlations: tuple[float | None, ...]
    history: tuple[Improvement, ...]
    warnings: tuple[str, ...]


def summary(sweep: Sweep, trials: Iterable[Trial], memo: Memo | None = None) -> Summary:
    """Return what is known of the sweep."""
    known = tuple(trials)
    evaluations = fold(sweep, known, memo)
    ended = in_order_of_end(evaluations)
    correlations = tuple(_correlation(evaluations, rung) for rung in range(sweep.rungs - 1))
    return Summary(
        counts=_counts(evaluations),
        gpu_hours=sum(trial.gpu_hours for trial in known),
        best=tuple(ranked(sweep, evaluations, BEST)),
        pareto_front=() if sweep.single else tuple(pareto_front(sweep, evaluations)),
        importances=_importances(sweep, evaluations, memo or Memo()),
        rung_correlations=correlations,
        history=tuple(
            Improvement(ended[place].number, ended[place].ended, ended[place].objectives)
            for place in improvements(sweep, ended)
        ),
        warnings=tuple(_warnings(correlations)),
    )


def _counts(evaluations: Sequence[Evaluation]) -> Counts:
    states = Counter({one.number: _state(one) for one in evaluations}.values())
    return Counts(
        asked=sum(states.values()),
        running=states[State.RUNNING],
        complete=states[State.COMPLETE],
        pruned=states[State.PRUNED],
        infeasible=states[State.INFEASIBLE],
        failed=states[State.FAILED],
    )


def _state(one: Evaluation) -> State:
    if any(trial.state is State.RUNNING for trial in one.trials):
        return State.RUNNING
    return State.INFEASIBLE if one.state is State.COMPLETE and not one.feasible else one.state


def _importances(sweep: Sweep, evaluations: Sequence[Evaluation], memo: Memo) -> dict[str, float]:
    """PED-ANOVA (Watanabe et al. 2023): what the best points have in common that the others have not.

    Of several objectives the first decides who is best: to take fronts apart costs minutes at 10,000 points. Of many
    points it looks at the first to end, and anew when there are a tenth more: each look takes as long as all points.
    """
    full = [one for one in in_order_of_end(evaluations) if one.feasible and one.rung == sweep.rungs - 1]
    if len(full) < ENOUGH_FOR_IMPORTANCES:
        return {}
    return memo.get("importances", (sweep, *full[: _in_tenths(len(full))]), _ped_anova)


def _in_tenths(count: int) -> int:
    """Return the number, or for more than MANY the last before it of those that grow by tenths."""
    step = min(count, MANY)
    while step * 11 // 10 <= count and count > MANY:
        step = step * 11 // 10
    return step


def _ped_anova(sweep: Sweep, *unordered: Evaluation) -> dict[str, float]:
    full = sorted(unordered, key=lambda one: one.number)
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    first = replace(sweep, objectives=sweep.objectives[:1])
    told = rows(first, [replace(one, objectives=one.objectives[:1]) for one in full])
    study = study_of(told, directions(first))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, AT_THE_TOP / len(full)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            found = get_param_importances(study, evaluator=evaluator)
        except UserWarning:
            return {}  # all points are as good as one another, so that none of them are the best
    return {path: share for path, share in found.items() if math.isfinite(share)}


def _correlation(evaluations: Iterable[Evaluation], rung: int) -> float | None:
    measured = {(one.number, one.rung): one.objectives[0] for one in evaluations if one.state is State.COMPLETE}
    pairs = [
        (value, measured[number, rung + 1])
        for (number, at), value in measured.items()
        if at == rung and (number, rung + 1) in measured
    ]
    if len(pairs) < ENOUGH_FOR_CORRELATION:
        return None
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)  # then it is not defined: None below
        correlation = float(stats.spearmanr(pairs).statistic)
    return correlation if math.isfinite(correlation) else None


def is_weak(correlation: float) -> bool:
    """Whether a rank correlation is so low that a rung says little about the next, as it is told: 0.50 is not."""
    return round(correlation, 2) < WEAK_CORRELATION


def _warnings(correlations: Iterable[float | None]) -> Iterable[str]:
    for rung, correlation in enumerate(correlations):
        if correlation is not None and is_weak(correlation):
            yield (
                f"rung {rung} says little about rung {rung + 1}: their rank correlation is {correlation:.2f}, below "
                f"{WEAK_CORRELATION}; a larger first fidelity would choose better"
            )
