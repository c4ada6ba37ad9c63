"""When trials, their Jobs and their ends come, and what the operator's search takes meanwhile."""

import asyncio
import json
import re
import time
from collections import defaultdict
from dataclasses import dataclass

import kopf

from anomaly_operator.resources import EXPERIMENTS, Resource
from benchmarks.sweeps.operator_process import Operator, value
from benchmarks.sweeps.player import Ended
from benchmarks.sweeps.times import Times
from benchmarks.sweeps.watch import added

SAMPLE_SECONDS = 5.0
TRIAL = re.compile(r"(.+)-t(\d+)")


@dataclass(frozen=True)
class Sample:
    """The search's figures so far, when so many trials had ended."""

    ended: int
    seconds: float
    answers: float
    suggested: float


class Observer:
    """Notes what happens.

    Args:
        operator: whose metrics are sampled.
        before: trials of each sweep that were over at the start, which are not noted.
    """

    def __init__(self, operator: Operator, before: int) -> None:
        self._operator = operator
        self._before = before
        self.times: dict[str, Times] = defaultdict(Times)
        """By sweep."""
        self.samples: list[Sample] = []

    @property
    def ended(self) -> int:
        """How many trials have ended."""
        return sum(len(times.ends) for times in self.times.values())

    async def watch(self, info: kopf.ConnectionInfo, resource: Resource, namespace: str) -> None:
        """Note when trials, or the Jobs of trials, are made, until cancelled."""
        async for one in added(info, resource, namespace):
            if (sweep := self._sweep_of(one.name)) is not None:
                times = self.times[sweep]
                (times.made if resource is EXPERIMENTS else times.jobs).append(time.monotonic())

    async def follow(self, lines: asyncio.StreamReader) -> None:
        """Note when the Jobs of trials end, as the player says, until cancelled or it ends."""
        async for line in lines:
            end = Ended(*json.loads(line))
            if (sweep := self._sweep_of(end.job)) is not None:
                self.times[sweep].ends.append(end.seconds)

    async def sample(self) -> None:
        """Note every while how long the search took so far, until cancelled."""
        while True:
            if text := await self._operator.metrics():
                seconds, answers = (value(text, f"anomaly_operator_search_seconds_{part}") for part in ("sum", "count"))
                suggested = value(text, "anomaly_operator_search_suggestions_total")
                self.samples.append(Sample(self.ended, seconds, answers, suggested))
            await asyncio.sleep(SAMPLE_SECONDS)

    def _sweep_of(self, name: str) -> str | None:
        """Return the sweep of a trial or of its Job; None for anything else, and for trials that were over."""
        found = TRIAL.match(name)
        return found[1] if found and int(found[2]) >= self._before else None
