"""How far the run is: one counter, shown as a bar, logged, or pushed to the operator.

Losing progress loses nothing else, so nothing here ever fails or delays a run.
"""

import json
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from anomaly_api.run import ProgressUpdate, RunIdentity
from anomaly_api.status import MlflowStatus, Stage
from anomaly_api.status import Progress as Values

logger = logging.getLogger(__name__)

_ENDS = {
    Stage.STARTING: 2,
    Stage.FETCH: 8,
    Stage.DATASET: 10,
    Stage.TRAIN: 30,
    Stage.PREDICT: 75,
    Stage.EVALUATE: 80,
    Stage.VISUALIZE: 88,
    Stage.EXPORT: 93,
    Stage.PUBLISH: 99,
    Stage.DONE: 100,
}
"""Percent of the whole run at the end of each stage, in their order."""
_ENDS_WITH_STEPS = _ENDS | {
    Stage.TRAIN: 85,
    Stage.PREDICT: 93,
    Stage.EVALUATE: 94,
    Stage.VISUALIZE: 95,
    Stage.EXPORT: 97,
}
"""The same where the training counts steps: by gradient it outlasts everything else."""
_PUSH_SECONDS = 1.0
_PUSH_TIMEOUT = 2.0


class ProgressReporter(Protocol):
    """Somebody who wants to know how far the run is."""

    def report(self, stage: Stage, values: Values) -> None:
        """Take the newest state; must return at once and never raise."""

    def close(self) -> None:
        """The run is over."""


class ProgressMeter:
    """The state of progress; tells every reporter of each change.

    Args:
        reporters: who wants to know.
        clock: seconds since any moment, never going back; the pace of a stage is measured with it.
    """

    def __init__(self, reporters: Sequence[ProgressReporter] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self.stage = Stage.STARTING
        self._reporters = reporters
        self._clock = clock
        self._values = Values()
        self._first: tuple[float, int] | None = None
        self._ends = _ENDS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reporter in self._reporters:
            reporter.close()

    def enter(self, stage: Stage, total: int, unit: str) -> None:
        """Begin a stage of ``total`` units (0: unknown)."""
        self.stage = stage
        self._first = None
        if unit == "steps":
            self._ends = _ENDS_WITH_STEPS
        self._tell(Values(total=total, unit=unit, percent=self._percent(0, total)))

    def advance(self, count: int) -> None:
        """Some units of the stage are done."""
        completed = self._values.completed + count
        changed = {
            "completed": completed,
            "percent": self._percent(completed, self._values.total),
            "remaining_seconds": self._remaining(completed, self._values.total),
        }
        self._tell(self._values.model_copy(update=changed))

    def _remaining(self, completed: int, total: int) -> int | None:
        """Seconds until the stage is done, at its pace since the first units; None while it has none.

        The first units do not count: they hold what happens once (a model warms up), and what an earlier pod had done.
        """
        now = self._clock()
        began, already = self._first = self._first or (now, completed)
        if completed <= already or not total:
            return None
        return round(max(0, total - completed) * (now - began) / (completed - already))

    def _percent(self, completed: int, total: int) -> int:
        stages, ends = list(self._ends), self._ends
        before = ends[stages[max(0, stages.index(self.stage) - 1)]] if self.stage is not Stage.STARTING else 0
        share = 1.0 if self.stage is Stage.DONE else min(1.0, completed / total) if total else 0.0
        return max(self._values.percent, int(before + share * (ends[self.stage] - before)))

    def _tell(self, values: Values) -> None:
        self._values = values
        for reporter in self._reporters:
            reporter.report(self.stage, values)


class BarReporter:
    """A progress bar on the terminal."""

    def __init__(self, console: Console) -> None:
        self._bar = Bar(
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

    def report(self, stage: Stage, values: Values) -> None:
        """Redraw."""
        self._bar.update(
            self._task,
            description=stage.value,
            completed=values.completed,
            total=values.total or None,
            unit=values.unit,
            percent=values.percent,
            left=_left(values.remaining_seconds),
        )

    def close(self) -> None:
        """Take the bar off the screen."""
        self._bar.stop()


def _left(seconds: int | None) -> str:
    """For people: how long the stage will still take."""
    return "" if seconds is None else f"{timedelta(seconds=seconds)} left"


class LogReporter:
    """A line in the log at each new stage and each tenth percent."""

    def __init__(self) -> None:
        self._last: tuple[Stage, int] | None = None

    def report(self, stage: Stage, values: Values) -> None:
        """Log if there is news."""
        if (stage, values.percent // 10) != self._last:
            self._last = (stage, values.percent // 10)
            logger.info(
                "progress",
                extra={
                    "stage": stage.value,
                    "percent": values.percent,
                    "completed": values.completed,
                    "total": values.total,
                    "remaining_seconds": values.remaining_seconds,
                },
            )

    def close(self) -> None:
        """Nothing to do."""


class PushReporter:
    """Posts ProgressUpdates to the operator from a thread of its own, at most one a second.

    The token is read anew each time: the kubelet rotates it. The first failure is logged, later ones are not.
    """

    def __init__(self, url: str, token_file: Path, run: RunIdentity, mlflow: Callable[[], MlflowStatus | None]) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"not an HTTP URL: {url}")
        self._url = url
        self._token_file = token_file
        self._run = run
        self._mlflow = mlflow
        self._latest: tuple[Stage, Values] | None = None
        self._changed = threading.Event()
        self._closed = threading.Event()
        self._failed = False
        self._thread = threading.Thread(target=self._work, name="progress", daemon=True)
        self._thread.start()

    def report(self, stage: Stage, values: Values) -> None:
        """Note the newest state for the thread."""
        self._latest = (stage, values)
        self._changed.set()

    def close(self) -> None:
        """Push the last state, waiting for it no longer than one request may take."""
        self._closed.set()
        self._changed.set()
        self._thread.join(2 * _PUSH_TIMEOUT)

    def _work(self) -> None:
        while not self._closed.is_set():
            self._changed.wait()
            self._changed.clear()
            self._push()
            self._closed.wait(_PUSH_SECONDS)
        self._push()

    def _push(self) -> None:
        if self._latest is None:
            return
        stage, values = self._latest
        update = ProgressUpdate(run=self._run, stage=stage, progress=values, mlflow=self._mlflow())
        try:
            self._post(json.dumps(update.to_json_object()).encode())
        except (OSError, urllib.error.URLError) as error:
            if not self._failed:
                logger.warning("progress cannot be pushed to %s: %s", self._url, error)
            self._failed = True

    def _post(self, body: bytes) -> None:
        token = self._token_file.read_text().strip()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        request = urllib.request.Request(self._url, body, headers, method="POST")  # noqa: S310 - checked above
        with urllib.request.urlopen(request, timeout=_PUSH_TIMEOUT):  # noqa: S310
            pass
