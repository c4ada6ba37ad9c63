"""The latest progress that the pod of each run pushed. In memory only: its loss does no harm.

The board writes no status itself; it enqueues the run, at most once every few seconds.
"""

from collections.abc import Callable

from anomaly_api.run import ProgressUpdate
from anomaly_operator.keys import RunKey
from anomaly_operator.work_queue import WorkQueue

SELDOM_SECONDS = 30.0
"""Shortest pause between two reconciles of a trial for its progress alone: a sweep may have hundreds at work."""


class ProgressBoard:
    """Keeps the newest update of each run, on which only one pod works at a time.

    Args:
        queue: where runs with new progress are added.
        seconds: shortest pause between two reconciles of a run for its progress alone.
        monotonic: a clock in seconds.
    """

    def __init__(self, queue: WorkQueue[RunKey], seconds: float, monotonic: Callable[[], float]) -> None:
        self._queue = queue
        self._seconds = seconds
        self._monotonic = monotonic
        self._latest: dict[RunKey, tuple[str, ProgressUpdate]] = {}  # the UID of the pod's Job, and what it said
        self._due: dict[RunKey, float] = {}  # when the run was, or will be, added to the queue

    def put(self, key: RunKey, job_uid: str, update: ProgressUpdate, *, seldom: bool = False) -> None:
        """Store an update and enqueue the run, at once or when the pause since the last time is over.

        Args:
            key: the run.
            job_uid: UID of the Job whose pod pushed it.
            update: what it pushed.
            seldom: whether the pause is long, as for the many trials of a sweep.
        """
        self._latest[key] = (job_uid, update)
        pause = SELDOM_SECONDS if seldom else self._seconds
        now = self._monotonic()
        last = self._due.get(key, float("-inf"))
        if now >= last + pause:
            self._due[key] = now
            self._queue.add(key)
        elif now >= last:  # otherwise a reconcile is due already
            self._due[key] = last + pause
            self._queue.add_after(key, last + pause - now)

    def latest(self, key: RunKey, job_uid: str) -> ProgressUpdate | None:
        """Return the newest update if a pod of this Job pushed it, not one of an earlier step, run or resource."""
        pushed_by, update = self._latest.get(key, (None, None))
        return update if pushed_by == job_uid else None

    def forget(self, key: RunKey) -> None:
        """Drop the progress of a run that is finished or deleted."""
        self._latest.pop(key, None)
        self._due.pop(key, None)
