"""The conditions of a run. Pure.

All are of the abnormal-or-final kind: one is there when it holds, or held before and is then False. Complete,
Failed and Suspended are as on Jobs; Reconciling and Stalled as kstatus reads them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from anomaly_api.reasons import Reason
from anomaly_api.status import Condition, ConditionType

ORDER = (
    ConditionType.COMPLETE,
    ConditionType.FAILED,
    ConditionType.STALLED,
    ConditionType.SUSPENDED,
    ConditionType.RECONCILING,
)
"""The final ones first: kubectl shows the reason of the first that holds."""


@dataclass(frozen=True)
class Holds:
    """A condition that is True now."""

    reason: Reason
    message: str = ""


def conditions(
    now: str, generation: int, true: Mapping[ConditionType, Holds], otherwise: Reason, before: Iterable[Condition]
) -> tuple[Condition, ...]:
    """All conditions; lastTransitionTime moves only when a condition's status does.

    ``otherwise`` is the reason of a condition that no longer holds; a run that is not suspended any more was resumed.
    """
    known = {condition.type: condition for condition in before}
    wanted = {kind: ("True", found) for kind, found in true.items()}
    wanted |= {kind: ("False", Holds(_ceased(kind, otherwise))) for kind in known if kind not in true}
    found = []
    for kind in ORDER:
        if kind in wanted:
            status, holds = wanted[kind]
            old = known.get(kind)
            same = old is not None and old.status == status
            found.append(
                Condition(
                    type=kind,
                    status=status,
                    reason=holds.reason,
                    message=holds.message[:1024],
                    last_transition_time=old.last_transition_time if old and same else now,
                    observed_generation=generation,
                )
            )
    return tuple(found)


def _ceased(kind: ConditionType, otherwise: Reason) -> Reason:
    return Reason.RESUMED if kind is ConditionType.SUSPENDED else otherwise


def holds(found: Iterable[Condition], kind: ConditionType) -> Condition | None:
    """The condition of this type, if it is True."""
    return next((condition for condition in found if condition.type is kind and condition.status == "True"), None)
