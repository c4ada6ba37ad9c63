"""The Events of a status change: which there are, what they say, and by what two of one reason are told apart."""

import pytest

from anomaly_api.reasons import Reason
from anomaly_api.status import Condition, ConditionType, Device, Phase, RunStatus, TrainedBy
from anomaly_api.sweep_status import BestTrial, SweepStatus
from anomaly_operator.decide.transition_events import Event, transition_events

START, EARLIER, LATER = "2026-01-02T03:04:05Z", "2026-01-02T03:05:00Z", "2026-01-02T03:06:00Z"


def condition(kind: ConditionType, reason: Reason, status: str = "True", since: str = LATER) -> Condition:
    return Condition.model_validate(
        {"type": kind, "reason": reason, "status": status, "message": f"why {reason}", "lastTransitionTime": since}
    )


def status(*conditions: Condition, start: str | None = START, **fields: object) -> RunStatus:
    return RunStatus.model_validate({"conditions": conditions, "startTime": start} | fields)


RUNNING = status(condition(ConditionType.RECONCILING, Reason.RUNNING, since=EARLIER))
HELD = status(condition(ConditionType.SUSPENDED, Reason.SUSPENDED, since=EARLIER))
GOES_ON = status(
    condition(ConditionType.RECONCILING, Reason.RUNNING, since=EARLIER),
    condition(ConditionType.SUSPENDED, Reason.RESUMED, "False"),
)


def test_a_run_that_goes_on_is_told_with_the_time_of_its_resumption() -> None:
    assert transition_events(HELD, GOES_ON) == (Event("Normal", Reason.RESUMED, "the run goes on", LATER),)
    assert transition_events(GOES_ON, GOES_ON) == ()
    assert transition_events(RUNNING, GOES_ON) == ()


def test_a_run_that_is_suspended_is_told() -> None:
    assert transition_events(RUNNING, HELD) == (Event("Normal", Reason.SUSPENDED, "why Suspended", EARLIER),)
    assert transition_events(HELD, HELD) == ()
    assert transition_events(GOES_ON, HELD) == (Event("Normal", Reason.SUSPENDED, "why Suspended", EARLIER),)


def test_a_run_that_has_not_started_is_neither_suspended_nor_resumed() -> None:
    held, goes_on = HELD.model_copy(update={"start_time": None}), GOES_ON.model_copy(update={"start_time": None})
    assert transition_events(RunStatus(), held) == ()
    assert transition_events(held, goes_on) == ()


@pytest.mark.parametrize(
    ("kind", "event_type"),
    [(ConditionType.COMPLETE, "Normal"), (ConditionType.FAILED, "Warning"), (ConditionType.STALLED, "Warning")],
)
def test_a_condition_that_becomes_true_is_told_once(kind: ConditionType, event_type: str) -> None:
    new = status(condition(kind, Reason.PRUNED))
    [event] = transition_events(RUNNING, new)
    assert (event.type, event.reason, event.message, event.since) == (event_type, Reason.PRUNED, "why Pruned", LATER)
    assert transition_events(new, new) == ()
    assert transition_events(RUNNING, status(condition(kind, Reason.PRUNED, "False"))) == ()
    [other] = transition_events(new, status(condition(kind, Reason.DATA_INVALID)))
    assert other.reason is Reason.DATA_INVALID


def test_a_failure_is_one_event_although_it_is_two_conditions() -> None:
    new = status(
        condition(ConditionType.FAILED, Reason.DATA_INVALID), condition(ConditionType.STALLED, Reason.DATA_INVALID)
    )
    assert transition_events(RUNNING, new) == (Event("Warning", Reason.DATA_INVALID, "why DataInvalid", LATER),)


NEEDS_HELP = [
    Reason.UNSCHEDULABLE,
    Reason.IMAGE_UNAVAILABLE,
    Reason.SECRET_NOT_FOUND,
    Reason.PODS_REFUSED,
    Reason.VOLUME_UNAVAILABLE,
    Reason.JOB_DELETED,
]


