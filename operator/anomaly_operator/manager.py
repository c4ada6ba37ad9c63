"""The manager of one operator process: makes all its parts, starts and stops them in order, watches their health.

It reconciles nothing itself.
"""

import asyncio
import json
import os
import signal
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
from anomaly_operator.cluster.leader_election import LeaderElector
from anomaly_operator.cluster.resync import Resync
from anomaly_operator.cluster.watchable import wait_until_readable, wait_until_served
from anomaly_operator.keys import RunKey
from anomaly_operator.metrics import BEST_VALUE, GPU_HOURS, RESYNC_AGE, RUNS, TRIALS
from anomaly_operator.pruner import Pruner
from anomaly_operator.reconciler import Reconciler
from anomaly_operator.search_worker import SearchWorker
from anomaly_operator.serving.progress_board import ProgressBoard
from anomaly_operator.serving.server import Server
from anomaly_operator.serving.tokens import TokenVerifier
from anomaly_operator.settings import Settings
from anomaly_operator.work_queue import WorkQueue

log = structlog.get_logger()

STALE_RESYNCS = 3
"""Resync periods without a complete LIST after which the process is unhealthy."""
STUCK_SECONDS = 300.0
"""Seconds without a finished reconcile, while runs wait, after which the process is unhealthy.

Twice the time that all retries of a request take.
"""
START_SECONDS = 300.0
"""Seconds that the first LIST may take, once the custom resource definitions are installed."""


class Manager:
    """One replica: it always keeps its cache up to date, and reconciles while it is the leader.

    Args:
        settings: the operator's configuration.
        kopf_settings: kopf's own settings, needed to read the credentials.

    Raises:
        LoginError: there are no credentials for the API server.
    """

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
        self._elector = LeaderElector(self._lease_client, settings, time.monotonic)
        self._resync = Resync(
            client=self._client,
            cache=self.cache,
            queue=self.queue,
            namespaces=settings.namespaces,
            seconds=settings.resync_seconds,
            monotonic=time.monotonic,
        )
        self._search = SearchWorker()
        self._reconciler = Reconciler(
            client=self._client,
            cache=self.cache,
            queue=self.queue,
            board=self._board,
            worker=self._search,
            settings=settings,
            clock=lambda: datetime.now(UTC),
        )
        self._server = Server(
            cache=self.cache,
            board=self._board,
            elector=self._elector,
            tokens=TokenVerifier(self._client, time.monotonic),
            answer=Pruner(self.cache, self._search).answer,
            health=self._health_problem,
            ready=self._cache_has_synced,
            refresh_metrics=self._refresh_metrics,
        )

    async def start(self) -> None:
        """Answer probes, wait for the custom resource definitions, fill the cache, and stand for election.

        Raises:
            OSError: the port is taken.
        """
        await self._server.start(self._settings.bind, self._settings.port)
        # kopf starts its watches after this, and only of what is served by then.
        await wait_until_served(self._client, next(iter(self._settings.namespaces), None))
        if self._settings.skipped_namespaces:
            self._spawn(self._exit_when_namespace_returns(), "skipped namespaces")
        self._spawn(self._run(), "leading")

    async def stop(self) -> None:
        """Stop reconciling, then give up the Lease, so that no two replicas ever act at once."""
        self.queue.shut_down()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._search.close()
        await self._elector.release()
        await self._server.close()
        await self._client.close()
        await self._lease_client.close()

    async def _run(self) -> None:
        # A follower keeps a warm cache.
        resync = self._spawn(self._resync.run(), "resync")

        # The leader acts for as long as it holds the Lease; a process that loses it ends.
        await self._elector.acquire()
        self._spawn(self._exit_when_lease_is_lost(), "lease")

        # It begins with a fresh LIST, which includes everything that an earlier leader wrote.
        resync.cancel()
        self._spawn(self._resync.run(), "resync")
        await self._wait_for_resync(since=time.monotonic())
        for number in range(self._settings.workers):
            self._spawn(self._reconciler.work(), f"worker-{number}")

    async def _wait_for_resync(self, since: float) -> None:
        """Wait until a complete LIST has ended after ``since`` (monotonic seconds)."""
        while self._resync.completed_at is None or self._resync.completed_at < since:
            await asyncio.sleep(0.02)

    async def _exit_when_lease_is_lost(self) -> None:
        """Renew the Lease until it is lost, then end the process at once, so that it sends no further request."""
        await self._elector.renew()
        os._exit(1)

    async def _exit_when_namespace_returns(self) -> None:
        """End the process once a skipped namespace can be read: kopf starts no watch later than at its start."""
        name = await wait_until_readable(self._client, self._settings.skipped_namespaces)
        log.warning("a skipped namespace can be read again; the process starts anew", namespace=name)
        os.kill(os.getpid(), signal.SIGTERM)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_exit_on_defect)
        self._tasks.append(task)
        return task

    def _cache_has_synced(self) -> bool:
        return self._resync.completed_at is not None

    def _resync_age(self) -> float:
        """Return the seconds since the last complete LIST, or since the start."""
        return time.monotonic() - (self._resync.completed_at or self._started_at)

    def _health_problem(self) -> str | None:
        """Return why the process is unhealthy, or None: answering probes is not enough, work has to get done."""
        allowed = START_SECONDS
        if self._cache_has_synced():
            allowed += STALE_RESYNCS * self._settings.resync_seconds
        if self._resync_age() > allowed:
            return f"no complete LIST for {self._resync_age():.0f} s"
        idle = (datetime.now(UTC) - self._reconciler.finished_at).total_seconds()
        if self._elector.is_leader and len(self.queue) and idle > STUCK_SECONDS:
            return f"{len(self.queue)} runs wait, and no reconcile ended for {idle:.0f} s"
        return None

    def _refresh_metrics(self) -> None:
        """Set the gauges whose values are computed at scrape time."""
        RESYNC_AGE.set(self._resync_age())
        counts = Counter((run.key.kind, run.phase or "New") for run in self.cache.runs)
        RUNS.clear()
        for (kind, phase), number in counts.items():
            RUNS.labels(kind, phase).set(number)
        self._refresh_sweep_metrics()

    def _refresh_sweep_metrics(self) -> None:
        for gauge in (TRIALS, BEST_VALUE, GPU_HOURS):
            gauge.clear()
        # The statuses of ten thousand trials take half a second to parse.
        sweeps = (run for run in self.cache.runs if run.has_sweep)
        statuses = ((run.key, json.loads(run.status).get("sweep")) for run in sweeps)
        for key, sweep in ((key, sweep) for key, sweep in statuses if sweep):
            for state in ("running", "complete", "pruned", "infeasible", "failed"):
                TRIALS.labels(key.namespace, key.name, state).set(sweep.get(state, 0))
            GPU_HOURS.labels(key.namespace, key.name).set(sweep.get("gpuHours", 0.0))
            for metric, value in (sweep.get("best") or [{"objectives": {}}])[0]["objectives"].items():
                BEST_VALUE.labels(key.namespace, key.name, metric).set(value)


def _exit_on_defect(task: "asyncio.Task[None]") -> None:
    """End the process when one of its tasks failed: the Deployment starts a new one."""
    if task.cancelled() or (error := task.exception()) is None:
        return
    log.critical("a part of the operator failed", part=task.get_name(), exc_info=error)
    os._exit(1)
