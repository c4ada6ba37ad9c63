"""One run, brought from what is to what should be. Read ``reconcile`` from top to bottom."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import structlog
from pydantic import ValidationError

from anomaly_api import API_VERSION
from anomaly_api.status import RunStatus
from anomaly_operator.cluster.apply import Later, apply, pods_selector
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.cluster.events import post
from anomaly_operator.decide.desired import Desired, desired
from anomaly_operator.decide.notes import notes
from anomaly_operator.decide.observed import Observed, Refusal
from anomaly_operator.decide.plan import Action, CreateJob, Wait, plan
from anomaly_operator.decide.status import FINISHED, status
from anomaly_operator.errors import ApiError, NotFound, OperatorError, StatusUnreadable
from anomaly_operator.keys import RunKey
from anomaly_operator.metrics import RECONCILE_ERRORS, RECONCILE_SECONDS
from anomaly_operator.resources import PODS, RUNS
from anomaly_operator.serving.progress_board import ProgressBoard
from anomaly_operator.settings import Settings
from anomaly_operator.views import JobView, PodView, RunView, pod_view, run_view
from anomaly_operator.work_queue import WorkQueue

log = structlog.get_logger()

REFUSED_SECONDS = 30.0
"""Pause before a refused Job is tried again: a quota is seldom raised within seconds."""


class Reconciler:
    """Takes runs from the queue and reconciles them."""

    def __init__(
        self,
        *,
        client: ApiClient,
        cache: Cache,
        queue: WorkQueue[RunKey],
        board: ProgressBoard,
        settings: Settings,
        clock: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._cache = cache
        self._queue = queue
        self._board = board
        self._settings = settings
        self._clock = clock
        self.finished_at = clock()
        """When the last reconcile ended, either way."""

    async def work(self) -> None:
        """Reconcile runs for ever; the one place where a failed reconcile is logged and tried again."""
        while True:
            key = await self._queue.get()
            try:
                with RECONCILE_SECONDS.labels(key.kind).time():
                    await self.reconcile(key)
            except Later:
                self._queue.retry(key)
            except OperatorError as error:
                self._failed(key, error)
            except Exception as error:  # noqa: BLE001 - a defect in one run's reconcile must not stop the others
                self._failed(key, error, exc_info=True)
            else:
                self._queue.succeeded(key)
            finally:
                self.finished_at = self._clock()
                self._queue.done(key)

    async def reconcile(self, key: RunKey) -> None:
        """Gather, decide, act, tell."""
        run = self._cache.runs.get(key)
        if run is None or run.deleting:
            self._board.forget(key)
            return
        recorded = _recorded(run)
        if recorded.phase in FINISHED:
            self._board.forget(key)
        wanted = desired(run, self._experiment_of(run), self._settings.pods)
        actions = plan(key, run.uid, wanted, await self._gather(run), recorded)
        refusal = await self._apply(key, actions)
        again = _replaced(recorded, actions)
        if actions and isinstance(actions[0], CreateJob) and not refusal and not again:
            self._queue.add(key)  # tell after all others that are new have their Job too
            return
        await self._tell(run, recorded, wanted, replace(await self._gather(run), refusal=refusal, replaced=again))
        if refusal:
            self._queue.add_after(key, REFUSED_SECONDS)
        if any(isinstance(action, Wait) for action in actions):
            raise Later

    def _experiment_of(self, run: RunView) -> RunView | None:
        if run.experiment is None:
            return None
        return self._cache.runs.get(RunKey("AnomalyExperiment", run.key.namespace, run.experiment))

    async def _gather(self, run: RunView) -> Observed:
        job = self._cache.job_of(run.key)
        ours = job is not None and job.owner is not None and job.owner.uid == run.uid
        pods = await self._pods(job) if job and ours else ()
        return Observed(job=job, pods=pods, progress=self._board.latest(run.key, run.uid))

    async def _apply(self, key: RunKey, actions: tuple[Action, ...]) -> Refusal | None:
        refusal = None
        for action in actions:
            refusal = await apply(self._client, self._cache, key.namespace, action) or refusal
        return refusal

    async def _pods(self, job: JobView) -> tuple[PodView, ...]:
        """The Job's pods; asked of the API server where the cache cannot yet explain how the Job ended."""
        pods = self._cache.pods_of(job)
        if job.finished is None or sum(pod.finished for pod in pods) >= job.failed + job.succeeded:
            return pods
        found: list[PodView] = []
        async for items, _ in self._client.list(PODS, job.namespace, pods_selector(job)):
            found += [pod_view(item) for item in items]
        return self._cache.with_departed(job, found)

    async def _tell(self, run: RunView, recorded: RunStatus, wanted: Desired, observed: Observed) -> None:
        new = status(run, recorded, wanted, observed, self._clock())
        if new.to_json_object() == json.loads(run.status):
            return
        body: dict[str, Any] = {
            "apiVersion": API_VERSION,
            "kind": run.key.kind,
            "metadata": {
                "name": run.key.name,
                "namespace": run.key.namespace,
                "uid": run.uid,
                "resourceVersion": str(run.version),
            },
            "status": new.to_json_object(),
        }
        try:
            written = await self._client.replace_status(RUNS[run.key.kind], run.key.namespace, run.key.name, body)
        except NotFound:
            return
        changed = self._cache.put_run(run_view(run.key.kind, written))
        ended = {run.key} if new.phase in FINISHED else set()  # what may be cleaned up now
        for key in (changed - {run.key}) | ended:
            self._queue.add(key)
        for note in notes(recorded, new):
            log.info("run changed", run=str(run.key), reason=note.reason, message=note.message)
            await post(self._client, run, note, self._settings.identity, self._clock())

    def _failed(self, key: RunKey, error: Exception, *, exc_info: bool = False) -> None:
        delay = self._queue.retry(key)
        kind = type(error).__name__
        RECONCILE_ERRORS.labels(kind).inc()
        level = log.info if isinstance(error, ApiError) and error.status == 409 else log.error
        level(
            "reconcile failed", run=str(key), error=kind, message=str(error), retry_s=round(delay, 1), exc_info=exc_info
        )


def _recorded(run: RunView) -> RunStatus:
    try:
        return RunStatus.model_validate_json(run.status)
    except ValidationError as error:
        raise StatusUnreadable(f"{run.key}: {error}") from error


def _replaced(recorded: RunStatus, actions: tuple[Action, ...]) -> bool:
    """Whether the Job of a started run was missing, so that somebody must have deleted it."""
    return recorded.start_time is not None and any(isinstance(action, CreateJob) for action in actions)
