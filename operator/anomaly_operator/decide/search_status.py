"""The status of a run whose step is a search: how many trials, which are the best, when it will be over."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from anomaly_api.reasons import Reason
from anomaly_api.status import ConditionType, Display, Phase, Progress, RunStatus, Stage, StepFailure, StepStatus
from anomaly_api.sweep import Point, Sweep
from anomaly_api.sweep_end import failure_at_end
from anomaly_api.sweep_exchange import SweepEnd
from anomaly_api.sweep_status import EARLIER_LIMIT, MAX_EARLIER, StopReason, SweepStatus
from anomaly_operator.decide.conditions import MESSAGE_LIMIT, ConditionState, update_conditions
from anomaly_operator.decide.desired import DesiredSearch
from anomaly_operator.decide.runs import kept_of_run, recorded_search
from anomaly_operator.decide.steps import run_number
from anomaly_operator.decide.times import from_timestamp, to_age, to_timestamp
from anomaly_operator.views import RunView


@dataclass(frozen=True, kw_only=True)
class SearchState:
    """What is known of a search after a reconcile."""

    overview: SweepStatus
    """Counters, best points, and so on; why it ended, if it did."""
    at_work: int = 0
    """Of a suspended sweep: the trials that are not suspended yet."""
    earlier: tuple[Point, ...] = ()
    """Points of earlier sweeps that it begins with."""
    end: SweepEnd | None = None
    """Why no further trial is started; None while the search goes on."""
    waits: str | None = None
    """Why nothing is started although the search is not over."""


@dataclass(frozen=True)
class GpuUsage:
    """What the trials of a search use of GPUs."""

    hours: float
    """GPU-hours used so far."""
    gpus: int
    """GPUs that are in use, or may be at any moment from now on: those of all trials that are not over (count)."""


@dataclass(frozen=True)
class _Frame:
    """What every status of a search is made of."""

    run: RunView
    old: RunStatus
    sweep: SweepStatus
    started: str | None
    now: datetime

    def status(self, phase: Phase, true: dict[ConditionType, ConditionState], **fields: Any) -> RunStatus:
        """Return a status; the first of the conditions that are true says why the others are not."""
        reason, stamp = next(iter(true.values())).reason, to_timestamp(self.now)
        generation, recorded = self.run.generation, self.old.conditions
        return RunStatus(
            observed_generation=generation,
            phase=phase,
            conditions=update_conditions(recorded, true, false_reason=reason, generation=generation, now=stamp),
            start_time=self.started,
            job_name=self.old.job_name,
            attempts=self.old.attempts,
            **kept_of_run(self.old) | {"sweep": self.sweep} | fields,
        )


def search_status(run: RunView, old: RunStatus, desired: DesiredSearch, state: SearchState, now: datetime) -> RunStatus:
    """Compute the status of a sweep whose trials are at work, or have just ended.

    Args:
        run: the sweep's resource.
        old: what is recorded of this run.
        desired: the search.
        state: what is known of it now.
        now: the current time.
    """
    sweep = _with_identity(state, old, desired)
    frame = _Frame(run, old, sweep, old.start_time or (to_timestamp(now) if sweep.asked else None), now)
    if state.end is None:
        return _at_work(frame, desired, state)
    return _between_steps(frame, state.end.message, _failure(state.end, sweep, desired))


def _failure(end: SweepEnd, sweep: SweepStatus, desired: DesiredSearch) -> StepFailure | None:
    """Return why the search ended without a point to train; None if it has one."""
    if failure := failure_at_end(end, sweep):
        return failure
    if sweep.best[0].values is None and desired.sweep.final == "train":
        which = f"the values of trial {sweep.best[0].number}, the best one, are too long for the status"
        why = f"the search is over: {end.message}; {which}, so that it is not trained in full: its own spec has them"
        return StepFailure(reason=Reason.INVALID_CONFIG, message=why[:MESSAGE_LIMIT])
    return None


def _with_identity(state: SearchState, old: RunStatus, desired: DesiredSearch) -> SweepStatus:
    update = {
        "earlier": _begun_with(old, desired) or state.earlier or None,
        "search": desired.search,
        "search_run": search_run(old, desired),
        "limits": desired.limits if state.end else "",
    }
    return state.overview.model_copy(update=update).bounded()


def points_to_begin_with(
    status: RunStatus, desired: DesiredSearch, earlier: Iterable[Mapping[str, Any]]
) -> tuple[Point, ...]:
    """Return the points of earlier sweeps that the search begins with.

    Those that it began with are recorded: each number has its point, whatever becomes of the earlier sweeps. Else they
    are the first that a status has room for.

    Args:
        status: what is recorded of this run.
        desired: the search.
        earlier: the points that there are now, the best first.
    """
    if begun_with := _begun_with(status, desired):
        return begun_with
    found: list[Point] = []
    room = EARLIER_LIMIT
    for point in earlier:
        room -= len(json.dumps(point, separators=(",", ":")).encode()) + 1
        if room < 0 or len(found) == MAX_EARLIER:
            break
        found.append(dict(point))
    return tuple(found)


def _begun_with(status: RunStatus, desired: DesiredSearch) -> tuple[Point, ...] | None:
    known = recorded_search(status, desired.search)
    return known.earlier if known else None


def search_run(status: RunStatus, desired: DesiredSearch) -> int:
    """Return the number of the run that began this search."""
    known = recorded_search(status, desired.search)
    return known.search_run if known else run_number(status) or 1


def removed_hours(status: RunStatus, desired: DesiredSearch, used: float) -> float:
    """Return the GPU-hours that this search used for trials that are no longer there.

    Args:
        status: what is recorded of this run.
        desired: the search.
        used: GPU-hours of the trials that are there.
    """
    known = recorded_search(status, desired.search)
    if known is None:
        return 0.0
    if known.asked:
        return known.removed_gpu_hours
    # The run goes on with the search of an earlier one, of which the whole is known.
    return max(0.0, known.gpu_hours - used)


def seconds_until_due(desired: DesiredSearch, status: RunStatus, usage: GpuUsage, now: datetime) -> float | None:
    """Return the seconds until a limit may end the search although nothing happens; None if none will.

    Args:
        desired: the search.
        status: what is recorded of this run.
        usage: what its trials use now.
        now: the current time.
    """
    budget = desired.sweep.budget
    limits = (desired.policy.active_deadline_seconds, budget.wall_clock_seconds if budget else None)
    left = [_seconds_left(limit, status.start_time, now) for limit in limits if limit and status.start_time]
    if budget and budget.gpu_hours is not None and usage.gpus:
        left.append(3600 * (budget.gpu_hours - usage.hours) / usage.gpus)
    return max(0.0, min(left)) if left else None


def deadline_end(desired: DesiredSearch, status: RunStatus, now: datetime) -> SweepEnd | None:
    """Return the end of a search whose run has reached its deadline, of which the search itself knows nothing."""
    limit = desired.policy.active_deadline_seconds
    if limit is None or status.start_time is None or _seconds_left(limit, status.start_time, now) > 0:
        return None
    message = f"the run took longer than runPolicy.activeDeadlineSeconds ({limit} s)"
    return SweepEnd(StopReason.DEADLINE_EXCEEDED, message)


def _seconds_left(limit: int, started: str, now: datetime) -> float:
    return limit - (now - from_timestamp(started)).total_seconds()


def _at_work(frame: _Frame, desired: DesiredSearch, state: SearchState) -> RunStatus:
    sweep = desired.sweep
    if desired.policy.suspend and not state.at_work:
        phase, kind = Phase.SUSPENDED, ConditionType.SUSPENDED
        condition = ConditionState(Reason.SUSPENDED, "runPolicy.suspend is true")
    else:
        phase, kind = Phase.RUNNING, ConditionType.RECONCILING
        condition = ConditionState(Reason.RUNNING, state.waits or _message(sweep, frame.sweep))
    progress = _progress(sweep, frame)
    display = _display(frame.sweep, sweep, _progress_text(progress))
    return frame.status(phase, {kind: condition}, stage=Stage.SEARCH, progress=progress, display=display)


def _between_steps(frame: _Frame, end: str, failure: StepFailure | None) -> RunStatus:
    """Return the status of a search that is over: it is recorded why, and the winner, before anything is made of it."""
    earlier = tuple(step for step in frame.old.steps or () if step.name != "search")
    since = max((step.completion_time for step in earlier if step.completion_time), default=frame.started)
    ended = to_timestamp(frame.now)
    done = StepStatus(name="search", job_name="", start_time=since, completion_time=ended, failure=failure)
    text = f"the search failed, {failure}; its page is made" if failure else f"the search is over: {end}"
    condition = ConditionState(Reason.PENDING, text)
    return frame.status(Phase.PENDING, {ConditionType.RECONCILING: condition}, steps=(*earlier, done))


def _progress(sweep: Sweep, frame: _Frame) -> Progress:
    """Return how far the search is; of how many points is not known of a whole grid, which the search alone counts."""
    is_whole_grid = sweep.algorithm.name == "grid" and sweep.trials.max is None
    # A limit that was lowered below what is begun ends nothing that is at work.
    total = 0 if is_whole_grid else max(sweep.most_trials, frame.sweep.asked)
    done = frame.sweep.asked - frame.sweep.running
    remaining = None
    if frame.started and done and total:
        spent = (frame.now - from_timestamp(frame.started)).total_seconds()
        remaining = round(spent * (total - done) / done)
    return Progress(
        completed=done,
        total=total,
        unit="trials",
        percent=min(99, 100 * done // total) if total else 0,
        remaining_seconds=remaining,
    )


def _progress_text(progress: Progress) -> str:
    total = f"/{progress.total}" if progress.total else ""
    left = f", {to_age(progress.remaining_seconds)} left" if progress.remaining_seconds else ""
    return f"search {progress.completed}{total}{left}"


def _message(sweep: Sweep, found: SweepStatus) -> str:
    counts = f"{found.complete} trials complete, {found.running} running"
    others = {"pruned": found.pruned, "infeasible": found.infeasible, "failed": found.failed}
    told = "".join(f", {count} {name}" for name, count in others.items() if count)
    metric = sweep.objectives[0].metric
    best = (
        f"; best {metric} {found.best[0].objectives[metric]:.6g} in trial {found.best[0].number}" if found.best else ""
    )
    return counts + told + best


def _display(found: SweepStatus, sweep: Sweep, progress: str) -> Display:
    metric = sweep.objectives[0].metric
    best = found.best[0].objectives.get(metric) if found.best else None
    return Display(objective=None if best is None else f"{best:.6g}", progress=progress)
