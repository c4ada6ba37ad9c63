"""What the process of a trial does: a run like any other, which also tells how far it is and how it ended.

It and the process of the sweep speak through files in one folder. One that comes too late costs a chance, nothing else.
"""

import time
from contextlib import suppress
from pathlib import Path

from anomaly_api.base import Contract
from anomaly_api.run import RunSummary
from anomaly_api.status import Curve, Progress, Stage
from anomaly_runner.context import RunRecord
from anomaly_runner.errors import RunFailed
from anomaly_runner.local import run_config
from anomaly_runner.manifests import read_resource
from anomaly_runner.progress import LogReporter, ProgressReporter
from anomaly_runner.system.orphans import die_with
from anomaly_runner.termination import failure_summary

PROGRESS_FILE = "progress.json"
"""The TrialProgress."""
PRUNE_FILE = "prune.txt"
"""Why the training is to end; there is none if it is to go on."""
SUMMARY_FILE = "summary.json"
"""The RunSummary, whole; there is none if the process was killed."""
_REPORT_SECONDS = 0.5
"""Shortest time between two writes of the progress."""


class TrialProgress(Contract):
    """How far a trial is."""

    stage: Stage | None = None
    """What it is doing."""
    percent: int = 0
    """Percentage of the whole run that is done."""
    curve: Curve | None = None
    """The course of a training by gradient so far."""

    def __str__(self) -> str:
        return f"{self.stage.value} {self.percent} %" if self.stage else ""


def run_trial(file: Path, folder: Path, exchange: Path, parent: int) -> int:
    """Run a trial and return its exit code.

    Args:
        file: its experiment.
        folder: stands for all storage.
        exchange: folder for progress, summary and temporary files.
        parent: process id of the sweep; the trial ends when that ends.
    """
    die_with(parent)
    try:
        config = read_resource(file, folder)
        record = RunRecord()
        reporters: list[ProgressReporter] = [FileReporter(exchange, record), LogReporter()]
        finished = run_config(config, folder, reporters, scratch=exchange, record=record)
        summary, code = finished.summary, int(finished.exit_code)
    except RunFailed as error:
        summary, code = failure_summary(error, Stage.STARTING), int(error.exit_code)
    _replace(exchange / SUMMARY_FILE, summary.model_dump_json(by_alias=True))
    return code


def read_summary(exchange: Path) -> RunSummary | None:
    """Return how a trial ended; None if it did not say."""
    file = exchange / SUMMARY_FILE
    return RunSummary.model_validate_json(file.read_bytes()) if file.is_file() else None


def read_progress(exchange: Path) -> TrialProgress:
    """Return how far a trial is."""
    file = exchange / PROGRESS_FILE
    return TrialProgress.model_validate_json(file.read_bytes()) if file.is_file() else TrialProgress()


def prune(exchange: Path, why: str) -> None:
    """Ask a trial to end its training."""
    _replace(exchange / PRUNE_FILE, why)


class FileReporter:
    """Writes how far the run is, and looks whether its training is to end.

    Args:
        exchange: the folder.
        record: of the run.
    """

    def __init__(self, exchange: Path, record: RunRecord) -> None:
        self._exchange = exchange
        self._record = record
        self._last = 0.0

    def report(self, stage: Stage, progress: Progress) -> None:
        """Write the state, unless the last one is very young."""
        if time.monotonic() - self._last < _REPORT_SECONDS:
            return
        self._last = time.monotonic()
        told = TrialProgress(stage=stage, percent=progress.percent, curve=self._record.curve)
        with suppress(OSError):
            _replace(self._exchange / PROGRESS_FILE, told.model_dump_json())
            if (self._exchange / PRUNE_FILE).is_file():
                self._record.prune((self._exchange / PRUNE_FILE).read_text(encoding="utf-8"))

    def close(self) -> None:
        """Nothing to do."""


def _replace(file: Path, text: str) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
