"""Progress of a run: one counter, shown as a bar, logged, or pushed to the operator.

Progress is for those who watch a run, so nothing here may fail or delay it. One who watches may answer that a training
is to end: the operator, about the trials of a sweep.
"""

import http.client
import json
import logging
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urlsplit

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from anomaly_api.run import ProgressAnswer, ProgressUpdate, RunIdentity
from anomaly_api.status import Curve, Device, MlflowStatus, Progress, Stage

logger = logging.getLogger(__name__)

_STAGE_END_PERCENT = {
    Stage.STARTING: 2,
    Stage.CHECK: 3,
    Stage.SEARCH: 4,
    Stage.FETCH: 8,
    Stage.DATASET: 10,
    Stage.TRAIN: 30,
    Stage.PREDICT: 75,
    Stage.EVALUATE: 80,
    Stage.VISUALIZE: 88,
    Stage.EXPORT: 93,
    Stage.MEASURE: 94,
    Stage.PUBLISH: 99,
    Stage.DONE: 100,
}
"""Percent of the whole run at the end of each stage, in the order of the stages."""
_STAGE_END_PERCENT_BY_STEPS = _STAGE_END_PERCENT | {
    Stage.TRAIN: 85,
    Stage.PREDICT: 93,
    Stage.EVALUATE: 94,
    Stage.VISUALIZE: 95,
    Stage.EXPORT: 96,
    Stage.MEASURE: 97,
}
"""The same for a training that counts steps: training by gradient descent takes longer than all other stages."""
_PUSH_SECONDS = 1.0
"""Shortest time between two pushes."""
_ANSWER_LIMIT = 4096
"""Most bytes that are read of an answer."""
_PUSH_TIMEOUT = 2.0
"""Timeout of one request in seconds."""


class ProgressReporter(Protocol):
    """An observer of progress."""

    def report(self, stage: Stage, progress: Progress) -> None:
        """Take the newest state. Must return immediately and never raise."""

    def close(self) -> None:
        """Release what the reporter holds: the run is over."""


