"""The status of a search: when its time is over, how it ends, what it has used."""

from datetime import UTC, datetime
from typing import Any

import pytest

from anomaly_api.status import ConditionType, Phase, RunStatus
from anomaly_api.sweep_exchange import SweepEnd
from anomaly_api.sweep_status import StopReason
from anomaly_operator.decide.conditions import find_true
from anomaly_operator.decide.desired import DesiredJob, DesiredSearch, desired_state
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.decide.runs import current_run, spec_digest
from anomaly_operator.decide.search_status import (
    GpuUsage,
    SearchState,
    deadline_end,
    removed_hours,
    search_status,
    seconds_until_due,
)
from anomaly_operator.resources import Manifest
from anomaly_operator.views import RunView
from support.objects import EXPERIMENT, make_run, with_spec

BEGAN = "2026-01-02T03:04:05Z"
A_MINUTE_LATER = datetime(2026, 1, 2, 3, 5, 5, tzinfo=UTC)
BEST = {"number": 3, "objectives": {"image.AUROC": 0.9}, "values": {"model.padim.nFeatures": 7}}


def sweep(policy: dict[str, Any] | None = None, **fields: Any) -> RunView:
    return make_run(manifest(policy, **fields))


def manifest(policy: dict[str, Any] | None = None, **fields: Any) -> Manifest:
    block = {
        "parameters": [{"path": "model.padim.nFeatures", "int": {"low": 1, "high": 64}}],
        "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
    }
    return with_spec(EXPERIMENT, sweep=block | fields, runPolicy={"preflight": "Never"} | (policy or {}))


def search(run: RunView) -> DesiredSearch:
    found = desired_state(run, current_run(run, RunStatus()), None, PodSettings(runner_image="r", inference_image="i"))
    assert isinstance(found, DesiredSearch)
    return found


def status(**fields: Any) -> RunStatus:
    return RunStatus.model_validate({"run": 1, "specDigest": "d", "startTime": BEGAN} | fields)


@pytest.mark.parametrize(
    ("deadline", "budget", "left"),
    [
        ({}, {}, None),
        ({"activeDeadlineSeconds": 100}, {}, 40.0),
        ({}, {"wallClockSeconds": 70}, 10.0),
        ({"activeDeadlineSeconds": 100}, {"wallClockSeconds": 70}, 10.0),
        ({"activeDeadlineSeconds": 50}, {"wallClockSeconds": 70}, 0.0),
    ],
)
def test_seconds_until_a_limit_of_time(deadline: dict[str, Any], budget: dict[str, Any], left: float | None) -> None:
    desired = search(sweep(deadline, budget=budget))
    unused = GpuUsage(hours=0.0, gpus=8)
    assert seconds_until_due(desired, status(), unused, A_MINUTE_LATER) == left
    assert seconds_until_due(desired, RunStatus(), unused, A_MINUTE_LATER) is None


@pytest.mark.parametrize(
    ("budget", "hours", "gpus", "left"),
    [
        ({"gpuHours": 2.0}, 1.5, 1, 1800.0),
        ({"gpuHours": 2.0}, 1.5, 8, 225.0),  # half an hour of eight GPUs
        ({"gpuHours": 2.0}, 2.5, 8, 0.0),
        ({"gpuHours": 2.0}, 1.5, 0, None),
        ({"gpuHours": 2.0, "wallClockSeconds": 70}, 1.5, 8, 10.0),
        ({"gpuHours": 2.0, "wallClockSeconds": 600}, 1.5, 8, 225.0),
    ],
)
def test_seconds_until_the_gpu_hours_are_used_up(
    budget: dict[str, Any], hours: float, gpus: int, left: float | None
) -> None:
    desired = search(sweep(budget=budget))
    assert seconds_until_due(desired, status(), GpuUsage(hours, gpus), A_MINUTE_LATER) == left


@pytest.mark.parametrize(("limit", "is_over"), [(61, False), (60, True)])
def test_the_deadline_is_that_of_the_run(limit: int, is_over: bool) -> None:
    end = deadline_end(search(sweep({"activeDeadlineSeconds": limit})), status(), A_MINUTE_LATER)
    assert (end is not None) == is_over
    if end:
        told = "the run took longer than runPolicy.activeDeadlineSeconds (60 s)"
        assert end == SweepEnd(StopReason.DEADLINE_EXCEEDED, told)


