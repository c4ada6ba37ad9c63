"""When a sweep ends, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from anomaly_api.sweep_exchange import SweepEnd
from anomaly_api.sweep_status import StopReason
from anomaly_search.evaluations import Evaluation
from anomaly_search.ranking import improvements
from anomaly_search.sweep import Sweep
from anomaly_search.trials import State

COMMONEST = 3
"""Reasons of failures that are named."""


def too_many_failed(sweep: Sweep, evaluations: Iterable[Evaluation]) -> SweepEnd | None:
    """Return the end if more points failed than may, with the commonest reasons."""
    allowed = sweep.limits.max_failed
    if allowed is None:
        return None
    failed = {one.number: one.reason or "unknown" for one in evaluations if one.state is State.FAILED}
    if len(failed) <= allowed:
        return None
    reasons = sorted(Counter(failed.values()).items(), key=lambda item: (-item[1], item[0]))[:COMMONEST]
    told = ", ".join(f"{reason} ({count} x)" for reason, count in reasons)
    return SweepEnd(
        StopReason.MAX_FAILED,
        f"{len(failed)} trials failed, {allowed} may: {told}",
    )


def target_reached(sweep: Sweep, evaluations: Iterable[Evaluation]) -> SweepEnd | None:
    """Return the end if a point at the full fidelity has reached every target that is set."""
    aims = [(place, objective) for place, objective in enumerate(sweep.objectives) if objective.target is not None]
    if not aims:
        return None
    for one in evaluations:
        full = one.feasible and one.rung == sweep.rungs - 1
        if full and all(objective.reached(one.objectives[place]) for place, objective in aims):
            values = ", ".join(f"{objective.metric} {one.objectives[place]:.6g}" for place, objective in aims)
            return SweepEnd(StopReason.TARGET_REACHED, f"trial {one.number} reached the target: {values}")
    return None


def no_improvement(sweep: Sweep, evaluations: Sequence[Evaluation]) -> SweepEnd | None:
    """Return the end if so many points have finished since the last one that was better than all before."""
    allowed = sweep.budget.without_improvement
    if allowed is None:
        return None
    finished = in_order_of_end(evaluations)
    better = improvements(sweep, finished)
    since = len({one.number for one in finished[better[-1] + 1 if better else 0 :]})
    if since < allowed:
        return None
    return SweepEnd(StopReason.WITHOUT_IMPROVEMENT, f"{since} trials without a better one, {allowed} may be")


def in_order_of_end(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """Return the finished evaluations, the earliest first; those without a known time come first."""
    finished = [one for one in evaluations if one.state is not State.RUNNING]
    never = datetime.min.replace(tzinfo=UTC)
    return sorted(finished, key=lambda one: (one.ended or never, one.number, one.rung))
