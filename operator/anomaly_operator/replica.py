"""One replica at its work: it always keeps its cache up to date, and reconciles while it holds the Lease."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

import structlog

from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.cluster.leader_election import LeaderElector
from anomaly_operator.cluster.resync import Resync
from anomaly_operator.controller import Controller
from anomaly_operator.keys import KINDS, Kind, RunKey
from anomaly_operator.resources import JOBS, RUN_RESOURCES
from anomaly_operator.search_worker import SearchWorker
from anomaly_operator.serving.progress_board import ProgressBoard
from anomaly_operator.settings import Settings
from anomaly_operator.views import Raw, job_view, pod_view, run_view
from anomaly_operator.work_queue import Priority, WorkQueue

log = structlog.get_logger()

POLL_SECONDS = 0.02
"""Pause between two looks at whether the first LIST of a leader has ended."""
_KINDS = {RUN_RESOURCES[kind].plural: kind for kind in KINDS}


class Replica:
    """The parts that see, decide and act, from ``run`` to ``stop``.

    Args:
        client: the API server.
        lease_client: the same, with a connection of its own: a renewal must not queue behind the work that it allows.
        queue: the runs to reconcile.
        worker: the process that searches for sweeps.
        settings: the operator's configuration.
        clock: the current time.
        monotonic: a clock in seconds.
        end: ends the process at once, so that it sends no further request.
    """

    def __init__(
        self,
        *,
        client: ApiClient,
        lease_client: ApiClient,
        queue: WorkQueue[RunKey],
        worker: SearchWorker,
        settings: Settings,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        end: Callable[[], object],
    ) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._end = end
        self._resync_task: asyncio.Task[None] | None = None
        self.tasks: list[asyncio.Task[None]] = []
        """What it does, each until ``stop``."""
        self.cache = Cache()
        self.queue = queue
        self.board = ProgressBoard(queue, settings.progress_seconds, monotonic)
        self.elector = LeaderElector(lease_client, settings, monotonic)
        self.resync = Resync(
            client=client,
            cache=self.cache,
            queue=queue,
            namespaces=settings.namespaces,
            seconds=settings.resync_seconds,
            monotonic=monotonic,
        )
        self.controller = Controller(
            client=client,
            cache=self.cache,
            queue=queue,
            board=self.board,
            worker=worker,
            settings=settings,
            clock=clock,
        )

    async def run(self) -> None:
        """Follow until the Lease can be had, then lead; it returns once the workers have begun."""
        # A follower keeps a warm cache.
        self.relist()

        # The leader acts for as long as it holds the Lease; a process that loses it ends.
        await self.elector.acquire()
        self.spawn(self._end_when_lease_is_lost(), "lease")

        # It begins with a fresh LIST, which includes everything that an earlier leader wrote.
        self.relist()
        await self._wait_for_resync(since=self._monotonic())
        for number in range(self._settings.workers):
            self.spawn(self.controller.work(), f"worker-{number}")

    def relist(self) -> None:
        """Have everything listed now, and from now on whenever it is time."""
        if self._resync_task:
            self._resync_task.cancel()
        self._resync_task = self.spawn(self.resync.run(), "resync")

    def hear(self, plural: str, raw: Raw, *, deleted: bool) -> None:
        """Put what a watch tells of an object into the cache, and queue the runs that it affects.

        Args:
            plural: of the object's resource.
            raw: the object.
            deleted: whether it is gone.
        """
        kind = _KINDS.get(plural)
        # What users change is urgent.
        priority = Priority.URGENT if kind else Priority.NORMAL
        for key in self._update(kind, plural, raw, deleted):
            self.queue.add(key, priority)

    def _update(self, kind: Kind | None, plural: str, raw: Raw, deleted: bool) -> set[RunKey]:
        if kind:
            run = run_view(kind, raw)
            return self.cache.remove_run(run) if deleted else self.cache.put_run(run)
        if plural == JOBS.plural:
            job = job_view(raw)
            return self.cache.remove_job(job) if deleted else self.cache.put_job(job)
        pod = pod_view(raw)
        return self.cache.remove_pod(pod) if deleted else self.cache.put_pod(pod)

    async def stop(self) -> None:
        """Stop reconciling, then give up the Lease, so that no two replicas ever act at once."""
        self.queue.shut_down()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.elector.release()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Start a task that lasts until ``stop``; a defect in it ends the process."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._end_on_defect)
        self.tasks.append(task)
        return task

    async def _wait_for_resync(self, since: float) -> None:
        """Wait until a complete LIST has ended after ``since`` (monotonic seconds)."""
        while self.resync.completed_at is None or self.resync.completed_at < since:
            await asyncio.sleep(POLL_SECONDS)

    async def _end_when_lease_is_lost(self) -> None:
        await self.elector.renew()
        self._end()

    def _end_on_defect(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.critical("a part of the operator failed", part=task.get_name(), exc_info=error)
        self._end()
