"""A queue of keys to reconcile, as client-go's workqueue: one entry a key, one worker a key, backoff on failure.

A key added while it is being worked on is handed out again afterwards, so that no change is lost and no two workers
ever hold the same key. What users did is urgent and comes before what happened by itself: in a burst, all runs are
started first and told about afterwards. Every fourth key is one that is not urgent, so that none waits for ever.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from anomaly_operator.metrics import QUEUE_DEPTH, QUEUE_SECONDS

K = TypeVar("K", bound=Hashable)

FIRST_DELAY = 0.5
LONGEST_DELAY = 300.0


class WorkQueue(Generic[K]):
    """Keys that wait, that are worked on, and that come back later. For one event loop."""

    def __init__(self, jitter: Callable[[], float] = lambda: random.uniform(0.8, 1.2)) -> None:  # noqa: S311 - no secret
        self._jitter = jitter
        self._urgent: deque[K] = deque()
        self._waiting: deque[K] = deque()
        self._picked = 0
        self._since: dict[K, float] = {}
        self._working: set[K] = set()
        self._again: dict[K, bool] = {}
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._ready = asyncio.Event()

    def add(self, key: K, *, urgent: bool = False) -> None:
        """Hand the key out as soon as a worker is free."""
        if key in self._working:
            self._again[key] = urgent or self._again.get(key, False)
        elif key not in self._since:
            self._since[key] = asyncio.get_running_loop().time()
            (self._urgent if urgent else self._waiting).append(key)
            self._ready.set()
            QUEUE_DEPTH.set(len(self))

    def add_after(self, key: K, seconds: float) -> None:
        """Hand the key out after a while; of several such wishes the earliest counts."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def retry(self, key: K) -> float:
        """Hand the key out after a delay that doubles with every call; returns the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(FIRST_DELAY * 2.0 ** min(failures, 20), LONGEST_DELAY) * self._jitter()
        self.add_after(key, delay)
        return delay

    def succeeded(self, key: K) -> None:
        """Forget past failures of the key."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The next key; whoever gets it calls ``done`` when finished."""
        while not len(self):
            self._ready.clear()
            await self._ready.wait()
        key = self._next()
        self._working.add(key)
        QUEUE_SECONDS.observe(asyncio.get_running_loop().time() - self._since.pop(key))
        QUEUE_DEPTH.set(len(self))
        return key

    def _next(self) -> K:
        self._picked += 1
        turn = self._waiting and (not self._urgent or self._picked % 4 == 0)
        return (self._waiting if turn else self._urgent).popleft()

    def done(self, key: K) -> None:
        """The worker is finished with the key."""
        self._working.discard(key)
        if key in self._again:
            self.add(key, urgent=self._again.pop(key))

    def close(self) -> None:
        """Forget everything that was to come back later."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def __len__(self) -> int:
        return len(self._urgent) + len(self._waiting)

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)
