"""Conditions: what enters the status, what stays, and when a transition time moves."""

from anomaly_api.reasons import Reason
from anomaly_api.status import Condition, ConditionType
from anomaly_operator.decide.conditions import ConditionState, find_true, update_conditions

BEFORE, NOW = "2026-01-02T03:04:05Z", "2026-01-02T03:15:00Z"
RECONCILING, STALLED, SUSPENDED = ConditionType.RECONCILING, ConditionType.STALLED, ConditionType.SUSPENDED
COMPLETE, FAILED, DATA_READY = ConditionType.COMPLETE, ConditionType.FAILED, ConditionType.DATA_READY


def recorded(kind: ConditionType, status: str = "True", reason: Reason = Reason.RUNNING) -> Condition:
    return Condition.model_validate(
        {"type": kind, "status": status, "reason": reason, "message": "old", "lastTransitionTime": BEFORE}
    )


def update(
    old: tuple[Condition, ...],
    true: dict[ConditionType, ConditionState],
    false: dict[ConditionType, ConditionState] | None = None,
) -> list[tuple[str, str, str, str, str]]:
    updated = update_conditions(old, true, false, false_reason=Reason.COMPLETE, generation=3, now=NOW)
    assert {condition.observed_generation for condition in updated} <= {3}
    return [(each.type, each.status, each.reason, each.message, each.last_transition_time) for each in updated]


def test_a_condition_enters_when_it_is_true_for_the_first_time() -> None:
    assert update((), {STALLED: ConditionState(Reason.JOB_REFUSED, "quota")}) == [
        ("Stalled", "True", "JobRefused", "quota", NOW)
    ]


def test_a_transition_time_moves_with_the_status_alone() -> None:
    other_reason = {RECONCILING: ConditionState(Reason.RETRYING, "again")}
    assert update((recorded(RECONCILING),), other_reason) == [("Reconciling", "True", "Retrying", "again", BEFORE)]
    assert update((recorded(RECONCILING),), {}) == [("Reconciling", "False", "Complete", "", NOW)]
    assert update((recorded(RECONCILING, "False"),), {}) == [("Reconciling", "False", "Complete", "", BEFORE)]
    assert update((recorded(RECONCILING, "False"),), other_reason)[0][4] == NOW


def test_final_conditions_come_first() -> None:
    kinds = [DATA_READY, RECONCILING, SUSPENDED, STALLED, FAILED, COMPLETE]
    updated = update((), {kind: ConditionState(Reason.PENDING) for kind in kinds})
    assert [each[0] for each in updated] == ["Complete", "Failed", "Stalled", "Suspended", "Reconciling", "DataReady"]


def test_a_run_that_is_not_suspended_any_more_was_resumed() -> None:
    assert update((recorded(SUSPENDED),), {}) == [("Suspended", "False", "Resumed", "", NOW)]


def test_what_a_check_found_stays_while_nothing_else_is_known() -> None:
    found = recorded(DATA_READY, "True", Reason.DATA_READY)
    assert update((found,), {RECONCILING: ConditionState(Reason.RUNNING)})[1] == (
        "DataReady", "True", "DataReady", "old", BEFORE,
    )  # fmt: skip
    denied = {DATA_READY: ConditionState(Reason.DATA_INVALID, "empty")}
    assert update((found,), {}, denied) == [("DataReady", "False", "DataInvalid", "empty", NOW)]
    assert update((), {}, denied) == [("DataReady", "False", "DataInvalid", "empty", NOW)]
    assert update((found,), denied, denied)[0][1] == "True"


def test_messages_are_cut_to_what_a_condition_holds() -> None:
    assert update((), {STALLED: ConditionState(Reason.JOB_REFUSED, "x" * 1024)})[0][3] == "x" * 1024
    assert update((), {STALLED: ConditionState(Reason.JOB_REFUSED, "x" * 1025)})[0][3] == "x" * 1024


def test_only_a_true_condition_is_found() -> None:
    conditions = (recorded(STALLED, "False"), recorded(RECONCILING), recorded(SUSPENDED, "Unknown"))
    assert find_true(conditions, RECONCILING) is conditions[1]
    assert [find_true(conditions, kind) for kind in (STALLED, SUSPENDED, COMPLETE)] == [None, None, None]