@pytest.mark.parametrize(
    ("stop", "best", "reason", "message"),
    [
        ("MaxFailed", [BEST], "TrialsFailed", "why"),
        ("DeadlineExceeded", [BEST], "DeadlineExceeded", "why"),
        ("MaxTrials", [], "TrialsFailed", "no trial can be used: why"),
    ],
)
def test_ends_without_a_point_to_train(stop: str, best: list[Any], reason: str, message: str) -> None:
    run = sweep()
    overview = status(sweep={"asked": 4, "best": best}).sweep
    assert overview
    state = SearchState(overview=overview, at_work=2, end=SweepEnd(StopReason(stop), "why"))
    told = search_status(run, status(), search(run), state, A_MINUTE_LATER)
    at_work = find_true(told.conditions, ConditionType.RECONCILING)
    assert at_work
    assert (told.phase, at_work.message) == ("Pending", f"the search failed, {reason}: {message}; its page is made")
    [step] = told.steps or ()
    assert step.failure
    assert (step.name, step.failure.reason, step.failure.message) == ("search", reason, message)
    assert told.sweep
    assert told.sweep.limits, "other limits have it go on"


def test_what_tells_of_a_failure_is_not_suspended() -> None:
    """A deadline passes while a sweep is suspended as well: its run ends."""
    failure = {"reason": "DeadlineExceeded", "message": "too late"}
    over = status(steps=[{"name": "search", "jobName": "", "failure": failure}], sweep={"asked": 0})
    settings = PodSettings(runner_image="r", inference_image="i")
    desired = desired_state(sweep({"suspend": True}), over, None, settings)
    assert isinstance(desired, DesiredJob)
    assert desired.make()["spec"]["suspend"] is False
    done = status(steps=[{"name": "search", "jobName": ""}], sweep={"asked": 4, "best": [BEST]})
    trained = desired_state(sweep({"suspend": True}), done, None, settings)
    assert isinstance(trained, DesiredJob)
    assert trained.make()["spec"]["suspend"] is True


def test_a_search_with_a_best_point_is_a_step_that_is_done() -> None:
    run = sweep()
    overview = status(sweep={"asked": 4, "best": [BEST]}).sweep
    assert overview
    state = SearchState(overview=overview, at_work=2, end=SweepEnd(StopReason.TARGET_REACHED, "why"))
    told = search_status(run, status(), search(run), state, A_MINUTE_LATER)
    assert [step.name for step in told.steps or ()] == ["search"]
    assert told.phase == "Pending"


def test_what_deleted_trials_used_stays_counted() -> None:
    """Run 1 ended with 5 GPU-hours, of which trials that are gone by run 2 had used 2."""
    desired = search(sweep())
    ended = status(
        sweep={"search": desired.search, "asked": 4, "gpuHours": 5.0, "limits": "20 trials"}, phase="Complete"
    )
    again = current_run(make_run(manifest(), generation=2), ended)
    assert again.run == 2
    assert removed_hours(again, desired, 3.0) == 2.0
    assert removed_hours(again, desired, 5.5) == 0.0, "a trial that was to be deleted ended by itself"
    at_work = status(sweep={"search": desired.search, "asked": 5, "gpuHours": 6.0, "removedGpuHours": 2.0})
    assert removed_hours(at_work, desired, 4.0) == 2.0
    other = status(sweep={"search": "another", "asked": 5, "gpuHours": 6.0, "removedGpuHours": 2.0})
    assert removed_hours(other, desired, 4.0) == 0.0


def test_limits_that_change_while_the_last_step_is_at_work_count_once_it_is_over() -> None:
    """The training of the winner has seen the spec's generation; its end is recorded first."""
    desired = search(sweep(trials={"max": 4}))
    recorded = {"search": desired.search, "asked": 4, "limits": desired.limits, "best": [BEST]}
    at_work = status(sweep=recorded, phase="Running", specDigest=spec_digest(sweep()), observedGeneration=2)
    over = at_work.model_copy(update={"phase": Phase.COMPLETE})
    raised = make_run(manifest(trials={"max": 6}), generation=2)
    assert current_run(raised, at_work) == at_work
    again = current_run(raised, over)
    assert (again.run, again.sweep and again.sweep.search) == (2, desired.search)
    as_it_was = make_run(manifest(trials={"max": 4, "parallel": 3}), generation=2)
    assert current_run(as_it_was, over) == over, "fewer or more at a time end nothing"


def test_a_rerun_that_is_asked_for_at_work_is_that_of_the_next_run() -> None:
    begun = current_run(sweep({"rerun": "once"}), RunStatus())
    first = search(sweep({"rerun": "once"}))
    at_work = begun.model_copy(update={"phase": Phase.RUNNING, "start_time": BEGAN, "observed_generation": 1})
    at_work = at_work.model_copy(update={"sweep": status(sweep={"search": first.search, "asked": 2}).sweep})
    asked = make_run(manifest({"rerun": "twice"}), generation=2)
    settings = PodSettings(runner_image="r", inference_image="i")
    goes_on = desired_state(asked, current_run(asked, at_work), None, settings)
    assert isinstance(goes_on, DesiredSearch)
    assert goes_on.search == first.search
    over = at_work.model_copy(update={"phase": Phase.COMPLETE})
    another = desired_state(asked, current_run(asked, over), None, settings)
    assert isinstance(another, DesiredSearch)
    assert another.search != first.search
