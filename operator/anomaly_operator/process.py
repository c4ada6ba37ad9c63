"""All parts of one operator process, put together, started and stopped in order."""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import kopf
import structlog

from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.cluster.credentials import login
from anomaly_operator.cluster.lease import Lease
from anomaly_operator.cluster.resync import Resync
from anomaly_operator.keys import RunKey
from anomaly_operator.metrics import RESYNC_AGE, RUNS
from anomaly_operator.reconciler import Reconciler
from anomaly_operator.serving.progress_board import ProgressBoard
from anomaly_operator.serving.server import Server
from anomaly_operator.serving.tokens import TokenVerifier
from anomaly_operator.settings import Settings
from anomaly_operator.work_queue import WorkQueue

log = structlog.get_logger()

STALE_RESYNCS = 3
"""A process without a complete LIST for this many periods is not healthy."""
STUCK_SECONDS = 300.0
"""Longest time without the end of a reconcile while runs wait for one: twice what all retries of a request take."""
START_SECONDS = 300.0
"""How long the first LIST may take: custom resource definitions may come after the operator."""


class Process:
    """One replica: watches always, acts when it leads."""

    def __init__(self, settings: Settings, kopf_settings: kopf.OperatorSettings) -> None:
        self._settings = settings
        self._started_at = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self.cache = Cache()
        self.queue: WorkQueue[RunKey] = WorkQueue()
        self._client = ApiClient(lambda: login(kopf_settings))
        self._board = ProgressBoard(self.queue, settings.progress_seconds, time.monotonic)
        # The Lease has a connection of its own: a renewal must not queue behind the work that it allows.
        self._lease_client = ApiClient(lambda: login(kopf_settings), connections=1)
        self._lease = Lease(self._lease_client, settings, time.monotonic)
        self._resync = Resync(
            client=self._client,
            cache=self.cache,
            queue=self.queue,
            namespaces=settings.namespaces,
            seconds=settings.resync_seconds,
            monotonic=time.monotonic,
        )
        self._reconciler = Reconciler(
            client=self._client,
            cache=self.cache,
            queue=self.queue,
            board=self._board,
            settings=settings,
            clock=lambda: datetime.now(UTC),
        )
        tokens = TokenVerifier(self._client, time.monotonic)
        self._server = Server(
            cache=self.cache,
            board=self._board,
            lease=self._lease,
            tokens=tokens,
            health=self._problem,
            ready=self._filled,
            refresh_metrics=self._refresh_metrics,
        )

    async def start(self) -> None:
        """Listen for probes, fill the cache, stand for leader."""
        await self._server.start(self._settings.bind, self._settings.port)
        self._spawn(self._lead(), "leading")

    async def stop(self) -> None:
        """Stop acting, then let the other replica lead."""
        self.queue.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._lease.release()
        await self._server.close()
        await self._client.close()
        await self._lease_client.close()

    async def _lead(self) -> None:
        """A follower keeps a warm cache; a leader begins with a fresh LIST and acts until the Lease is lost."""
        resync = self._spawn(self._resync.run(), "resync")
        await self._lease.acquire()
        self._spawn(self._end_when_lost(), "lease")
        resync.cancel()
        self._spawn(self._resync.run(), "resync")
        await self._fresh_list(time.monotonic())
        for number in range(self._settings.workers):
            self._spawn(self._reconciler.work(), f"worker-{number}")

    async def _fresh_list(self, since: float) -> None:
        while self._resync.completed_at is None or self._resync.completed_at < since:
            await asyncio.sleep(0.02)

    async def _end_when_lost(self) -> None:
        await self._lease.hold()
        os._exit(1)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_end_on_defect)
        self._tasks.append(task)
        return task

    def _filled(self) -> bool:
        return self._resync.completed_at is not None

    def _age(self) -> float:
        return time.monotonic() - (self._resync.completed_at or self._started_at)

    def _problem(self) -> str | None:
        """What keeps this process from being healthy: the loop answering is not enough, work must get done."""
        allowed = START_SECONDS + (STALE_RESYNCS * self._settings.resync_seconds if self._filled() else 0)
        if self._age() > allowed:
            return f"no complete LIST for {self._age():.0f} s"
        idle = (datetime.now(UTC) - self._reconciler.finished_at).total_seconds()
        if self._lease.held and len(self.queue) and idle > STUCK_SECONDS:
            return f"{len(self.queue)} runs wait, and no reconcile ended for {idle:.0f} s"
        return None

    def _refresh_metrics(self) -> None:
        RESYNC_AGE.set(self._age())
        counts = Counter((run.key.kind, json.loads(run.status).get("phase") or "New") for run in self.cache.runs)
        RUNS.clear()
        for (kind, phase), number in counts.items():
            RUNS.labels(kind, phase).set(number)


def _end_on_defect(task: "asyncio.Task[None]") -> None:
    """A part that ended by a defect takes the process with it: the Deployment starts a whole one."""
    if task.cancelled() or (error := task.exception()) is None:
        return
    log.critical("a part of the operator failed", part=task.get_name(), exc_info=error)
    os._exit(1)
