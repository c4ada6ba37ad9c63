"""The workers: they take runs from the queue, and what becomes of a reconcile that fails is decided here alone.

A failed reconcile is logged once and tried again with backoff; if it goes on failing, the run's owner is told.
"""

from collections import Counter
from collections.abc import Callable
from datetime import datetime

import structlog

from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.decide.failing import TOLD_AFTER, failing_status, is_told, unreadable_event
from anomaly_operator.decide.runs import current_run
from anomaly_operator.errors import ApiError, OperatorError, RequeueRequested, StatusUnreadable
from anomaly_operator.keys import RunKey
from anomaly_operator.metrics import RECONCILE_ERRORS, RECONCILE_SECONDS
from anomaly_operator.observer import Observer
from anomaly_operator.reconciler import Reconciler
from anomaly_operator.search_worker import SearchWorker
from anomaly_operator.serving.progress_board import ProgressBoard
from anomaly_operator.settings import Settings
from anomaly_operator.status_writer import StatusWriter, recorded_status
from anomaly_operator.sweeper import Sweeper
from anomaly_operator.views import RunView
from anomaly_operator.work_queue import WorkQueue

log = structlog.get_logger()


class Controller:
    """Reconciles the runs in the queue.

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
        self._cache = cache
        self._queue = queue
        self._clock = clock
        self._statuses = StatusWriter(client, cache, queue, settings.identity, clock)
        self._reconciler = Reconciler(
            client=client,
            cache=cache,
            queue=queue,
            board=board,
            observer=Observer(client, cache, queue, board, clock),
            sweeper=Sweeper(client, cache, queue, worker),
            statuses=self._statuses,
            settings=settings.pods,
            clock=clock,
        )
        self._failures: Counter[RunKey] = Counter()  # in a row, of those that are told if they go on
        self.idle_since: datetime | None = None
        """When the last reconcile ended, whether it succeeded or not, or the first worker began; None before that."""

    async def work(self) -> None:
        """Reconcile runs forever; the one place where a failed reconcile is logged and retried."""
        self.idle_since = self._clock()
        while True:
            key = await self._queue.get()
            try:
                with RECONCILE_SECONDS.labels(key.kind).time():
                    await self._reconciler.reconcile(key)
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
                self.idle_since = self._clock()
                self._queue.done(key)

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
        if isinstance(error, StatusUnreadable):
            await self._statuses.post(run, unreadable_event(run))
            return
        old = current_run(run, recorded_status(run))
        await self._statuses.write(run, old, failing_status(run, old, error, self._clock()))
