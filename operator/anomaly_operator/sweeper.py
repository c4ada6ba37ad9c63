"""The step ``search`` of a sweep: asks the search what to do, makes and ends trials, and says how it goes.

The trials are the only memory: each is an experiment that the sweep owns, and what is known of it stands in its status.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain

import structlog
from pydantic import ValidationError

from anomaly_api.status import RunStatus
from anomaly_api.sweep import Point
from anomaly_api.sweep_exchange import InvalidTrial, NewTrial, Plan, SweepEnd
from anomaly_api.sweep_status import SweepStatus
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.decide.desired import DesiredSearch
from anomaly_operator.decide.runs import is_search_over, recorded_search
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
from anomaly_operator.decide.times import from_timestamp
from anomaly_operator.decide.trials import SeenTrial, best_of_earlier, seen_trial, trial_manifest
from anomaly_operator.errors import Conflict, Forbidden, Invalid, NotFound, RequeueRequested
from anomaly_operator.keys import RunKey
from anomaly_operator.resources import EXPERIMENTS
from anomaly_operator.search_worker import Question, SearchWorker
from anomaly_operator.views import RunView, run_view
from anomaly_operator.work_queue import Priority, WorkQueue

log = structlog.get_logger()

STATUS_SECONDS = 1.0
"""Shortest pause between two status updates of a sweep, unless it is over; of several sweeps at work, as many times it,
so that all together write no more than one does."""
MOST_SWEEPS = 30
"""Sweeps at work beyond which each pauses no longer."""
LONGEST_PAUSE = 60.0
"""Seconds after which a search is asked again although nothing happened and no limit is near."""
TRIALS_FOR_A_SECOND = 500
"""Trials of which the status is computed every second; that of more takes longer, and is computed less often."""


@dataclass
class _Kept:
    """What is kept of a sweep from one look at it to the next."""

    uid: str
    seen: dict[str, SeenTrial] = field(default_factory=dict)
    """Its trials by name."""
    told_at: datetime | None = None
    """When its status was computed."""
    search: str = ""
    """The search that ``removed_hours`` are of."""
    removed_hours: float = 0.0
    """GPU-hours of trials that are gone."""


class Sweeper:
    """Advances searches.

    Args:
        client: the API server.
        cache: the sweeps and their trials.
        queue: where a sweep that has to be looked at later is added.
        worker: the process of the search.
    """

    def __init__(self, client: ApiClient, cache: Cache, queue: WorkQueue[RunKey], worker: SearchWorker) -> None:
        self._client = client
        self._cache = cache
        self._queue = queue
        self._worker = worker
        self._kept: dict[RunKey, _Kept] = {}

    async def advance(self, run: RunView, status: RunStatus, desired: DesiredSearch, now: datetime) -> RunStatus:
        """Make and end trials as the search says, and return the sweep's status.

        Raises:
            RequeueRequested: a trial's name is taken, by one that is being deleted.
            ApiError: the API server failed, after the client's own retries.
        """
        kept = self._kept_of(run)
        seen = [trial.at(now) for trial in self._seen_trials(run, kept)]
        trials = {trial.name: trial for trial in seen if trial.search == desired.search}
        earlier = [trial for trial in seen if trial.search != desired.search]
        removed = self._removed_hours(run, kept, status, desired, trials.values(), now=now)
        await self._delete(run, (trial for trial in earlier if not trial.is_over))
        at_work = [trial for trial in trials.values() if not trial.is_over]
        await self._follow_suspension(run, at_work)
        end = deadline_end(desired, status, now)
        if desired.policy.suspend and end is None:
            return self._suspended(run, status, desired, at_work, now)
        question = self._question(run, status, desired, earlier, removed=removed, end=end, now=now)
        plan = await self._worker.plan(question, trials.values())
        refused = await self._make(run, desired, (*plan.invalid, *plan.starts))
        new = status
        # What is told of the search keeps no trial waiting.
        if plan.end or self._is_due(run, kept, status, len(trials), now):
            overview = await self._worker.overview(question, trials.values(), plan)
            kept.told_at = now
            new = search_status(run, status, desired, _state(plan, overview, refused, question.earlier), now)
        usage = GpuUsage(removed + _hours(trials.values()), _gpus(desired, at_work, plan.starts))
        self._come_back(run, seconds_until_due(desired, new, usage, now), len(trials))
        return new

    async def call_off(self, run: RunView, status: RunStatus) -> None:
        """Delete trials that are still at work once the end of their search is recorded.

        Raises:
            ApiError: the API server failed, after the client's own retries.
        """
        if not (run.has_sweep and is_search_over(status)):
            return
        at_work = (trial for trial in self._cache.trials_of(run.key, run.uid) if not (trial.deleting or trial.is_over))
        seen = (trial for trial in map(_seen, at_work) if trial is not None)
        await self._delete(run, (trial for trial in seen if not trial.is_over))

    def _come_back(self, run: RunView, due_in: float | None, trials: int) -> None:
        """Have the search asked again although nothing happens, at the latest when its time or budget is over."""
        pause = LONGEST_PAUSE if due_in is None else min(LONGEST_PAUSE, max(_seconds_for(trials), due_in))
        self._queue.add_after(run.key, pause)

    def forget(self, key: RunKey) -> None:
        """Drop what is kept of a sweep that is over or deleted."""
        self._cache.take_removed(key)
        if kept := self._kept.pop(key, None):
            self._worker.forget(kept.uid)

    def _kept_of(self, run: RunView) -> _Kept:
        known = self._kept.get(run.key)
        if known and known.uid == run.uid:
            return known
        if known:  # deleted, and made anew under its name
            self._worker.forget(known.uid)
        made = self._kept[run.key] = _Kept(run.uid)
        return made

    def _seen_trials(self, run: RunView, kept: _Kept) -> list[SeenTrial]:
        """Return the sweep's trials, those of earlier searches too; one that has not changed is not parsed again."""
        found: dict[str, SeenTrial] = {}
        for trial in self._cache.trials_of(run.key, run.uid):
            known = kept.seen.get(trial.key.name)
            if known is None or known.version != trial.resource_version:
                known = _seen(trial)
            if known is not None and not trial.deleting:
                found[trial.key.name] = known
        kept.seen = found
        return list(found.values())

    def _removed_hours(
        self,
        run: RunView,
        kept: _Kept,
        status: RunStatus,
        desired: DesiredSearch,
        trials: Iterable[SeenTrial],
        *,
        now: datetime,
    ) -> float:
        """Return the GPU-hours of trials of this search that somebody deleted: what is recorded, and those now gone."""
        gone = _those_of(run, desired, self._cache.take_removed(run.key), now)
        if kept.search != desired.search:
            # What is being deleted is there until it is gone, though it counts as no trial any more.
            going = (trial for trial in self._cache.trials_of(run.key, run.uid) if trial.deleting)
            there = [*trials, *_those_of(run, desired, going, now), *gone]
            kept.search, kept.removed_hours = desired.search, removed_hours(status, desired, _hours(there))
        kept.removed_hours += _hours(gone)
        return kept.removed_hours

    def _question(
        self,
        run: RunView,
        status: RunStatus,
        desired: DesiredSearch,
        earlier: list[SeenTrial],
        *,
        removed: float,
        end: SweepEnd | None,
        now: datetime,
    ) -> Question:
        budget = desired.sweep.budget
        found = chain(desired.earlier, best_of_earlier(earlier, desired.sweep))
        return Question(
            sweep_uid=run.uid,
            name=run.key.name,
            spec=run.spec,
            earlier=points_to_begin_with(status, desired, found),
            search_run=search_run(status, desired),
            now=now,
            began=from_timestamp(status.start_time) if status.start_time else None,
            removed_hours=removed,
            end=end,
            counts_hours=budget is not None and budget.gpu_hours is not None,
        )

    def _is_due(self, run: RunView, kept: _Kept, status: RunStatus, trials: int, now: datetime) -> bool:
        if kept.told_at is None or status.start_time is None:
            return True
        sweeps = min(len(self._kept), MOST_SWEEPS)
        pause = max(_seconds_for(trials), STATUS_SECONDS * sweeps)
        early = pause - (now - kept.told_at).total_seconds()
        if early <= 0:
            return True
        self._queue.add_after(run.key, early)
        return False

    async def _follow_suspension(self, run: RunView, at_work: Iterable[SeenTrial]) -> None:
        """Suspend the trials at work with their sweep, and resume them with it."""
        for trial in self._views(run, at_work):
            if trial.suspend == run.suspend:
                continue
            change = {"spec": {"runPolicy": {"suspend": run.suspend}}}
            try:
                self._put(await self._client.patch(EXPERIMENTS, trial.key.namespace, trial.key.name, change))
            except NotFound:
                continue

    def _views(self, run: RunView, trials: Iterable[SeenTrial]) -> list[RunView]:
        """Return the resources of the trials as they are now."""
        keys = (RunKey("AnomalyExperiment", run.key.namespace, trial.name) for trial in trials)
        return [view for key in keys if (view := self._cache.runs.get(key))]

    def _suspended(
        self, run: RunView, status: RunStatus, desired: DesiredSearch, at_work: Iterable[SeenTrial], now: datetime
    ) -> RunStatus:
        """Return the status of a sweep that starts nothing; it is suspended once none of its trials has a pod."""
        not_yet = sum(trial.phase != "Suspended" for trial in self._views(run, at_work))
        if not_yet:
            self._queue.add_after(run.key, STATUS_SECONDS)
        known = recorded_search(status, desired.search) or SweepStatus()
        return search_status(run, status, desired, SearchState(overview=known, at_work=not_yet), now)

    async def _make(self, run: RunView, desired: DesiredSearch, new: Sequence[NewTrial | InvalidTrial]) -> str | None:
        """Make trials, and return why one was refused. Those of points that cannot be fail at once, and are kept."""
        results = await asyncio.gather(*(self._create(run, desired, one) for one in new), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return next((refused for refused in results if isinstance(refused, str)), None)

    async def _create(self, run: RunView, desired: DesiredSearch, new: NewTrial | InvalidTrial) -> str | None:
        try:
            self._put(await self._client.create(EXPERIMENTS, run.key.namespace, trial_manifest(run, desired, new)))
        except Conflict:
            # An earlier create whose answer was lost: what exists wins.
            found = run_view("AnomalyExperiment", await self._client.get(EXPERIMENTS, run.key.namespace, new.name))
            if found.owner is None or found.owner.uid != run.uid:
                return f"an AnomalyExperiment {new.name} exists that is no trial of this sweep; delete or rename it"
            if found.deleting:
                raise RequeueRequested from None
            self._put_view(found)
        except (Forbidden, Invalid) as refusal:
            return f"trial {new.name} was refused: {refusal.message}"
        return None

    async def _delete(self, run: RunView, useless: Iterable[SeenTrial]) -> None:
        """Delete trials, and forget them at once: the next reconcile may come before the watch tells of it."""
        for trial in useless:
            with contextlib.suppress(NotFound):
                await self._client.delete(EXPERIMENTS, run.key.namespace, trial.name)
            if known := self._cache.runs.get(RunKey("AnomalyExperiment", run.key.namespace, trial.name)):
                for key in self._cache.remove_run(known):
                    self._queue.add(key)

    def _put(self, raw: dict[str, object]) -> None:
        self._put_view(run_view("AnomalyExperiment", raw))

    def _put_view(self, view: RunView) -> None:
        for key in self._cache.put_run(view):
            self._queue.add(key, Priority.URGENT)  # a Job waits for it


def _seconds_for(trials: int) -> float:
    """Return the shortest pause between two looks at so many trials."""
    return STATUS_SECONDS * max(1.0, trials / TRIALS_FOR_A_SECOND)


def _those_of(run: RunView, desired: DesiredSearch, trials: Iterable[RunView], now: datetime) -> list[SeenTrial]:
    """Return those that are trials of this search of the sweep, as they are now."""
    seen = [_seen(trial) for trial in trials if trial.owner and trial.owner.uid == run.uid]
    return [trial.at(now) for trial in seen if trial and trial.search == desired.search]


def _hours(trials: Iterable[SeenTrial]) -> float:
    return sum(trial.record.gpu_hours for trial in trials)


def _gpus(desired: DesiredSearch, at_work: Iterable[SeenTrial], starts: Iterable[NewTrial]) -> int:
    """Return the GPUs of trials at work, and of those that are about to be: one that waits may begin unseen."""
    usual = desired.spec.scheduling.gpus.count
    of_new = (int(new.values.get("scheduling.gpus.count", usual)) for new in starts)
    return sum(trial.gpus for trial in at_work) + sum(of_new)


def _state(plan: Plan, overview: SweepStatus, refused: str | None, earlier: tuple[Point, ...]) -> SearchState:
    """Return what is known of a search once its plan is carried out."""
    return SearchState(
        overview=overview,
        earlier=earlier,
        end=plan.end,
        waits=refused or (plan.waits.message if plan.waits else None),
    )


def _seen(trial: RunView) -> SeenTrial | None:
    try:
        return seen_trial(trial)
    except ValidationError as error:
        log.error("a trial cannot be read", trial=str(trial.key), message=str(error))
        return None
