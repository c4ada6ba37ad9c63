"""Periodic LISTs of everything, compared with the cache: they heal whatever the watches lost.

A watch that had to restart (410 Gone) never reports the deletions in between; a LIST shows that an object is gone.
"""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import structlog

from anomaly_operator import names
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.errors import OperatorError
from anomaly_operator.keys import Kind, RunKey
from anomaly_operator.resources import JOBS, PODS, RUN_RESOURCES, Resource
from anomaly_operator.views import Raw, job_view, pod_view, run_view
from anomaly_operator.work_queue import Priority, WorkQueue

log = structlog.get_logger()

V = TypeVar("V")
RETRY_SECONDS = 5.0
"""Seconds to wait after a LIST that failed."""


class Resync:
    """Keeps the cache equal to the cluster.

    Args:
        client: the API server.
        cache: what to keep up to date.
        queue: where every run is added after a LIST.
        namespaces: namespaces to list; none means all.
        seconds: pause between LISTs.
        monotonic: a clock in seconds.
    """

    def __init__(
        self,
        *,
        client: ApiClient,
        cache: Cache,
        queue: WorkQueue[RunKey],
        namespaces: Iterable[str],
        seconds: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._client = client
        self._cache = cache
        self._queue = queue
        self._namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._seconds = seconds
        self._monotonic = monotonic
        self.completed_at: float | None = None
        """When the last complete LIST ended, by ``monotonic``; None before the first."""

    async def run(self) -> None:
        """Relist forever; a LIST that fails, or has no credentials for the moment, is logged and retried soon."""
        while True:
            try:
                await self.relist()
                pause = self._seconds
            except OperatorError as error:
                log.error("resync failed", message=str(error), retry_s=RETRY_SECONDS)
                pause = RETRY_SECONDS
            await asyncio.sleep(pause)

    async def relist(self) -> None:
        """LIST everything, bring the cache up to date, and enqueue every run.

        Raises:
            ApiError: a LIST failed; the results of those before it are in the cache.
            LoginError: the credentials in use were rejected and there are no others.
        """
        # Deletions seen from here on are remembered: a page that was read before one must not bring the object back.
        for store in (self._cache.runs, self._cache.jobs, self._cache.pods):
            store.start_listing()

        # Runs last: a reconcile in between must not find a run whose Job is not in the cache yet.
        await self._relist_pods()
        await self._relist_jobs()
        for kind, resource in RUN_RESOURCES.items():
            await self._relist_runs(kind, resource)

        # Every run, whether it changed or not: a reconcile of one that is as it should be writes nothing.
        for run in self._cache.runs:
            self._queue.add(run.key, Priority.IDLE)
        self.completed_at = self._monotonic()

    async def _relist_pods(self) -> None:
        pods, version = await self._list(PODS, pod_view, names.SELECTOR)
        for pod in pods:
            self._enqueue(self._cache.put_pod(pod))
        store = self._cache.pods
        for pod in store.missing(map(store.key_of, pods), version):
            self._enqueue(self._cache.remove_pod(pod))

    async def _relist_jobs(self) -> None:
        jobs, version = await self._list(JOBS, job_view, names.SELECTOR)
        for job in jobs:
            self._enqueue(self._cache.put_job(job))
        store = self._cache.jobs
        for job in store.missing(map(store.key_of, jobs), version):
            self._enqueue(self._cache.remove_job(job))

    async def _relist_runs(self, kind: Kind, resource: Resource) -> None:
        runs, version = await self._list(resource, partial(run_view, kind))
        for run in runs:
            self._enqueue(self._cache.put_run(run))
        store = self._cache.runs
        for run in store.missing(map(store.key_of, runs), version):
            if run.key.kind == kind:  # the store holds both kinds, the LIST one
                self._enqueue(self._cache.remove_run(run))

    async def _list(
        self, resource: Resource, parse: Callable[[Raw], V], selector: str | None = None
    ) -> tuple[list[V], int]:
        """Return all objects in the watched namespaces, and the oldest resourceVersion among their LISTs."""
        found: list[V] = []
        versions: list[int] = []
        for namespace in self._namespaces:
            async for items, version in self._client.list(resource, namespace, selector):
                found += [parse(item) for item in items]
                versions.append(int(version))
        return found, min(versions)

    def _enqueue(self, keys: Iterable[RunKey]) -> None:
        for key in keys:
            self._queue.add(key)
