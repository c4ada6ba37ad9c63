"""Which failures are told of a run, and in which words."""

import pytest

from anomaly_api.status import ConditionType, Phase, RunStatus
from anomaly_operator.decide.conditions import find_true
from anomaly_operator.decide.failing import describe_failure, failing_status, is_told, unreadable_event
from anomaly_operator.errors import LoginError, StatusUnreadable, Unavailable, api_error
from support.objects import EXPERIMENT, make_run
from support.played_api import BEGIN

RUN = make_run(EXPERIMENT, {"phase": "Melted"}, generation=4)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyError("password"), True),
        (api_error(403, "not yours"), True),
        (api_error(404, "no such kind"), True),
        (api_error(410, "gone"), True),
        (api_error(422, "invalid"), True),
        (api_error(500, "failed calling webhook"), True),
        (Unavailable(0, "TimeoutError"), False),
        (api_error(429, "too many"), False),
        (api_error(502, "bad gateway"), False),
        (api_error(503, "no leader"), False),
        (api_error(401, "who are you"), False),
        (api_error(409, "changed"), False),
        (LoginError("no token"), False),
        (StatusUnreadable("of a later release"), False),
    ],
)
def test_what_says_something_of_the_run_is_told(error: Exception, told: bool) -> None:
    assert is_told(error) is told


def test_a_defect_is_told_by_its_place_and_never_by_its_text() -> None:
    try:
        make_run({"metadata": {"name": "of-a-secret"}, "kind": "AnomalyExperiment", "spec": "the-password"})
    except AttributeError as error:
        text = describe_failure(error)
    assert text.startswith("a defect of the operator, which tries again: AttributeError at views.py:")
    assert text.endswith("; its log says more")
    assert "password" not in text
    assert "AttributeError at an unknown place;" in describe_failure(AttributeError("x"))


def test_the_place_is_told_from_the_operators_last_folder() -> None:
    nested = compile("raise AttributeError", "/srv/anomaly_operator/lib/anomaly_operator/decide/plan.py", "exec")
    with pytest.raises(AttributeError) as raised:
        exec(nested)
    assert " at decide/plan.py:1;" in describe_failure(raised.value)


def test_a_request_is_told_in_the_servers_words() -> None:
    expected = "the API server refused or failed a request of the operator, which tries again: 403: not yours"
    assert describe_failure(api_error(403, "not yours")) == expected


def test_a_run_at_work_keeps_what_is_known_of_it() -> None:
    old = RunStatus(phase=Phase.RUNNING, run=2, start_time="2026-01-02T03:04:05Z", attempts=3, job_name="j")
    told = failing_status(RUN, old, KeyError("x"), BEGIN)
    assert told.observed_generation == 4
    assert told.model_copy(update={"conditions": (), "display": None, "observed_generation": 0}) == old
    stalled = find_true(told.conditions, ConditionType.STALLED)
    assert stalled is not None
    assert (stalled.reason.value, stalled.observed_generation) == ("InternalError", 4)
    assert stalled.last_transition_time == "2026-01-02T03:04:05Z"
    assert len(told.conditions) == 1
    assert failing_status(RUN, told, KeyError("x"), BEGIN.replace(hour=9)) == told


@pytest.mark.parametrize("phase", [Phase.COMPLETE, Phase.FAILED])
def test_a_run_that_is_over_stays_as_it_is(phase: Phase) -> None:
    old = RunStatus(phase=phase)
    assert failing_status(RUN, old, KeyError("x"), BEGIN) is old


def test_the_same_unreadable_status_is_the_same_event() -> None:
    event = unreadable_event(RUN)
    assert (event.type, event.reason.value) == ("Warning", "InternalError")
    assert event.message == (
        "the recorded status cannot be read by this release of the operator, which leaves the run alone: "
        "install the release that wrote it, or delete the resource and apply it again"
    )
    assert event == unreadable_event(RUN)
    assert event.since != unreadable_event(make_run(EXPERIMENT, {"phase": "Boiled"})).since
