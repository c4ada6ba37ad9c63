"""The conditions of a run's status.

Complete, Failed and Suspended mean what they mean on a batch/v1 Job; Reconciling and Stalled follow kstatus; DataReady
is what a preflight check found. A condition enters the status the first time it is True (DataReady: once it is known);
from then on it is True or False, never Unknown.

This module does not know why a condition is True; ``status`` decides that.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from anomaly_api.reasons import Reason
from anomaly_api.status import Condition, ConditionType

MESSAGE_LIMIT = 1024
"""Longest message of a condition, characters."""

ORDER = (
    ConditionType.COMPLETE,
    ConditionType.FAILED,
    ConditionType.STALLED,
    ConditionType.SUSPENDED,
    ConditionType.RECONCILING,
    ConditionType.DATA_READY,
)
"""Order in the status, final conditions first: kubectl shows the reason of the first one that is True."""

KEPT = frozenset({ConditionType.DATA_READY})
"""Conditions about what was found out once, for as long as the run lasts."""


@dataclass(frozen=True)
class ConditionState:
    """Reason and message of a condition whose status is known."""

    reason: Reason
    message: str = ""


def update_conditions(
    recorded: Iterable[Condition],
    true: Mapping[ConditionType, ConditionState],
    false: Mapping[ConditionType, ConditionState] | None = None,
    *,
    false_reason: Reason,
    generation: int,
    now: str,
) -> tuple[Condition, ...]:
    """Return all conditions of the new status, in ``ORDER``; messages are cut to ``MESSAGE_LIMIT``.

    As with SetStatusCondition of Kubernetes' apimachinery, lastTransitionTime moves only when a condition's status
    does.

    Args:
        recorded: the conditions of the recorded status.
        true: the conditions that are True now; all other recorded conditions become False, except those that are kept.
        false: conditions that are False for a reason of their own.
        false_reason: reason of conditions that are False, except Suspended: a run that is no longer suspended was
            resumed.
        generation: generation of the spec that the conditions describe.
        now: time of the transitions (RFC 3339).
    """
    old = {condition.type: condition for condition in recorded}
    updated = []
    for kind in ORDER:
        if kind in true:
            condition = _condition(kind, "True", true[kind], generation, now)
        elif false and kind in false:
            condition = _condition(kind, "False", false[kind], generation, now)
        elif kind in old and kind in KEPT:
            condition = old[kind].model_copy(update={"observed_generation": generation})
        elif kind in old:
            reason = Reason.RESUMED if kind is ConditionType.SUSPENDED else false_reason
            condition = _condition(kind, "False", ConditionState(reason), generation, now)
        else:
            continue
        updated.append(_keep_transition_time(old.get(kind), condition))
    return tuple(updated)


def _condition(
    kind: ConditionType, status: Literal["True", "False"], state: ConditionState, generation: int, now: str
) -> Condition:
    return Condition(
        type=kind,
        status=status,
        reason=state.reason,
        message=state.message[:MESSAGE_LIMIT],
        last_transition_time=now,
        observed_generation=generation,
    )


def _keep_transition_time(old: Condition | None, new: Condition) -> Condition:
    if old is None or old.status != new.status:
        return new
    return new.model_copy(update={"last_transition_time": old.last_transition_time})


def find_true(conditions: Iterable[Condition], kind: ConditionType) -> Condition | None:
    """Return the condition of this type if it is True."""
    return next((condition for condition in conditions if condition.type is kind and condition.status == "True"), None)
