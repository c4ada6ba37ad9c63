"""The last progress that each running pod pushed. In memory alone: losing it loses nothing else."""

from collections.abc import Callable

from anomaly_api.run import ProgressUpdate
from anomaly_operator.keys import RunKey
from anomaly_operator.work_queue import WorkQueue


class ProgressBoard:
    """Keeps the newest update a run, and has its status written at most every ``seconds``."""

    def __init__(self, queue: WorkQueue[RunKey], seconds: float, monotonic: Callable[[], float]) -> None:
        self._queue = queue
        self._seconds = seconds
        self._monotonic = monotonic
        self._latest: dict[RunKey, ProgressUpdate] = {}
        self._queued: dict[RunKey, float] = {}  # when it was, or will be, looked at

    def put(self, key: RunKey, update: ProgressUpdate) -> None:
        """Take an update; the run is looked at now, or when the pause since the last time is over."""
        self._latest[key] = update
        now = self._monotonic()
        last = self._queued.get(key, float("-inf"))
        if now >= last + self._seconds:
            self._queued[key] = now
            self._queue.add(key)
        elif now >= last:
            self._queued[key] = last + self._seconds
            self._queue.add_after(key, last + self._seconds - now)

    def latest(self, key: RunKey, uid: str) -> ProgressUpdate | None:
        """The newest update of this very resource."""
        update = self._latest.get(key)
        return update if update is not None and update.run.uid == uid else None

    def forget(self, key: RunKey) -> None:
        """The run is over or gone."""
        self._latest.pop(key, None)
        self._queued.pop(key, None)
