"""The status of a search: when its time is over, how it ends, what it has used."""

from datetime import UTC, datetime
from typing import Any

import pytest

from anomaly_api.status import ConditionType, Display, Phase, Progress, RunStatus, StepStatus
from anomaly_api.sweep_exchange import SweepEnd
from anomaly_api.sweep_status import StopReason, SweepStatus
from anomaly_operator.decide.conditions import find_true
from anomaly_operator.decide.desired import DesiredJob, DesiredSearch, desired_state
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.decide.runs import current_run, spec_digest
from anomaly_operator.decide.search_status import (
    GpuUsage,
    SearchState,
    deadline_end,
    points_to_begin_with,
    removed_hours,
    search_run,
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


def point(features: int, padding: int = 0) -> dict[str, Any]:
    return {"model.padim.nFeatures": features, **({"x": "y" * padding} if padding else {})}


def test_a_search_keeps_the_points_that_it_began_with() -> None:
    run = sweep()
    desired = search(run)
    begun = points_to_begin_with(status(), desired, [point(7), point(9)])
    assert begun == (point(7), point(9))
    state = SearchState(overview=SweepStatus(asked=2), at_work=2, earlier=begun)
    told = search_status(run, status(), desired, state, A_MINUTE_LATER)
    assert points_to_begin_with(told, desired, [point(1)]) == begun, "whatever there is now"
    gone_on = search_status(run, told, desired, SearchState(overview=SweepStatus(asked=3), at_work=1), A_MINUTE_LATER)
    assert gone_on.sweep
    assert gone_on.sweep.earlier == begun
    another = told.model_copy(update={"sweep": SweepStatus(search="another", earlier=begun)})
    assert points_to_begin_with(another, desired, [point(1)]) == (point(1),)


def test_a_search_that_began_with_no_points_tells_none() -> None:
    run = sweep()
    state = SearchState(overview=SweepStatus(asked=1), at_work=1)
    told = search_status(run, status(), search(run), state, A_MINUTE_LATER)
    assert told.sweep
    assert told.sweep.earlier is None


@pytest.mark.parametrize(
    ("points", "kept"),
    [
        ([point(number) for number in range(20)], 15),
        # Four take 8,140 bytes with their commas.
        ([point(number, 2000) for number in range(1, 6)], 4),
        ([point(1, 8157)], 1),  # 8,191 bytes and a comma
        ([point(1, 8158), point(2)], 0),
    ],
)
def test_a_status_has_room_for_the_first_points(points: list[dict[str, Any]], kept: int) -> None:
    assert points_to_begin_with(status(), search(sweep()), points) == tuple(points[:kept])


@pytest.mark.parametrize(
    ("deadline", "budget", "left"),
    [
        ({}, {}, None),
        ({}, None, None),
        ({"activeDeadlineSeconds": 100}, {}, 40.0),
        ({"activeDeadlineSeconds": 100}, None, 40.0),
        ({}, {"wallClockSeconds": 70}, 10.0),
        ({"activeDeadlineSeconds": 100}, {"wallClockSeconds": 70}, 10.0),
        ({"activeDeadlineSeconds": 50}, {"wallClockSeconds": 70}, 0.0),
    ],
)
def test_seconds_until_a_limit_of_time(
    deadline: dict[str, Any], budget: dict[str, Any] | None, left: float | None
) -> None:
    desired = search(sweep(deadline, budget=budget) if budget is not None else sweep(deadline))
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


def test_without_a_deadline_or_a_begin_nothing_ends_with_it() -> None:
    assert deadline_end(search(sweep()), status(), A_MINUTE_LATER) is None
    assert deadline_end(search(sweep({"activeDeadlineSeconds": 1})), RunStatus(run=1), A_MINUTE_LATER) is None


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


COUNTS = {"asked": 10, "running": 4, "complete": 3, "pruned": 1, "infeasible": 1, "failed": 1}


def at_work(
    counts: Manifest,
    policy: dict[str, Any] | None = None,
    old: RunStatus | None = None,
    left: int | None = None,
    waits: str | None = None,
    **fields: Any,
) -> RunStatus:
    """Return the status of a search that goes on, a minute after it began."""
    run, known = sweep(policy, **fields), status(sweep=counts).sweep
    assert known
    state = SearchState(overview=known, at_work=known.running if left is None else left, waits=waits)
    return search_status(run, old or status(), search(run), state, A_MINUTE_LATER)


def test_a_search_at_work_tells_how_far_it_is_and_what_is_best() -> None:
    told = at_work(COUNTS | {"best": [BEST]})
    assert (told.phase, told.stage) == ("Running", "search")
    [reconciling] = told.conditions
    assert (reconciling.type, reconciling.status, reconciling.reason) == ("Reconciling", "True", "Running")
    counts = "3 trials complete, 4 running, 1 pruned, 1 infeasible, 1 failed"
    assert reconciling.message == f"{counts}; best image.AUROC 0.9 in trial 3"
    # Six of twenty in a minute: the others take two minutes and a third.
    expected = Progress(completed=6, total=20, unit="trials", percent=30, remaining_seconds=140)
    assert told.progress == expected
    assert told.display == Display(objective="0.9", progress="search 6/20, 2m left")
    assert told.sweep
    assert told.sweep.limits == "", "nothing has ended it"


@pytest.mark.parametrize(
    ("counts", "fields", "progress", "text"),
    [
        ({"asked": 4, "running": 4}, {}, (0, 20, 0, None), "search 0/20"),
        ({"asked": 20}, {}, (20, 20, 99, 0), "search 20/20"),
        ({"asked": 2, "running": 1}, {"trials": {"max": 3}}, (1, 3, 33, 120), "search 1/3, 2m left"),
        ({"asked": 3, "running": 1}, {"trials": {"max": 3}}, (2, 3, 66, 30), "search 2/3, 30s left"),
        # Lowered while four are at work, which go on.
        ({"asked": 16, "running": 4}, {"trials": {"max": 5}}, (12, 16, 75, 20), "search 12/16, 20s left"),
        # Only the search knows how many points a grid has.
        (COUNTS, {"algorithm": {"name": "grid"}}, (6, 0, 0, None), "search 6"),
        (COUNTS, {"algorithm": {"name": "grid"}, "trials": {"max": 12}}, (6, 12, 50, 60), "search 6/12, 60s left"),
    ],
)
def test_the_progress_of_a_search_is_in_points(
    counts: Manifest, fields: Manifest, progress: tuple[int, int, int, int | None], text: str
) -> None:
    told = at_work(counts, **fields)
    assert told.progress
    found = told.progress
    assert (found.completed, found.total, found.percent, found.remaining_seconds) == progress
    assert told.display == Display(progress=text)


def test_a_search_without_anything_yet_says_so() -> None:
    told = at_work({})
    assert told.start_time == BEGAN
    assert told.conditions[0].message == "0 trials complete, 0 running"
    unasked = at_work({}, old=RunStatus(run=1))
    assert (unasked.start_time, unasked.progress) == (None, Progress(total=20, unit="trials"))
    assert at_work({"asked": 1, "running": 1}, old=RunStatus(run=1)).start_time == "2026-01-02T03:05:05Z"


def test_a_search_that_waits_says_why() -> None:
    told = at_work(COUNTS, waits="trial hunt-t0004 was refused: exceeded quota")
    assert told.conditions[0].message == "trial hunt-t0004 was refused: exceeded quota"


@pytest.mark.parametrize(("trials", "phase", "kind"), [(1, "Running", "Reconciling"), (0, "Suspended", "Suspended")])
def test_a_sweep_is_suspended_once_no_trial_is_at_work(trials: int, phase: str, kind: str) -> None:
    told = at_work(COUNTS, {"suspend": True}, left=trials)
    [condition] = told.conditions
    assert (told.phase, condition.type, condition.reason) == (phase, kind, phase)
    if not trials:
        assert condition.message == "runPolicy.suspend is true"
    assert told.display
    assert told.display.progress == "search 6/20, 2m left"


def test_the_status_of_a_search_keeps_what_earlier_steps_left() -> None:
    checked = {"name": "check", "jobName": "screws-experiment-check", "completionTime": "2026-01-02T03:04:35Z"}
    stalled = {
        "type": "Stalled",
        "status": "True",
        "reason": "InternalError",
        "message": "",
        "lastTransitionTime": BEGAN,
    }
    fields = {"jobName": "screws-experiment-check", "attempts": 2, "steps": [checked], "conditions": [stalled]}
    old = status(**fields, specDigest="digest", run=3)
    told = at_work(COUNTS, old=old)
    assert (told.job_name, told.attempts, told.steps) == ("screws-experiment-check", 2, old.steps)
    assert (told.run, told.spec_digest, told.observed_generation) == (3, "digest", 1)
    healed = told.conditions[0]
    assert (healed.type, healed.status, healed.reason) == ("Stalled", "False", "Running")
    assert (healed.observed_generation, healed.last_transition_time) == (1, "2026-01-02T03:05:05Z")


def test_an_end_is_recorded_as_a_step_that_began_when_the_one_before_ended() -> None:
    run = sweep()
    overview = status(sweep={"asked": 4, "best": [BEST]}).sweep
    assert overview
    state = SearchState(overview=overview, at_work=2, end=SweepEnd(StopReason.TARGET_REACHED, "why"))
    checked = {"name": "check", "jobName": "j", "completionTime": "2026-01-02T03:04:35Z"}
    before = {"name": "search", "jobName": "", "completionTime": "2026-01-02T03:04:50Z"}
    for steps, began in ([], BEGAN), ([checked], "2026-01-02T03:04:35Z"), ([checked, before], "2026-01-02T03:04:35Z"):
        told = search_status(run, status(steps=steps), search(run), state, A_MINUTE_LATER)
        *earlier, done = told.steps or ()
        assert [step.name for step in earlier] == [step["name"] for step in steps if step is not before]
        assert done == StepStatus(name="search", job_name="", start_time=began, completion_time="2026-01-02T03:05:05Z")
    [condition] = told.conditions
    assert (condition.type, condition.reason, condition.message) == (
        "Reconciling",
        "Pending",
        "the search is over: why",
    )


def test_a_search_keeps_the_number_of_the_run_that_began_it() -> None:
    desired = search(sweep())
    assert search_run(RunStatus(), desired) == 1
    assert search_run(status(run=4), desired) == 4
    begun = {"search": desired.search, "searchRun": 2}
    assert search_run(status(run=4, sweep=begun), desired) == 2
    assert search_run(status(run=4, sweep=begun | {"search": "another"}), desired) == 4
    again = at_work(COUNTS, old=status(run=4, sweep=begun))
    assert again.sweep
    assert (again.sweep.search, again.sweep.search_run) == (desired.search, 2)
