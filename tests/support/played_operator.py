"""Replicas of the operator on a played API server: each may be killed at any moment, and its watches lose events.

All of it is the operator's own but kopf, the ports, and the process of the search, which is asked in this one.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import TypeVar

from anomaly_operator import names
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.replica import Replica
from anomaly_operator.resources import JOBS, PODS, RUN_RESOURCES, Manifest
from anomaly_operator.search_worker import SearchWorker
from anomaly_operator.settings import Settings
from anomaly_operator.work_queue import WorkQueue
from support.played_api import PlayedApi, PlayedClient
from support.played_loop import PlayedLoop

SETTINGS = Settings(
    pods=PodSettings(runner_image="runner", inference_image="inference", installation="played"),
    identity="played",
    lease_seconds=600.0,
    workers=3,
)
WATCH_SECONDS = 0.02
"""Time that an event takes to the operator."""
_RUNS = {resource.plural for resource in RUN_RESOURCES.values()}
_WATCHED = _RUNS | {JOBS.plural, PODS.plural}
_NUMBERS = count()

T = TypeVar("T")


class PlayedSearch(SearchWorker):
    """The search without a process of its own: a played loop cannot wait for one."""

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        return work(*arguments)


class PlayedOperator:
    """A process, from its making to its end.

    Args:
        loop: where it runs.
        api: the API server.
        resync_seconds: pause between full LISTs.
        watch_seconds: time that an event takes to the operator.
    """

    def __init__(
        self,
        loop: PlayedLoop,
        api: PlayedApi,
        resync_seconds: float = SETTINGS.resync_seconds,
        watch_seconds: float = WATCH_SECONDS,
    ) -> None:
        self._watch_seconds = watch_seconds
        self._loop = loop
        self._api = api
        self.deaf: set[str] = set()
        """Plurals whose watch is broken: what happens meanwhile it never tells."""
        self._late: defaultdict[str, float] = defaultdict(float)
        self.alive = True
        self._asked_at = loop.time()  # for a LIST; the first one may begin later
        self.search = PlayedSearch()
        settings = replace(SETTINGS, identity=f"played-{next(_NUMBERS)}", resync_seconds=resync_seconds)
        self.replica = Replica(
            client=PlayedClient(api, lambda: self.alive and self.replica.elector.is_leader),
            lease_client=PlayedClient(api, lambda: self.alive),
            queue=WorkQueue(jitter=lambda: 1.0),
            worker=self.search,
            settings=settings,
            clock=api.moment,
            monotonic=loop.time,
            end=self.end,
        )
        self.cache, self.queue = self.replica.cache, self.replica.queue
        api.watches.append(self._hear)
        self._task = loop.create_task(self._run())

    async def _run(self) -> None:
        self.replica.spawn(self.replica.run(), "leading")

    @property
    def leads(self) -> bool:
        """Whether it holds the Lease."""
        return self.alive and self.replica.elector.is_leader

    def end(self) -> None:
        """End the process in the middle of whatever it does; a request that was sent may still take effect."""
        if not self.alive:
            return
        self.alive = False
        self._api.watches.remove(self._hear)
        self.queue.shut_down()
        for task in (self._task, *self.replica.tasks):
            task.cancel()

    def kill(self, *, lease_stays: bool = False) -> None:
        """End the process from outside; unless its Lease stays, its successor need not wait until that has run out."""
        self.end()
        self._loop.run_until_complete(asyncio.gather(self._task, *self.replica.tasks, return_exceptions=True))
        if not lease_stays:
            self.forget_lease()

    def forget_lease(self) -> None:
        """Delete the Lease, so that a successor need not wait until it has run out."""
        self._api.objects.pop(("leases", SETTINGS.lease_name), None)

    def stop(self) -> None:
        """End the process with SIGTERM: it gives up its Lease."""
        if self.alive:
            self._loop.run_until_complete(self.replica.stop())
            self.end()

    @property
    def defects(self) -> list[str]:
        """Names of tasks that failed."""
        ended = (task for task in self.replica.tasks if task.done() and not task.cancelled())
        return [task.get_name() for task in ended if task.exception()]

    def relist(self) -> None:
        """Have everything listed now, and not when it is time."""
        self._loop.call_soon(self._relist)

    def _relist(self) -> None:
        if self.alive:
            self._asked_at = self._loop.time()
            self.replica.relist()

    def has_listed(self, since: float) -> bool:
        """Whether a LIST has ended that began at this time or later."""
        done = self.replica.resync.completed_at
        return self._asked_at >= since and done is not None and done > self._asked_at

    def delay(self, plural: str, seconds: float) -> None:
        """Have what the watch of a resource tells from now on come late; its order stays."""
        self._late[plural] = max(self._late[plural], self._loop.time() + seconds)

    def _hear(self, plural: str, event: str, manifest: Manifest) -> None:
        is_watched = (
            plural in _RUNS or manifest["metadata"].get("labels", {}).get(names.MANAGED_BY_LABEL) == names.MANAGED_BY
        )
        if is_watched and plural not in self.deaf:
            at = max(self._loop.time() + self._watch_seconds, self._late[plural])
            self._loop.call_at(at, self.handle, plural, event, manifest)

    def handle(self, plural: str, event: str, manifest: Manifest) -> None:
        """Take an event from a watch."""
        if self.alive and plural in _WATCHED:
            self.replica.hear(plural, manifest, deleted=event == "DELETED")

    def hear_again(self, plural: str) -> None:
        """Mend a broken watch: it begins with everything that there is, and never tells what was deleted meanwhile."""
        self.deaf.discard(plural)
        for manifest in self._api.all(plural):
            self._hear(plural, "ADDED", manifest)


class PlayedDeployment:
    """Replicas of the operator: one, and another while it hands over. One that ends is started anew.

    Args:
        loop: where they run.
        api: the API server.
        watch_seconds: time that an event takes to them.
    """

    def __init__(self, loop: PlayedLoop, api: PlayedApi, watch_seconds: float = WATCH_SECONDS) -> None:
        self._loop = loop
        self._api = api
        self._watch_seconds = watch_seconds
        self._replicas: list[PlayedOperator] = []
        self._deaf: set[str] = set()
        self._blind_until = 0.0
        self._listed_after = 0.0
        self.restart()

    @property
    def leading(self) -> int:
        """How many replicas lead."""
        return sum(replica.leads for replica in self._replicas)

    @property
    def defects(self) -> list[str]:
        """Parts that failed by a defect of their own."""
        return [name for replica in self._replicas for name in replica.defects]

    @property
    def blind(self) -> bool:
        """Whether there may be something that was told by no watch, and not listed since."""
        return (
            bool(self._deaf)
            or self._loop.time() <= self._blind_until
            or not all(replica.has_listed(self._listed_after) for replica in self._replicas)
        )

    def restart(self) -> None:
        """Start a process for one that has ended."""
        self._replicas = [replica for replica in self._replicas if replica.alive]
        if not self._replicas:
            # A LIST each day: what is told by watches, and what is not, is to be told apart.
            replica = PlayedOperator(self._loop, self._api, 86_400.0, self._watch_seconds)
            replica.deaf |= self._deaf
            self._replicas = [replica]

    def end(self) -> None:
        """End the leader in the middle of what it does, from within the loop."""
        for replica in self._replicas:
            if replica.leads:
                replica.end()
                replica.forget_lease()

    def kill(self, *, lease_stays: bool = False) -> None:
        """Kill all replicas, and start one."""
        for replica in self._replicas:
            replica.kill(lease_stays=lease_stays)
        self.restart()

    def hand_over(self, seconds: float) -> None:
        """Start another replica, and stop the others with SIGTERM after some time."""
        old, self._replicas = self._replicas, []
        self.restart()
        self._replicas += old
        self._loop.run_for(seconds)
        for replica in old:
            replica.stop()
        self.restart()

    def break_watch(self, plural: str) -> None:
        """Let the watch of a resource tell nothing more."""
        self._deaf.add(plural)
        for replica in self._replicas:
            replica.deaf.add(plural)

    def mend_watch(self, plural: str) -> None:
        """Mend a broken watch; what was deleted meanwhile is told by a LIST alone."""
        if plural in self._deaf:
            self._deaf.discard(plural)
            self._listed_after = self._loop.time()
            for replica in self._replicas:
                replica.hear_again(plural)

    def delay_watch(self, plural: str, seconds: float) -> None:
        """Have what a watch tells from now on come late."""
        self._blind_until = max(self._blind_until, self._loop.time() + seconds + 1.0)
        for replica in self._replicas:
            replica.delay(plural, seconds)

    def relist(self) -> None:
        """Have everything listed now."""
        for replica in self._replicas:
            replica.relist()

    def see_again(self) -> None:
        """Mend all watches, and list what they have missed."""
        for plural in list(self._deaf):
            self.mend_watch(plural)
        self._loop.run_for(0.01)
        self.relist()

    def close(self) -> None:
        """End all replicas."""
        for replica in self._replicas:
            replica.kill()
