"""The reconcile of a run: gather, decide, act, write the status. Read ``reconcile`` from top to bottom.

Every event leads to the same reconcile, which looks at the state and never at the event, so that a lost event heals.
``decide`` decides what should exist; ``cluster`` sends the requests.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

import structlog
from pydantic import ValidationError

from anomaly_api import API_VERSION
from anomaly_api.reasons import Reason
from anomaly_api.status import Phase, RunStatus
from anomaly_operator.cluster.apply import apply, pods_selector
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.cluster.event_recorder import record_event
from anomaly_operator.decide.desired import DesiredSearch, desired_name, desired_state, sweep_problem
from anomaly_operator.decide.failing import TOLD_AFTER, failing_status, is_told, unreadable_event
from anomaly_operator.decide.observed import ObservedState, PastJob, Refusal
from anomaly_operator.decide.outlived import outlived_pod, seconds_until_outlived
from anomaly_operator.decide.plan import Action, CreateJob, Requeue, plan
from anomaly_operator.decide.runs import current_run, is_finished
from anomaly_operator.decide.status import compute_status
from anomaly_operator.decide.transition_events import transition_events
from anomaly_operator.decide.waiting import (
    newest_explanation,
    seconds_until_look,
    seconds_until_next_look,
    unexplained_wait,
)
from anomaly_operator.errors import ApiError, NotFound, OperatorError, RequeueRequested, StatusUnreadable
from anomaly_operator.keys import RunKey
from anomaly_operator.metrics import RECONCILE_ERRORS, RECONCILE_SECONDS
from anomaly_operator.resources import CORE_EVENTS, PODS, RUN_RESOURCES, Manifest
from anomaly_operator.search_worker import SearchWorker
from anomaly_operator.serving.progress_board import ProgressBoard
from anomaly_operator.settings import Settings
from anomaly_operator.sweeper import Sweeper
from anomaly_operator.views import EventView, JobView, PodView, RunView, event_view, pod_view, run_view
from anomaly_operator.work_queue import Priority, WorkQueue

log = structlog.get_logger()

REFUSED_SECONDS = 30.0
"""Seconds before a refused Job is tried again: a quota is seldom raised sooner."""


class Reconciler:
    """Takes runs from the queue and reconciles them.

    Args:
        client: the API server.
        cache: what is known of the cluster.
        queue: the runs to reconcile.
        board: progress that pods pushed.
        worker: the process that searches for sweeps.
        settings: the operator's configuration.
        clock: the current time.
    """

    def __init__(
        self,
        *,
        client: ApiClient,
        cache: Cache,
        queue: WorkQueue[RunKey],
        board: ProgressBoard,
        worker: SearchWorker,
        settings: Settings,
        clock: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._cache = cache
        self._queue = queue
        self._board = board
        self._sweeper = Sweeper(client, cache, queue, worker)
        self._settings = settings
        self._clock = clock
        self._other_operators: set[str] = set()
        self._failures: Counter[RunKey] = Counter()  # in a row, of those that are told if they go on
        self.finished_at = clock()
        """When the last reconcile ended, whether it succeeded or not."""

    async def work(self) -> None:
        """Reconcile runs forever; the one place where a failed reconcile is logged and retried."""
        while True:
            key = await self._queue.get()
            try:
                with RECONCILE_SECONDS.labels(key.kind).time():
                    await self.reconcile(key)
            except RequeueRequested:
                self._failures.pop(key, None)
                self._queue.add_rate_limited(key)
            except Exception as error:  # noqa: BLE001 - a defect in one run's reconcile must not stop the others
                self._retry_failed(key, error)
                await self._tell_of_failure(key, error)
            else:
                self._failures.pop(key, None)
                self._queue.forget(key)
            finally:
                self.finished_at = self._clock()
                self._queue.done(key)

    async def reconcile(self, key: RunKey) -> None:
        """Bring what exists for a run closer to what should exist, and its status up to date.

        Raises:
            RequeueRequested: something outside the operator has to happen first.
            StatusUnreadable: the recorded status is not one that this version can parse.
            ApiError: the API server failed, after the client's own retries.
            LoginError: the credentials in use were rejected and there are no others.
        """
        # A run that is deleted or being deleted needs nothing: its Job is garbage-collected with it.
        run = self._cache.runs.get(key)
        if run is None or run.deleting:
            self._board.forget(key)
            self._sweeper.forget(key)
            return

        # The recorded status is the operator's only memory. A changed spec may begin another run of the resource.
        old_status = current_run(run, _recorded_status(run))
        if is_finished(old_status):
            self._board.forget(key)
            self._sweeper.forget(key)

        # A large sweep takes seconds to check: once, in a thread, and not while everybody waits.
        if run.has_sweep:
            await asyncio.to_thread(sweep_problem, run.spec)

        # Decide what should exist and what to do about it, from what is known now.
        desired = desired_state(run, old_status, self._experiment_of(run), self._settings.pods)
        job_name = desired_name(run, old_status, desired)
        observed = await self._observe(run, job_name)
        self._tell_of_other_operator(run, observed.job)
        actions = plan(run.uid, desired, observed, old_status)
        if isinstance(desired, DesiredSearch) and not is_finished(old_status):
            await self._apply(key.namespace, actions)
            new_status = await self._sweeper.advance(run, old_status, desired, self._clock())
            await self._update_status(run, old_status, new_status)
            return

        # Act. A refused Job is a state of the run, not a failure of the reconcile.
        refusal = await self._apply(key.namespace, actions)
        await self._sweeper.call_off(run, old_status)

        # A new run's status is written by a second reconcile, which waits its turn: in a burst, all new runs get
        # their Job before any status is written.
        creates_job = any(isinstance(action, CreateJob) for action in actions)
        job_recreated = creates_job and old_status.start_time is not None and old_status.job_name == job_name
        if creates_job and not refusal and not job_recreated:
            self._queue.add(key)
            return

        # Write the status from what exists after the actions: once, and only if it changed.
        observed = replace(await self._observe(run, job_name), refusal=refusal, job_recreated=job_recreated)
        observed = replace(observed, explanation=await self._explain(run, observed))
        new_status = compute_status(run, old_status, desired, observed, self._clock())
        await self._update_status(run, old_status, new_status)

        # No event announces that a quota was raised, or that a name became free.
        if refusal:
            self._queue.add_after(key, REFUSED_SECONDS)
        if any(isinstance(action, Requeue) for action in actions):
            raise RequeueRequested

    def _experiment_of(self, run: RunView) -> RunView | None:
        """Return the experiment whose model the run uses, if it names one that exists."""
        if run.experiment_name is None:
            return None
        return self._cache.runs.get(RunKey("AnomalyExperiment", run.key.namespace, run.experiment_name))

    async def _observe(self, run: RunView, job_name: str) -> ObservedState:
        """Gather what exists for the run. A Job that is not the run's own is reported without its pods."""
        job = self._cache.jobs.get((run.key.namespace, job_name))
        pods = await self._pods_of(job) if job and job.is_controlled_by(run.uid) else ()
        past = tuple(
            PastJob(other, self._cache.pods_of(other))
            for other in self._cache.jobs_of(run.key, run.uid)
            if other.name != job_name
        )
        progress = self._board.latest(run.key, job.uid) if job else None
        observed = ObservedState(job=job, pods=pods, past=past, progress=progress, experiment=self._experiment_of(run))
        if early := seconds_until_outlived(observed, self._clock()):
            self._queue.add_after(run.key, early)
        return replace(observed, outlived=outlived_pod(observed, self._clock()))

    async def _explain(self, run: RunView, observed: ObservedState) -> EventView | None:
        """Return the Event that tells why the run waits, if nothing else does; the run comes back for the next look."""
        wait, now = unexplained_wait(observed), self._clock()
        if wait is None or not observed.job or not observed.job.is_controlled_by(run.uid):
            return None
        if early := seconds_until_look(wait, now):
            self._queue.add_after(run.key, early)
            return None
        self._queue.add_after(run.key, seconds_until_next_look(wait, now))
        events: list[EventView] = []
        about = f"involvedObject.uid={wait.uid}"
        async for items, _ in self._client.list(CORE_EVENTS, run.key.namespace, fields=about):
            events += [event_view(item) for item in items]
        return newest_explanation(wait, events)

    async def _pods_of(self, job: JobView) -> tuple[PodView, ...]:
        """Return the Job's pods from the cache, or from a LIST while the cache lacks pods of a finished Job."""
        pods = self._cache.pods_of(job)
        finished = sum(pod.finished for pod in pods)
        if job.finished_condition is None or finished >= job.failed + job.succeeded:
            return pods
        listed: list[PodView] = []
        async for items, _ in self._client.list(PODS, job.namespace, pods_selector(job)):
            listed += [pod_view(item) for item in items]
        return self._cache.with_deleted_pods(job, listed)

    async def _apply(self, namespace: str, actions: Iterable[Action]) -> Refusal | None:
        """Perform the actions in order, and return why the Job was refused, if it was."""
        refusal = None
        for action in actions:
            refusal = await apply(self._client, self._cache, namespace, action) or refusal
        return refusal

    async def _update_status(self, run: RunView, old: RunStatus, new: RunStatus) -> None:
        """Write the status if it changed; then enqueue the runs that depend on it and post the Events of the change."""
        if new.to_json_object() == json.loads(run.status) or _is_not_worth_a_write(run, old, new):
            return
        resource = RUN_RESOURCES[run.key.kind]
        try:
            written = await self._client.replace_status(
                resource, run.key.namespace, run.key.name, _status_body(run, new)
            )
        except NotFound:
            return  # deleted meanwhile
        # A sweep whose trial is over, or an inference whose model is trained, is about to make Jobs.
        for key in self._cache.put_run(run_view(run.key.kind, written)) - {run.key}:
            self._queue.add(key, Priority.URGENT)
        # What comes next is clean-up, or the next step.
        if is_finished(new) or new.steps != old.steps:
            self._queue.add(run.key)
        for event in transition_events(old, new) if run.sweep_key is None else ():
            log.info("run changed", run=str(run.key), reason=event.reason, message=event.message)
            await record_event(self._client, run, event, self._settings.identity, self._clock())

    def _tell_of_other_operator(self, run: RunView, job: JobView | None) -> None:
        """Log, once, that another installation works on the same runs: nothing is fought over, but it is a mistake."""
        if job is None or job.is_made_by(self._settings.pods.installation) or job.installation in self._other_operators:
            return
        self._other_operators.add(job.installation)
        log.error(
            "another operator watches the same namespaces",
            other=job.installation,
            run=str(run.key),
            advice="uninstall one of them, or set watchNamespaces so that each namespace has one operator",
        )

    def _retry_failed(self, key: RunKey, error: Exception) -> None:
        """Log a failed reconcile, a defect with its traceback, and have it retried with backoff."""
        delay = self._queue.add_rate_limited(key)
        kind = type(error).__name__
        RECONCILE_ERRORS.labels(kind).inc()
        # A user may change the object before its status is written: no error, the retry reads the newer object.
        expected = isinstance(error, ApiError) and error.status == 409
        level = log.info if expected else log.error
        is_defect = not isinstance(error, OperatorError)
        level(
            "reconcile failed",
            run=str(key),
            error=kind,
            message=str(error),
            retry_s=round(delay, 1),
            exc_info=error if is_defect else None,
        )

    async def _tell_of_failure(self, key: RunKey, error: Exception) -> None:
        """Tell in the run's status, or in an Event, that its reconcile keeps failing. It is retried all the same."""
        if not (is_told(error) or isinstance(error, StatusUnreadable)):
            return
        self._failures[key] += 1
        run = self._cache.runs.get(key)
        if self._failures[key] < TOLD_AFTER or run is None or run.deleting:
            return
        try:
            await self._tell(run, error)
        except Exception as failure:  # noqa: BLE001 - what failed is in the log, and the next failure is told again
            log.error("failure not told", run=str(key), message=str(failure))

    async def _tell(self, run: RunView, error: Exception) -> None:
        now = self._clock()
        if isinstance(error, StatusUnreadable):
            await record_event(self._client, run, unreadable_event(run), self._settings.identity, now)
            return
        old = current_run(run, _recorded_status(run))
        await self._update_status(run, old, failing_status(run, old, error, now))


