"""The Events of a status change, for transitions that a user of the run would ask about.

An Event is one more write, so there is none for what ``kubectl describe`` of the Job shows already.
"""

from dataclasses import dataclass
from typing import Literal

from anomaly_api.reasons import Reason
from anomaly_api.status import Condition, ConditionType, RunStatus
from anomaly_operator.decide.conditions import find_true
from anomaly_operator.decide.phase import WARNING_REASONS

EventType = Literal["Normal", "Warning"]


@dataclass(frozen=True)
class Event:
    """An Event about a run, not yet posted."""

    type: EventType
    reason: Reason
    message: str
    since: str
    """Time of the transition (RFC 3339); tells two occurrences of the same reason apart."""


def transition_events(old: RunStatus, new: RunStatus) -> tuple[Event, ...]:
    """Return the Events of the change from one status to another, one per reason."""
    had_started = old.start_time is not None
    events = [
        _became_true(old, new, ConditionType.COMPLETE, "Normal"),
        _became_true(old, new, ConditionType.FAILED, "Warning"),
        _became_true(old, new, ConditionType.STALLED, "Warning"),
        # A run that is suspended from the beginning has no transition.
        _became_true(old, new, ConditionType.SUSPENDED, "Normal") if had_started else None,
        _resumed(old, new) if had_started else None,
        _needs_attention(old, new),
        _runs_without_gpu(old, new),
        _model_outdated(old, new),
        _new_best(old, new),
    ]
    # A failure is both Failed and Stalled, for the same reason: keep the first one.
    by_reason = {event.reason: event for event in reversed(events) if event}
    return tuple(reversed(by_reason.values()))


def _became_true(old: RunStatus, new: RunStatus, kind: ConditionType, event_type: EventType) -> Event | None:
    before, after = find_true(old.conditions, kind), find_true(new.conditions, kind)
    return _event(event_type, after) if after and (before is None or before.reason != after.reason) else None


def _resumed(old: RunStatus, new: RunStatus) -> Event | None:
    was_suspended = find_true(old.conditions, ConditionType.SUSPENDED)
    if not was_suspended or find_true(new.conditions, ConditionType.SUSPENDED):
        return None
    since = next(found.last_transition_time for found in new.conditions if found.type is ConditionType.SUSPENDED)
    return Event("Normal", Reason.RESUMED, "the run goes on", since)


def _needs_attention(old: RunStatus, new: RunStatus) -> Event | None:
    reconciling = find_true(new.conditions, ConditionType.RECONCILING)
    if reconciling is None or reconciling.reason not in WARNING_REASONS:
        return None
    return _became_true(old, new, ConditionType.RECONCILING, "Warning")


def _runs_without_gpu(old: RunStatus, new: RunStatus) -> Event | None:
    """Return the Event of a pod that goes on on the CPU although it was given a GPU; its end says no more of it."""
    why = new.device.fallback if new.device else None
    before = old.device.fallback if old.device else None
    if why is None or before is not None or new.completion_time:
        return None
    return Event("Warning", Reason.GPU_UNAVAILABLE, f"the run is on the CPU: {why}", new.start_time or "")


def _model_outdated(old: RunStatus, new: RunStatus) -> Event | None:
    """Return the Event of an inference whose experiment has a newer model: it stays as it is."""
    used = new.trained_by
    if used is None or used.newer_run is None or (old.trained_by and old.trained_by.newer_run == used.newer_run):
        return None
    message = (
        f"AnomalyExperiment {used.name} has a newer model, of run {used.newer_run}; this run used that of run "
        f"{used.run or 1}: set runPolicy.rerun to use the newer one"
    )
    return Event("Normal", Reason.MODEL_OUTDATED, message, f"{used.uid}/{used.newer_run}")


def _new_best(old: RunStatus, new: RunStatus) -> Event | None:
    """Return the Event of a sweep whose best trial is another one."""
    best = new.sweep.best[0] if new.sweep and new.sweep.best else None
    before = old.sweep.best[0] if old.sweep and old.sweep.best else None
    if best is None or (before and before.number == best.number):
        return None
    values = ", ".join(f"{metric} {value:.6g}" for metric, value in best.objectives.items())
    return Event("Normal", Reason.NEW_BEST, f"trial {best.number}: {values}", f"{new.start_time}/{best.number}")


def _event(event_type: EventType, condition: Condition) -> Event:
    return Event(event_type, condition.reason, condition.message, condition.last_transition_time)
