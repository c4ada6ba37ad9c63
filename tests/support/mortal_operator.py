"""An operator that dies at a chosen write: in one process with the test, on a real API server.

Its successor shares nothing with it but the API server, as after a SIGKILL. It sees the cluster by LISTs alone.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

import kopf

from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.cluster.credentials import login
from anomaly_operator.cluster.resync import Resync
from anomaly_operator.controller import Controller
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.keys import RunKey
from anomaly_operator.resources import Manifest
from anomaly_operator.search_worker import SearchWorker
from anomaly_operator.serving.progress_board import ProgressBoard
from anomaly_operator.settings import Settings
from anomaly_operator.work_queue import WorkQueue

When = Literal["before", "after"]
SECONDS_BETWEEN_LISTS = 0.4


class Killed(BaseException):
    """The operator's process ended here."""


class MortalClient(ApiClient):
    """A client whose operator dies at its ``die_at``-th write: before it is sent, or before its answer arrives.

    With a ``method``, writes are those of this HTTP method alone.
    """

    def __init__(self, die_at: int | None = None, when: When = "after", method: str | None = None) -> None:
        super().__init__(lambda: login(kopf.OperatorSettings()))
        self.writes = 0
        self._die_at = die_at
        self._when = when
        self._method = method

    async def _attempt(
        self,
        method: str,
        plural: str,
        path: str,
        *,
        verb: str,
        query: Mapping[str, str] | None,
        body: Manifest | None,
    ) -> Manifest:
        if method == "GET" or (self._method and method != self._method):
            return await super()._attempt(method, plural, path, verb=verb, query=query, body=body)
        self.writes += 1
        dies = self.writes == self._die_at
        if dies and self._when == "before":
            raise Killed
        try:
            return await super()._attempt(method, plural, path, verb=verb, query=query, body=body)
        finally:
            if dies:
                raise Killed


async def operate(client: MortalClient, namespace: str, cache: Cache | None = None) -> None:
    """Be the namespace's operator until the client dies, or until cancelled; it sees what is in the cache."""
    loop = asyncio.get_running_loop()
    cache, queue = Cache() if cache is None else cache, WorkQueue[RunKey]()
    resync = Resync(
        client=client,
        cache=cache,
        queue=queue,
        namespaces=[namespace],
        seconds=SECONDS_BETWEEN_LISTS,
        monotonic=loop.time,
    )
    controller = Controller(
        client=client,
        cache=cache,
        queue=queue,
        board=ProgressBoard(queue, 2.0, loop.time),
        worker=SearchWorker(),
        settings=Settings(pods=PodSettings(runner_image="runner", inference_image="inference")),
        clock=lambda: datetime.now(UTC),
    )
    await resync.relist()
    listing, working = asyncio.create_task(resync.run()), asyncio.create_task(controller.work())
    try:
        await working
    except Killed:
        pass
    finally:
        for task in (listing, working):
            task.cancel()
        await asyncio.gather(listing, working, return_exceptions=True)
        queue.shut_down()
        await client.close()