def _is_not_worth_a_write(run: RunView, old: RunStatus, new: RunStatus) -> bool:
    """Whether the status of a trial says no more than that it waits for its turn: a sweep may have thousands."""
    if run.sweep_key is None or new.phase is not Phase.PENDING or run.phase not in (None, Phase.PENDING):
        return False
    # What was told of a trial, such as that its Job was refused, is taken back.
    return all(condition.reason in _USUAL for condition in (*old.conditions, *new.conditions))


_USUAL = frozenset({Reason.PENDING, Reason.STARTING})


def _recorded_status(run: RunView) -> RunStatus:
    """Parse the recorded status.

    Raises:
        StatusUnreadable: this version of the operator cannot parse it.
    """
    try:
        return RunStatus.model_validate_json(run.status)
    except ValidationError as error:
        raise StatusUnreadable(f"{run.key}: {error}") from error


def _status_body(run: RunView, status: RunStatus) -> Manifest:
    """Return the body of a status update; its uid and resourceVersion make an outdated one a Conflict."""
    return {
        "apiVersion": API_VERSION,
        "kind": run.key.kind,
        "metadata": {
            "name": run.key.name,
            "namespace": run.key.namespace,
            "uid": run.uid,
            "resourceVersion": str(run.resource_version),
        },
        "status": status.to_json_object(),
    }
