"""Periodic LISTs of everything, compared with the cache: what heals a watch that lost events.

A watch that had to begin again (410 Gone) never tells of deletions in between; a LIST does.
"""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import structlog

from anomaly_operator import names
from anomaly_operator.cluster.cache import Cache, Store
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.errors import ApiError
from anomaly_operator.keys import RunKey
from anomaly_operator.resources import JOBS, PODS, RUNS, Resource
from anomaly_operator.views import Raw, job_view, pod_view, run_view
from anomaly_operator.work_queue import WorkQueue

log = structlog.get_logger()

V = TypeVar("V")
RETRY_SECONDS = 5.0


class Resync:
    """Keeps the cache equal to the cluster."""

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
        """When the last complete LIST ended."""

    async def run(self) -> None:
        """LIST for ever; a LIST that fails is tried again soon."""
        while True:
            try:
                await self.once()
                pause = self._seconds
            except ApiError as error:
                log.error("resync failed", message=str(error), retry_s=RETRY_SECONDS)
                pause = RETRY_SECONDS
            await asyncio.sleep(pause)

    async def once(self) -> None:
        """LIST everything, put what changed into the cache, and have every run looked at."""
        for store in (self._cache.runs, self._cache.jobs, self._cache.pods):
            store.start_listing()
        await self._pods()
        await self._jobs()
        for kind, resource in RUNS.items():
            found, version = await self._list(resource, partial(run_view, kind))
            for run in found:
                self._cache.put_run(run)
            for run in self._gone(self._cache.runs, found, version):
                if run.key.kind == kind:
                    self._enqueue(self._cache.remove_run(run))
        self._enqueue({run.key for run in self._cache.runs})
        self.completed_at = self._monotonic()

    async def _pods(self) -> None:
        found, version = await self._list(PODS, pod_view, names.SELECTOR)
        for pod in found:
            self._cache.put_pod(pod)
        for pod in self._gone(self._cache.pods, found, version):
            self._cache.remove_pod(pod)

    async def _jobs(self) -> None:
        found, version = await self._list(JOBS, job_view, names.SELECTOR)
        for job in found:
            self._cache.put_job(job)
        for job in self._gone(self._cache.jobs, found, version):
            self._cache.remove_job(job)

    async def _list(
        self, resource: Resource, parse: Callable[[Raw], V], selector: str | None = None
    ) -> tuple[list[V], int]:
        """All objects in the watched namespaces, and the oldest resourceVersion that they are of."""
        found: list[V] = []
        versions: list[int] = []
        for namespace in self._namespaces:
            async for items, version in self._client.list(resource, namespace, selector):
                found += [parse(item) for item in items]
                versions.append(int(version))
        return found, min(versions)

    def _gone(self, store: Store[Any, Any], found: Iterable[Any], version: int) -> list[Any]:
        return store.missing((store.key_of(view) for view in found), version)

    def _enqueue(self, keys: Iterable[RunKey]) -> None:
        for key in keys:
            self._queue.add(key)
