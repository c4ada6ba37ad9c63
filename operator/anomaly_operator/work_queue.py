"""A queue of keys to reconcile that behaves like client-go's workqueue: one entry per key, one worker per key, backoff.

A key that is added while a worker processes it is handed out again afterwards, so that no change is lost and no two
workers ever hold the same key.

Unlike client-go's, it has priorities. Urgent keys (changes by users, and what makes Jobs for a sweep) are handed out
before normal ones, so that in a burst all new runs get their Job before any of their statuses is written; what only
makes sure that nothing was missed comes last, so that a look at ten thousand runs keeps no change waiting. Every few
keys one of a lower priority is handed out, so that none starves.

The queue knows nothing of runs, and it never drops a key.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Hashable
from enum import IntEnum
from typing import Generic, TypeVar

from anomaly_operator.metrics import QUEUE_DEPTH, QUEUE_SECONDS

K = TypeVar("K", bound=Hashable)

BASE_DELAY = 0.5
"""Seconds before the first retry of a key; every further retry doubles the delay."""
MAX_DELAY = 300.0
"""Longest backoff, seconds, before the jitter."""


class Priority(IntEnum):
    """Which keys are handed out first: the lowest number."""

    URGENT = 0
    NORMAL = 1
    IDLE = 2
    """Nothing is known to have changed."""


TURNS = {Priority.IDLE: 16, Priority.NORMAL: 4}
"""Of how many keys handed out one is of this priority, if any waits, whatever else does."""


class WorkQueue(Generic[K]):
    """A rate-limited queue of unique keys, for one event loop.

    Args:
        jitter: factor of each backoff delay, so that runs that failed together are not retried together.
    """

    def __init__(self, jitter: Callable[[], float] = lambda: random.uniform(0.8, 1.2)) -> None:  # noqa: S311 - no secret
        self._jitter = jitter
        self._lanes: dict[Priority, deque[K]] = {priority: deque() for priority in Priority}
        self._waiting: dict[K, Priority] = {}  # a key in another lane than this has been moved to it
        self._handed_out = 0
        self._added_at: dict[K, float] = {}  # when each waiting key was added, by the event loop's clock
        self._processing: set[K] = set()
        self._dirty: dict[K, Priority] = {}  # added while processed
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._not_empty = asyncio.Event()

    def add(self, key: K, priority: Priority = Priority.NORMAL) -> None:
        """Queue the key for the next free worker; one that already waits is not added twice, but may move forward."""
        if key in self._processing:
            # Two workers must not hold one key: ``done`` adds it again.
            self._dirty[key] = min(priority, self._dirty.get(key, priority))
        elif priority < self._waiting.get(key, len(Priority)):
            self._added_at.setdefault(key, asyncio.get_running_loop().time())
            self._waiting[key] = priority
            self._lanes[priority].append(key)
            self._not_empty.set()
            QUEUE_DEPTH.set(len(self))

    def add_after(self, key: K, seconds: float) -> None:
        """Add the key after a delay; if several delays of one key are pending, the earliest counts."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._on_timer, key)

    def add_rate_limited(self, key: K) -> float:
        """Add the key after a backoff that doubles with every call, and return the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(BASE_DELAY * 2.0 ** min(failures, 20), MAX_DELAY) * self._jitter()
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """Reset the key's backoff."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """Wait for the next key; the caller calls ``done`` when it has processed it."""
        while not len(self):
            self._not_empty.clear()
            await self._not_empty.wait()
        key = self._pop()
        self._processing.add(key)
        QUEUE_SECONDS.observe(asyncio.get_running_loop().time() - self._added_at.pop(key))
        QUEUE_DEPTH.set(len(self))
        return key

    def _pop(self) -> K:
        self._handed_out += 1
        waiting = [priority for priority in Priority if self._first(priority) is not None]
        due = (priority for priority, turn in TURNS.items() if priority in waiting and self._handed_out % turn == 0)
        key = self._lanes[next(due, waiting[0])].popleft()
        del self._waiting[key]
        return key

    def _first(self, priority: Priority) -> K | None:
        """Return the key that has waited longest in a lane; what has moved to another lane is dropped."""
        lane = self._lanes[priority]
        while lane and self._waiting.get(lane[0]) is not priority:
            lane.popleft()
        return lane[0] if lane else None

    def done(self, key: K) -> None:
        """Mark the key as processed, and queue it again if it was added meanwhile."""
        self._processing.discard(key)
        if key in self._dirty:
            self.add(key, self._dirty.pop(key))

    def shut_down(self) -> None:
        """Cancel all delayed additions."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def __len__(self) -> int:
        """Return the number of waiting keys, without those being processed."""
        return len(self._waiting)

    def _on_timer(self, key: K) -> None:
        del self._timers[key]
        self.add(key)
