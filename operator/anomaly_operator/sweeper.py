"""The step ``search`` of a sweep: asks the search what to do, makes and ends trials, and says how it goes.

The trials are the only memory: each is an experiment that the sweep owns, and what is known of it stands in its status.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime

import structlog
from pydantic import ValidationError

from anomaly_api.status import RunStatus
from anomaly_api.sweep_exchange import NewTrial, RunOfPoint, TrialRecord
from anomaly_api.sweep_status import StopReason, SweepStatus
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.decide.desired import DesiredSearch
from anomaly_operator.decide.search_status import SearchState, search_run, search_status
from anomaly_operator.decide.times import from_timestamp
from anomaly_operator.decide.trials import trial_manifest, trial_record
from anomaly_operator.errors import Conflict, Forbidden, Invalid, NotFound, RequeueRequested
from anomaly_operator.keys import RunKey
from anomaly_operator.resources import EXPERIMENTS
from anomaly_operator.search_worker import Known, Question, SearchWorker
from anomaly_operator.views import RunView, run_view
from anomaly_operator.work_queue import WorkQueue

log = structlog.get_logger()

STATUS_SECONDS = 1.0
"""Shortest pause between two status updates of a sweep, unless it is over."""
LONGEST_PAUSE = 30.0
"""Seconds after which a search is asked again although nothing happened: a budget of time may be spent."""
TRIALS_FOR_A_SECOND = 500
"""Trials of which the status is computed every second; that of more takes longer, and is computed less often."""


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
        self._uids: dict[RunKey, str] = {}
        self._records: dict[str, dict[str, Known]] = {}  # UID of the sweep -> name of the trial -> what is known
        self._told_at: dict[str, datetime] = {}  # UID of the sweep -> when its status was computed

    async def advance(self, run: RunView, status: RunStatus, desired: DesiredSearch, now: datetime) -> RunStatus:
        """Make and end trials as the search says, and return the sweep's status.

        Raises:
            RequeueRequested: a trial's name is taken, by one that is being deleted.
            ApiError: the API server failed, after the client's own retries.
        """
        trials = self._trials(run, desired, now)
        await self._follow_suspension(run, trials)
        due = self._is_due(run, status, len(trials), now)
        if desired.policy.suspend:
            return await self._suspended(run, status, desired, trials, now)
        plan, overview = await self._worker.ask(self._question(run, status, desired, now, due), trials.values())
        waits = await self._start(run, desired, plan.starts)
        if plan.end:
            await self._end(run, trials, plan.stops)
        else:
            self._queue.add_after(run.key, LONGEST_PAUSE)
        if overview is None:
            return status
        self._told_at[run.uid] = now
        at_work = sum(known.record.state == "Running" for known in trials.values()) + len(plan.starts)
        state = SearchState(
            overview=overview,
            at_work=at_work,
            end=plan.end.message if plan.end else None,
            failed=plan.end is not None and plan.end.reason is StopReason.MAX_FAILED,
            waits=waits or (plan.waits.message if plan.waits else None),
        )
        return search_status(run, status, desired, state, now)

    def forget(self, key: RunKey) -> None:
        """Drop what is kept of a sweep that is over or deleted."""
        uid = self._uids.pop(key, None)
        if uid is not None:
            self._records.pop(uid, None)
            self._told_at.pop(uid, None)
            self._worker.forget(uid)

    def _trials(self, run: RunView, desired: DesiredSearch, now: datetime) -> dict[str, Known]:
        """Return the search's trials by name; a trial that has not changed is not parsed again."""
        before = self._records.get(run.uid, {})
        found: dict[str, Known] = {}
        for trial in self._cache.trials_of(run.key, run.uid):
            known = before.get(trial.key.name)
            if known is None or known.version != trial.resource_version:
                record = _record(trial, desired.search, now)
                if record is None or trial.deleting:
                    continue
                known = Known(trial.key.name, trial.resource_version, record)
            found[trial.key.name] = known
        self._uids[run.key] = run.uid
        self._records[run.uid] = found
        return found

    def _question(self, run: RunView, status: RunStatus, desired: DesiredSearch, now: datetime, due: bool) -> Question:
        return Question(
            sweep_uid=run.uid,
            search=desired.search,
            name=run.key.name,
            spec=run.spec,
            earlier=desired.earlier,
            search_run=search_run(status, desired),
            now=now,
            began=from_timestamp(status.start_time) if status.start_time else None,
            wants_overview=due,
        )

    def _is_due(self, run: RunView, status: RunStatus, trials: int, now: datetime) -> bool:
        last = self._told_at.get(run.uid)
        if last is None or status.start_time is None:
            return True
        pause = STATUS_SECONDS * max(1.0, trials / TRIALS_FOR_A_SECOND)
        early = pause - (now - last).total_seconds()
        if early > 0:
            self._queue.add_after(run.key, early)
        return early <= 0

    async def _follow_suspension(self, run: RunView, trials: dict[str, Known]) -> None:
        """Suspend the trials at work with their sweep, and resume them with it."""
        for trial in self._at_work(run, trials):
            if trial.suspend == run.suspend:
                continue
            change = {"spec": {"runPolicy": {"suspend": run.suspend}}}
            try:
                self._put(await self._client.patch(EXPERIMENTS, trial.key.namespace, trial.key.name, change))
            except NotFound:
                continue

    def _at_work(self, run: RunView, trials: dict[str, Known]) -> list[RunView]:
        """Return the trials that are not over."""
        names = (known.name for known in trials.values() if known.record.state == "Running")
        found = (self._cache.runs.get(RunKey("AnomalyExperiment", run.key.namespace, name)) for name in names)
        return [trial for trial in found if trial]

    async def _suspended(
        self, run: RunView, status: RunStatus, desired: DesiredSearch, trials: dict[str, Known], now: datetime
    ) -> RunStatus:
        """Return the status of a sweep that starts nothing; it is suspended once none of its trials has a pod."""
        at_work = sum(trial.phase != "Suspended" for trial in self._at_work(run, trials))
        if at_work:
            self._queue.add_after(run.key, STATUS_SECONDS)
        overview = status.sweep or SweepStatus()
        return search_status(run, status, desired, SearchState(overview=overview, at_work=at_work), now)

    async def _start(self, run: RunView, desired: DesiredSearch, starts: Sequence[NewTrial]) -> str | None:
        """Make trials, and return why one was refused."""
        results = await asyncio.gather(*(self._create(run, desired, new) for new in starts), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return next((refused for refused in results if isinstance(refused, str)), None)

    async def _create(self, run: RunView, desired: DesiredSearch, new: NewTrial) -> str | None:
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

    async def _end(self, run: RunView, trials: dict[str, Known], stops: Iterable[RunOfPoint]) -> None:
        """Delete the trials that are at work though the search is over."""
        useless = set(stops)
        for known in trials.values():
            if known.record.which in useless and known.record.state == "Running":
                try:
                    await self._client.delete(EXPERIMENTS, run.key.namespace, known.name)
                except NotFound:
                    continue

    def _put(self, raw: dict[str, object]) -> None:
        self._put_view(run_view("AnomalyExperiment", raw))

    def _put_view(self, view: RunView) -> None:
        for key in self._cache.put_run(view):
            self._queue.add(key)


def _record(trial: RunView, search: str, now: datetime) -> TrialRecord | None:
    try:
        return trial_record(trial, search, now)
    except ValidationError as error:
        log.error("a trial cannot be read", trial=str(trial.key), message=str(error))
        return None
