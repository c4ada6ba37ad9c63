"""What is worth an Event: changes of a run that a user would ask about. Pure.

Events are extra writes, so there are none for what `kubectl describe` of the Job tells anyway.
"""

from dataclasses import dataclass
from typing import Literal

from anomaly_api.reasons import Reason
from anomaly_api.status import Condition, ConditionType, RunStatus
from anomaly_operator.decide.conditions import holds

TROUBLE = frozenset({Reason.UNSCHEDULABLE, Reason.IMAGE_UNAVAILABLE, Reason.SECRET_NOT_FOUND, Reason.JOB_DELETED})
"""Reasons of Reconciling that somebody may have to act on."""


@dataclass(frozen=True)
class Note:
    """One Event to be."""

    type: Literal["Normal", "Warning"]
    reason: Reason
    message: str
    since: str
    """When it began; tells two occurrences of the same thing apart."""


def notes(old: RunStatus, new: RunStatus) -> tuple[Note, ...]:
    """Events of the change from ``old`` to ``new``."""
    found = [
        _began(old, new, ConditionType.COMPLETE, "Normal"),
        _began(old, new, ConditionType.FAILED, "Warning"),
        _began(old, new, ConditionType.STALLED, "Warning"),
        _began(old, new, ConditionType.SUSPENDED, "Normal") if old.start_time else None,
        _resumed(old, new) if old.start_time else None,
        _trouble(old, new),
    ]
    unique = {note.reason: note for note in reversed(found) if note}
    return tuple(reversed(unique.values()))


def _began(old: RunStatus, new: RunStatus, kind: ConditionType, severity: Literal["Normal", "Warning"]) -> Note | None:
    before, after = holds(old.conditions, kind), holds(new.conditions, kind)
    return _note(severity, after) if after and (before is None or before.reason != after.reason) else None


def _resumed(old: RunStatus, new: RunStatus) -> Note | None:
    if not holds(old.conditions, ConditionType.SUSPENDED) or holds(new.conditions, ConditionType.SUSPENDED):
        return None
    since = next(found.last_transition_time for found in new.conditions if found.type is ConditionType.SUSPENDED)
    return Note("Normal", Reason.RESUMED, "the run goes on", since)


def _trouble(old: RunStatus, new: RunStatus) -> Note | None:
    before, after = holds(old.conditions, ConditionType.RECONCILING), holds(new.conditions, ConditionType.RECONCILING)
    if after is None or after.reason not in TROUBLE or (before and before.reason is after.reason):
        return None
    return _note("Warning", after)


def _note(severity: Literal["Normal", "Warning"], found: Condition) -> Note:
    return Note(severity, found.reason, found.message, found.last_transition_time)
