"""The API server's own latency, measured beside: what requests take that nothing but the API server delays."""

import asyncio
import time

from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.resources import Resource

CONFIG_MAPS = Resource("", "v1", "configmaps")
CHAIN = 3
"""Writes between the end of a trial and the next one's Job: the status of the trial, the next trial, its Job."""
PAUSE = 1.0


class Probe:
    """Writes a small object a few times, one after the other, once a second.

    Args:
        client: the API server, by connections that nothing else uses.
        namespace: where.
    """

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self.reads: list[float] = []
        """Seconds of a GET."""
        self.chains: list[tuple[float, float]] = []
        """When CHAIN writes, one after the other, began (monotonic seconds), and what they took."""

    def between(self, begin: float, end: float) -> list[float]:
        """Return what CHAIN writes took that began in this time."""
        return [took for at, took in self.chains if begin <= at <= end]

    async def run(self) -> None:
        """Measure until cancelled."""
        number = 0
        while True:
            name = f"probe-{number}"
            began = time.monotonic()
            await self._client.create(CONFIG_MAPS, self._namespace, {"metadata": {"name": name}, "data": {"a": "1"}})
            await self._client.patch(CONFIG_MAPS, self._namespace, name, {"data": {"a": "2"}})
            await self._client.patch(CONFIG_MAPS, self._namespace, name, {"data": {"a": "3"}})
            self.chains.append((began, time.monotonic() - began))
            began = time.monotonic()
            await self._client.get(CONFIG_MAPS, self._namespace, name)
            self.reads.append(time.monotonic() - began)
            await self._client.delete(CONFIG_MAPS, self._namespace, name)
            number += 1
            await asyncio.sleep(PAUSE)
