"""The reconcile of a run: gather, decide, act, write the status. Read ``reconcile`` from top to bottom.

Every event leads to the same reconcile, which looks at the state and never at the event, so that a lost event heals.
``decide`` decides what should exist; ``cluster`` sends the requests.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

import structlog

from anomaly_operator.cluster.apply import apply
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.decide.desired import DesiredSearch, desired_name, desired_state, sweep_problem
from anomaly_operator.decide.observed import Refusal
from anomaly_operator.decide.plan import Action, CreateJob, Requeue, plan
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.decide.runs import current_run, is_finished
from anomaly_operator.decide.status import compute_status
from anomaly_operator.errors import RequeueRequested
from anomaly_operator.keys import RunKey
from anomaly_operator.observer import Observer
from anomaly_operator.serving.progress_board import ProgressBoard
from anomaly_operator.status_writer import StatusWriter, recorded_status
from anomaly_operator.sweeper import Sweeper
from anomaly_operator.views import JobView, RunView
from anomaly_operator.work_queue import WorkQueue

log = structlog.get_logger()

REFUSED_SECONDS = 30.0
"""Seconds before a refused Job is tried again: a quota is seldom raised sooner."""


class Reconciler:
    """Reconciles one run at a time.

    Args:
        client: the API server.
        cache: what is known of the cluster.
        queue: where a run is added that has to be reconciled again.
        board: progress that pods pushed.
        observer: gathers what exists.
        sweeper: advances searches.
        statuses: writes what became of it.
        settings: what the operator adds to every pod.
        clock: the current time.
    """

    def __init__(
        self,
        *,
        client: ApiClient,
        cache: Cache,
        queue: WorkQueue[RunKey],
        board: ProgressBoard,
        observer: Observer,
        sweeper: Sweeper,
        statuses: StatusWriter,
        settings: PodSettings,
        clock: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._cache = cache
        self._queue = queue
        self._board = board
        self._observer = observer
        self._sweeper = sweeper
        self._statuses = statuses
        self._settings = settings
        self._clock = clock
        self._other_operators: set[str] = set()

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
        old_status = current_run(run, recorded_status(run))
        if is_finished(old_status):
            self._board.forget(key)
            self._sweeper.forget(key)

        # A large sweep takes seconds to check: once, in a thread, and not while everybody waits.
        if run.has_sweep:
            await asyncio.to_thread(sweep_problem, run.spec)

        # Decide what should exist and what to do about it, from what is known now.
        desired = desired_state(run, old_status, self._observer.experiment_of(run), self._settings)
        job_name = desired_name(run, old_status, desired)
        observed = await self._observer.observe(run, job_name)
        self._tell_of_other_operator(run, observed.job)
        actions = plan(run.uid, desired, observed, old_status)
        if isinstance(desired, DesiredSearch) and not is_finished(old_status):
            await self._apply(key.namespace, actions)
            new_status = await self._sweeper.advance(run, old_status, desired, self._clock())
            await self._statuses.write(run, old_status, new_status)
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
        observed = replace(await self._observer.observe(run, job_name), refusal=refusal, job_recreated=job_recreated)
        observed = replace(observed, explanation=await self._observer.explain(run, observed))
        new_status = compute_status(run, old_status, desired, observed, self._clock())
        await self._statuses.write(run, old_status, new_status)

        # No event announces that a quota was raised, or that a name became free.
        if refusal:
            self._queue.add_after(key, REFUSED_SECONDS)
        if any(isinstance(action, Requeue) for action in actions):
            raise RequeueRequested

    async def _apply(self, namespace: str, actions: Iterable[Action]) -> Refusal | None:
        """Perform the actions in order, and return why the Job was refused, if it was."""
        refusal = None
        for action in actions:
            refusal = await apply(self._client, self._cache, namespace, action) or refusal
        return refusal

    def _tell_of_other_operator(self, run: RunView, job: JobView | None) -> None:
        """Log, once, that another installation works on the same runs: nothing is fought over, but it is a mistake."""
        if job is None or job.is_made_by(self._settings.installation) or job.installation in self._other_operators:
            return
        self._other_operators.add(job.installation)
        log.error(
            "another operator watches the same namespaces",
            other=job.installation,
            run=str(run.key),
            advice="uninstall one of them, or set watchNamespaces so that each namespace has one operator",
        )