@pytest.mark.parametrize("reason", NEEDS_HELP)
def test_a_wait_that_somebody_may_have_to_end_is_told(reason: Reason) -> None:
    new = status(condition(ConditionType.RECONCILING, reason))
    assert transition_events(RUNNING, new) == (Event("Warning", reason, f"why {reason}", LATER),)
    assert transition_events(new, new) == ()


@pytest.mark.parametrize("reason", [Reason.PENDING, Reason.STARTING, Reason.QUEUED, Reason.RETRYING])
def test_a_wait_that_ends_by_itself_is_not_told(reason: Reason) -> None:
    assert transition_events(RUNNING, status(condition(ConditionType.RECONCILING, reason))) == ()


def on_cpu(start: str | None = START, **fields: object) -> RunStatus:
    device = Device(name="CPU", provider="torch cpu", fallback="no driver")
    return RUNNING.model_copy(update={"device": device, "start_time": start} | fields)


def test_a_run_on_the_cpu_instead_of_a_gpu_is_told_while_it_runs() -> None:
    event = Event("Warning", Reason.GPU_UNAVAILABLE, "the run is on the CPU: no driver", START)
    assert transition_events(RUNNING, on_cpu()) == (event,)
    assert transition_events(on_cpu(), on_cpu()) == ()
    assert transition_events(RUNNING, on_cpu(completion_time=LATER)) == ()
    assert transition_events(RUNNING, on_cpu(start=None))[0].since == ""
    without = RUNNING.model_copy(update={"device": Device(name="CPU", provider="torch cpu")})
    assert transition_events(RUNNING, without) == ()
    assert transition_events(without, on_cpu()) == (event,)


def trained_by(run: int | None, newer: int | None) -> RunStatus:
    used = TrainedBy(namespace="vision", name="screws", uid="u", run=run, newer_run=newer)
    return RunStatus(phase=Phase.COMPLETE, trained_by=used)


def test_a_newer_model_is_told_once() -> None:
    message = (
        "AnomalyExperiment screws has a newer model, of run 4; this run used that of run 2: set runPolicy.rerun to use "
        "the newer one"
    )
    event = Event("Normal", Reason.MODEL_OUTDATED, message, "u/4")
    assert transition_events(trained_by(2, None), trained_by(2, 4)) == (event,)
    assert transition_events(trained_by(2, 3), trained_by(2, 4)) == (event,)
    assert transition_events(RunStatus(), trained_by(2, 4)) == (event,)
    assert transition_events(trained_by(2, 4), trained_by(2, 4)) == ()
    assert transition_events(trained_by(2, 4), trained_by(2, None)) == ()
    assert "used that of run 1:" in transition_events(trained_by(None, None), trained_by(None, 4))[0].message


def searching(*numbers: int) -> RunStatus:
    best = [BestTrial(number=number, objectives={"image.AUROC": 0.98765432}, values={}) for number in numbers]
    return RunStatus(start_time=START, sweep=SweepStatus(search="s", best=tuple(best)))


def test_a_better_trial_is_told_with_its_values() -> None:
    event = Event("Normal", Reason.NEW_BEST, "trial 7: image.AUROC 0.987654", f"{START}/7")
    assert transition_events(searching(), searching(7)) == (event,)
    assert transition_events(RunStatus(), searching(7, 3)) == (event,)
    assert transition_events(searching(3), searching(7, 3)) == (event,)
    assert transition_events(searching(7), searching(7, 3)) == ()
    assert transition_events(searching(7), searching()) == ()


def test_all_objectives_of_a_better_trial_are_told() -> None:
    values = {"image.AUROC": 0.5, "image.F1Score": 0.25}
    best = SweepStatus(best=(BestTrial(number=0, objectives=values, values={}),))
    [event] = transition_events(RunStatus(), RunStatus(sweep=best))
    assert event.message == "trial 0: image.AUROC 0.5, image.F1Score 0.25"
