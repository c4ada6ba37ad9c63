"""The last progress that a run's pod pushed. In memory only: losing it loses nothing else.

Writes no status itself; it has the run reconciled, at most once in so many seconds.
"""

from collections.abc import Callable

from anomaly_api.run import ProgressUpdate
from anomaly_operator.keys import RunKey
from anomaly_operator.work_queue import WorkQueue


class ProgressBoard:
    """Keeps the newest update of each run: one pod at a time works on a run, so that it speaks for all of it.

    Args:
        queue: where a run is added whose progress changed.
        seconds: shortest pause between two reconciles of a run for its progress alone.
        monotonic: a clock in seconds.
    """

    def __init__(self, queue: WorkQueue[RunKey], seconds: float, monotonic: Callable[[], float]) -> None:
        self._queue = queue
        self._seconds = seconds
        self._monotonic = monotonic
        self._latest: dict[RunKey, ProgressUpdate] = {}
        self._due: dict[RunKey, float] = {}  # when the run was, or will be, added to the queue

    def put(self, key: RunKey, update: ProgressUpdate) -> None:
        """Take an update; the run is reconciled now, or when the pause since the last time is over."""
        self._latest[key] = update
        now = self._monotonic()
        last = self._due.get(key, float("-inf"))
        if now >= last + self._seconds:
            self._due[key] = now
            self._queue.add(key)
        elif now >= last:  # otherwise a reconcile is due already
            self._due[key] = last + self._seconds
            self._queue.add_after(key, last + self._seconds - now)

    def latest(self, key: RunKey, uid: str) -> ProgressUpdate | None:
        """Return the newest update, unless it is of an earlier resource of the same name."""
        update = self._latest.get(key)
        return update if update is not None and update.run.uid == uid else None

    def forget(self, key: RunKey) -> None:
        """Drop what is known of a run that is finished or deleted."""
        self._latest.pop(key, None)
        self._due.pop(key, None)
