"""What parts of the operator share when one of them is tested alone."""

from anomaly_operator.cluster.cache import Cache
from anomaly_operator.keys import RunKey
from anomaly_operator.work_queue import WorkQueue
from support.played_api import PlayedApi, PlayedClient
from support.played_loop import PlayedLoop


class PlayedParts:
    """An API server with a client of it, an empty cache that nothing fills, and a work queue that nobody works on."""

    def __init__(self) -> None:
        self.loop = PlayedLoop()
        self.api = PlayedApi(self.loop.time)
        self.client = PlayedClient(self.api)
        self.cache = Cache()
        self.queue: WorkQueue[RunKey] = WorkQueue()
