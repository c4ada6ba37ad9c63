"""The manager of one operator process: connects a replica to the API server, starts and stops, watches its health.

It reconciles nothing itself.
"""

import json
import os
import signal
import time
from collections import Counter
from datetime import UTC, datetime

import kopf
import structlog

from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.cluster.credentials import login
from anomaly_operator.cluster.watchable import wait_until_readable, wait_until_served
from anomaly_operator.metrics import BEST_VALUE, GPU_HOURS, RESYNC_AGE, RUNS, TRIALS
from anomaly_operator.pruner import Pruner
from anomaly_operator.replica import Replica
from anomaly_operator.search_worker import SearchWorker
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
    """One process: a replica, and what serves it and tells of it.

    Args:
        settings: the operator's configuration.
        kopf_settings: kopf's own settings, needed to read the credentials.

    Raises:
        LoginError: there are no credentials for the API server.
    """

    def __init__(self, settings: Settings, kopf_settings: kopf.OperatorSettings) -> None:
        self._settings = settings
        self._began_at: float | None = None  # by the monotonic clock; None while definitions are waited for
        self._client = ApiClient(lambda: login(kopf_settings))
        self._lease_client = ApiClient(lambda: login(kopf_settings), connections=1)
        self._search = SearchWorker()
        self._replica = Replica(
            client=self._client,
            lease_client=self._lease_client,
            queue=WorkQueue(),
            worker=self._search,
            settings=settings,
            clock=lambda: datetime.now(UTC),
            monotonic=time.monotonic,
            end=lambda: os._exit(1),
        )
        self.hear = self._replica.hear
        self._server = Server(
            cache=self._replica.cache,
            board=self._replica.board,
            elector=self._replica.elector,
            tokens=TokenVerifier(self._client, time.monotonic),
            answer=Pruner(self._replica.cache, self._search).answer,
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
        await wait_until_served(self._client)
        if self._settings.skipped_namespaces:
            self._replica.spawn(self._exit_when_namespace_returns(), "skipped namespaces")
        self._began_at = time.monotonic()
        self._replica.spawn(self._replica.run(), "leading")

    async def stop(self) -> None:
        """Stop reconciling and give up the Lease, then stop what served the replica."""
        await self._replica.stop()
        self._search.close()
        await self._server.close()
        await self._client.close()
        await self._lease_client.close()

    async def _exit_when_namespace_returns(self) -> None:
        """End the process once a skipped namespace can be read: kopf starts no watch later than at its start."""
        name = await wait_until_readable(self._client, self._settings.skipped_namespaces)
        log.warning("a skipped namespace can be read again; the process starts anew", namespace=name)
        os.kill(os.getpid(), signal.SIGTERM)

    def _cache_has_synced(self) -> bool:
        return self._replica.resync.completed_at is not None

    def _resync_age(self) -> float:
        """Return the seconds since the last complete LIST, or since the first could begin; 0 before that."""
        since = self._replica.resync.completed_at or self._began_at
        return 0.0 if since is None else time.monotonic() - since

    def _health_problem(self) -> str | None:
        """Return why the process is unhealthy, or None: answering probes is not enough, work has to get done."""
        allowed = START_SECONDS
        if self._cache_has_synced():
            allowed += STALE_RESYNCS * self._settings.resync_seconds
        if self._resync_age() > allowed:
            return f"no complete LIST for {self._resync_age():.0f} s"
        # One that follows has runs in its queue, too, and no workers.
        since = self._replica.controller.idle_since
        idle = (datetime.now(UTC) - since).total_seconds() if since else 0.0
        if len(self._replica.queue) and idle > STUCK_SECONDS:
            return f"{len(self._replica.queue)} runs wait, and no reconcile ended for {idle:.0f} s"
        return None

    def _refresh_metrics(self) -> None:
        """Set the gauges whose values are computed at scrape time."""
        RESYNC_AGE.set(self._resync_age())
        counts = Counter((run.key.kind, run.phase or "New") for run in self._replica.cache.runs)
        RUNS.clear()
        for (kind, phase), number in counts.items():
            RUNS.labels(kind, phase).set(number)
        self._refresh_sweep_metrics()

    def _refresh_sweep_metrics(self) -> None:
        for gauge in (TRIALS, BEST_VALUE, GPU_HOURS):
            gauge.clear()
        # The statuses of ten thousand trials take half a second to parse.
        sweeps = (run for run in self._replica.cache.runs if run.has_sweep)
        statuses = ((run.key, json.loads(run.status).get("sweep")) for run in sweeps)
        for key, sweep in ((key, sweep) for key, sweep in statuses if sweep):
            for state in ("running", "complete", "pruned", "infeasible", "failed"):
                TRIALS.labels(key.namespace, key.name, state).set(sweep.get(state, 0))
            GPU_HOURS.labels(key.namespace, key.name).set(sweep.get("gpuHours", 0.0))
            for metric, value in (sweep.get("best") or [{"objectives": {}}])[0]["objectives"].items():
                BEST_VALUE.labels(key.namespace, key.name, metric).set(value)
