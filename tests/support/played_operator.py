"""One process of the operator on a played API server: it may be killed at any moment, and its watches lose events.

It is what ``Manager`` makes of its parts, without kopf, the Lease and the ports.
"""

import asyncio
from collections import defaultdict

from anomaly_operator import names
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.resync import Resync
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.keys import KINDS, RunKey
from anomaly_operator.reconciler import Reconciler
from anomaly_operator.resources import RUN_RESOURCES, Manifest
from anomaly_operator.search_worker import SearchWorker
from anomaly_operator.serving.progress_board import ProgressBoard
from anomaly_operator.settings import Settings
from anomaly_operator.views import job_view, pod_view, run_view
from anomaly_operator.work_queue import Priority, WorkQueue
from support.played_api import PlayedApi, PlayedClient
from support.played_loop import PlayedLoop

SETTINGS = Settings(pods=PodSettings(runner_image="runner", inference_image="inference"), identity="played")
WATCH_SECONDS = 0.02
"""Time that an event takes to the operator."""
WORKERS = 3
_KINDS = {RUN_RESOURCES[kind].plural: kind for kind in KINDS}


class PlayedOperator:
    """The process, from its making to ``kill``.

    Args:
        loop: where it runs.
        api: the API server.
    """

    def __init__(self, loop: PlayedLoop, api: PlayedApi) -> None:
        self._loop = loop
        self.cache = Cache()
        self.queue: WorkQueue[RunKey] = WorkQueue(jitter=lambda: 1.0)
        self._api = api
        client = PlayedClient(api)
        self.resync = Resync(
            client=client,
            cache=self.cache,
            queue=self.queue,
            namespaces=(),
            seconds=SETTINGS.resync_seconds,
            monotonic=loop.time,
        )
        self.reconciler = Reconciler(
            client=client,
            cache=self.cache,
            queue=self.queue,
            board=ProgressBoard(self.queue, 2.0, loop.time),
            worker=SearchWorker(),
            settings=SETTINGS,
            clock=api.moment,
        )
        self.deaf: set[str] = set()
        """Plurals whose watch is broken: what happens meanwhile it never tells."""
        self._late: defaultdict[str, float] = defaultdict(float)
        self._alive = True
        api.watches.append(self._hear)
        self._task = loop.create_task(self._run())

    async def _run(self) -> None:
        resync = asyncio.create_task(self.resync.run())
        while self.resync.completed_at is None:
            await asyncio.sleep(WATCH_SECONDS)
        await asyncio.gather(resync, *(self.reconciler.work() for _ in range(WORKERS)))

    def kill(self) -> None:
        """End the process in the middle of whatever it does; a request that was sent may still take effect."""
        self._alive = False
        self._api.watches.remove(self._hear)
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(self._task, return_exceptions=True))
        self.queue.shut_down()

    def check_alive(self) -> None:
        """Raise what ended the process, if it has ended by itself."""
        if self._task.done():
            self._task.result()
            raise AssertionError("the process has ended")

    def delay(self, plural: str, seconds: float) -> None:
        """Have what the watch of a resource tells from now on come late; its order stays."""
        self._late[plural] = max(self._late[plural], self._loop.time() + seconds)

    def _hear(self, plural: str, event: str, manifest: Manifest) -> None:
        is_watched = (
            plural in _KINDS or manifest["metadata"].get("labels", {}).get(names.MANAGED_BY_LABEL) == names.MANAGED_BY
        )
        if is_watched and plural not in self.deaf:
            at = max(self._loop.time() + WATCH_SECONDS, self._late[plural])
            self._loop.call_at(at, self.handle, plural, event, manifest)

    def handle(self, plural: str, event: str, manifest: Manifest) -> None:
        """Do what the handlers do with an event."""
        deleted = event == "DELETED"
        if not self._alive:
            return
        if plural in _KINDS:
            run = run_view(_KINDS[plural], manifest)
            keys = self.cache.remove_run(run) if deleted else self.cache.put_run(run)
        elif plural == "jobs":
            job = job_view(manifest)
            keys = self.cache.remove_job(job) if deleted else self.cache.put_job(job)
        elif plural == "pods":
            pod = pod_view(manifest)
            keys = self.cache.remove_pod(pod) if deleted else self.cache.put_pod(pod)
        else:
            return
        for key in keys:
            self.queue.add(key, Priority.URGENT if plural in _KINDS else Priority.NORMAL)

    def hear_again(self, plural: str) -> None:
        """Mend a broken watch: it begins with everything that there is, and never tells what was deleted meanwhile."""
        self.deaf.discard(plural)
        for manifest in self._api.all(plural):
            self._hear(plural, "ADDED", manifest)
