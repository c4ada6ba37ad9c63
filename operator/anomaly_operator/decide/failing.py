"""What is told of a run whose reconcile fails again and again: it is retried for ever, and somebody has to know.

Told are defects of the operator, and requests that the API server refuses or fails each time. An outage of the API
server is not: nothing could be written, and it says nothing about the run.
"""

import traceback
from datetime import datetime

from anomaly_api.reasons import Reason
from anomaly_api.status import ConditionType, Display, RunStatus
from anomaly_operator import names
from anomaly_operator.decide.conditions import ConditionState, find_true, update_conditions
from anomaly_operator.decide.runs import is_finished
from anomaly_operator.decide.times import to_timestamp
from anomaly_operator.decide.transition_events import Event
from anomaly_operator.errors import ApiError, Conflict, OperatorError, Unauthorized, Unavailable
from anomaly_operator.views import RunView

TOLD_AFTER = 5
"""Failures in a row after which the status tells of them: with the backoff between them, after some eight seconds."""
INTERNAL_SERVER_ERROR = 500
"""HTTP status of, among others, an admission webhook that cannot be called; other 5xx are the API server's own."""

_PACKAGE = "/anomaly_operator/"


def is_told(error: Exception) -> bool:
    """Whether a failure that repeats itself is told in the run's status."""
    if isinstance(error, Unavailable):
        return error.status == INTERNAL_SERVER_ERROR
    if isinstance(error, ApiError):
        return not isinstance(error, Conflict | Unauthorized)
    return not isinstance(error, OperatorError)


def failing_status(run: RunView, old: RunStatus, error: Exception, now: datetime) -> RunStatus:
    """Return the status of a run whose reconcile fails; that of a run which is over stays the record that it is.

    Args:
        run: the resource.
        old: what is recorded of this run.
        error: the failure.
        now: the current time, for transitions of conditions.
    """
    if is_finished(old):
        return old
    true = {ConditionType.STALLED: ConditionState(Reason.INTERNAL_ERROR, describe_failure(error))}
    # What the reconcile was about to do is not known, so a run that was suspended still is.
    if suspended := find_true(old.conditions, ConditionType.SUSPENDED):
        true[ConditionType.SUSPENDED] = ConditionState(suspended.reason, suspended.message)
    conditions = update_conditions(
        old.conditions, true, false_reason=Reason.INTERNAL_ERROR, generation=run.generation, now=to_timestamp(now)
    )
    display = Display(progress=Reason.INTERNAL_ERROR.value)
    return old.model_copy(update={"observed_generation": run.generation, "conditions": conditions, "display": display})


def describe_failure(error: Exception) -> str:
    """Describe a failure for the run's owner: the API server's own words, or the place of a defect.

    The text of a defect's exception may quote anything that the operator read, so it stays in the log.
    """
    if isinstance(error, ApiError):
        return f"the API server refused or failed a request of the operator, which tries again: {error}"
    return f"a defect of the operator, which tries again: {type(error).__name__} at {_place(error)}; its log says more"


def _place(error: Exception) -> str:
    """Return the operator's own line from which the exception came, such as ``decide/plan.py:71``."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _PACKAGE in frame.filename]
    return f"{own[-1].filename.rpartition(_PACKAGE)[2]}:{own[-1].lineno}" if own else "an unknown place"


def unreadable_event(run: RunView) -> Event:
    """Return the Event of a run whose recorded status is left alone because this release cannot read it."""
    message = (
        "the recorded status cannot be read by this release of the operator, which leaves the run alone: install the "
        "release that wrote it, or delete the resource and apply it again"
    )
    return Event("Warning", Reason.INTERNAL_ERROR, message, names.digest(run.status.decode()))