class ProgressMeter:
    """Counts the units of the current stage and reports every change.

    Args:
        reporters: observers, called in this order.
        clock: monotonic seconds, from which the pace of a stage is measured.
    """

    def __init__(self, reporters: Sequence[ProgressReporter] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self.stage = Stage.STARTING
        self._reporters = reporters
        self._clock = clock
        self._progress = Progress()
        self._pace_origin: tuple[float, int] | None = None
        self._end_percent = _STAGE_END_PERCENT

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reporter in self._reporters:
            reporter.close()

    def enter(self, stage: Stage, total: int, unit: str) -> None:
        """Begin a stage of ``total`` units (0: unknown); the unit "steps" gives training most of the run's percent."""
        self.stage = stage
        self._pace_origin = None
        if unit == "steps":
            self._end_percent = _STAGE_END_PERCENT_BY_STEPS
        self._report(Progress(total=total, unit=unit, percent=self._percent(0, total)))

    def advance(self, count: int) -> None:
        """Add ``count`` units of the stage that are done."""
        completed = self._progress.completed + count
        changed = {
            "completed": completed,
            "percent": self._percent(completed, self._progress.total),
            "remaining_seconds": self._remaining(completed, self._progress.total),
        }
        self._report(self._progress.model_copy(update=changed))

    def _remaining(self, completed: int, total: int) -> int | None:
        """Seconds until the stage is done at its current pace; None while the pace is unknown.

        The pace is measured from the first report on, because the first units include one-time work (the warm-up of a
        model) and the units that an earlier pod has done.
        """
        now = self._clock()
        began, already = self._pace_origin = self._pace_origin or (now, completed)
        if completed <= already or not total:
            return None
        return round(max(0, total - completed) * (now - began) / (completed - already))

    def _percent(self, completed: int, total: int) -> int:
        """Percent of the whole run, 0..100; never less than before."""
        stages, ends = list(self._end_percent), self._end_percent
        before = ends[stages[max(0, stages.index(self.stage) - 1)]] if self.stage is not Stage.STARTING else 0
        share = 1.0 if self.stage is Stage.DONE else min(1.0, completed / total) if total else 0.0
        return max(self._progress.percent, int(before + share * (ends[self.stage] - before)))

    def _report(self, progress: Progress) -> None:
        self._progress = progress
        for reporter in self._reporters:
            reporter.report(self.stage, progress)


class BarReporter:
    """Shows a progress bar on the terminal."""

    def __init__(self, console: Console) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TextColumn("{task.fields[percent]:>3} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None, unit="", percent=0, left="")
        self._bar.start()

    def report(self, stage: Stage, progress: Progress) -> None:
        """Redraw the bar."""
        self._bar.update(
            self._task,
            description=stage.value,
            completed=progress.completed,
            total=progress.total or None,
            unit=progress.unit,
            percent=progress.percent,
            left=_remaining_text(progress.remaining_seconds),
        )

    def close(self) -> None:
        """Take the bar off the screen."""
        self._bar.stop()


def _remaining_text(seconds: int | None) -> str:
    """How long the stage will still take, for people; empty where unknown."""
    return "" if seconds is None else f"{timedelta(seconds=seconds)} left"


class LogReporter:
    """Writes a line to the log at each new stage and at every ten percent."""

    def __init__(self) -> None:
        self._last: tuple[Stage, int] | None = None

    def report(self, stage: Stage, progress: Progress) -> None:
        """Log the state if a new stage or another ten percent has begun."""
        news = (stage, progress.percent // 10)
        if news != self._last:
            self._last = news
            logger.info(
                "progress",
                extra={
                    "stage": stage.value,
                    "percent": progress.percent,
                    "completed": progress.completed,
                    "total": progress.total,
                    "remaining_seconds": progress.remaining_seconds,
                },
            )

    def close(self) -> None:
        """Nothing to do."""


class PushReporter:
    """Posts ProgressUpdates to the operator from a thread of its own, at most one a second.

    The token is read again for each request, because the kubelet rotates it. Only the first failure is logged.

    Args:
        url: where to POST.
        token_file: the pod's service account token for the operator.
        run: identity of the run in the updates.
        mlflow: returns the run's status in MLflow; None until the run exists there.
        device: returns what computes; None until that is known.
        curve: returns the course of the training; None before its first epoch.
        prune: called with the reason if the operator answers that the training is to end.

    Raises:
        ValueError: ``url`` is not HTTP or HTTPS.
    """

    def __init__(
        self,
        url: str,
        token_file: Path,
        run: RunIdentity,
        mlflow: Callable[[], MlflowStatus | None],
        device: Callable[[], Device | None],
        *,
        curve: Callable[[], Curve | None] = lambda: None,
        prune: Callable[[str], None] = lambda _: None,
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"not an HTTP URL: {url}")
        self._url = url
        self._token_file = token_file
        self._run = run
        self._mlflow = mlflow
        self._device = device
        self._curve = curve
        self._prune = prune
        self._latest: tuple[Stage, Progress] | None = None
        self._changed = threading.Event()
        self._closed = threading.Event()
        self._failed = False
        self._thread = threading.Thread(target=self._push_until_closed, name="progress", daemon=True)
        self._thread.start()

    def report(self, stage: Stage, progress: Progress) -> None:
        """Leave the newest state to the thread."""
        self._latest = (stage, progress)
        self._changed.set()

    def close(self) -> None:
        """Push the last state; waits at most for a request in flight and one more."""
        self._closed.set()
        self._changed.set()
        self._thread.join(2 * _PUSH_TIMEOUT)

    def _push_until_closed(self) -> None:
        while not self._closed.is_set():
            self._changed.wait()
            self._changed.clear()
            self._push()
            self._closed.wait(_PUSH_SECONDS)
        self._push()

    def _push(self) -> None:
        if self._latest is None:
            return
        stage, progress = self._latest
        update = ProgressUpdate(
            run=self._run,
            stage=stage,
            progress=progress,
            mlflow=self._mlflow(),
            device=self._device(),
            curve=self._curve(),
        )
        try:
            answer = self._post(json.dumps(update.to_json_object()).encode())
            if answer:
                self._follow(ProgressAnswer.model_validate_json(answer))
        except ValidationError as error:
            self._warn_once(f"the answer of {self._url} to progress cannot be read: {error.error_count()} errors")
        except (OSError, http.client.HTTPException) as error:
            self._warn_once(f"progress cannot be pushed to {self._url}: {error}")

    def _warn_once(self, message: str) -> None:
        if not self._failed:
            logger.warning(message)
        self._failed = True

    def _follow(self, answer: ProgressAnswer) -> None:
        if answer.stop is not None:
            self._prune(answer.message)

    def _post(self, body: bytes) -> bytes:
        """Return the answer's body if there is one that means anything: that of 200."""
        token = self._token_file.read_text().strip()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        request = urllib.request.Request(self._url, body, headers, method="POST")  # noqa: S310 - checked above
        with urllib.request.urlopen(request, timeout=_PUSH_TIMEOUT) as answer:  # noqa: S310
            content: bytes = answer.read(_ANSWER_LIMIT) if answer.status == HTTPStatus.OK else b""
            return content
