"""Experiment trackers: told early that a run has begun, and at the end what came of it.

Tracking never delays the work: ``begin`` returns at once, and whatever the server needs is done in a thread
of its own. Only ``finish`` waits, after everything is stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from anomaly_api.status import MlflowStatus


@dataclass(frozen=True)
class TrackedResult:
    """What a finished run tells its tracker. ``files``: folder in the run's artifacts and file on this machine."""

    metrics: Mapping[str, float]
    files: tuple[tuple[str, Path], ...]


class Tracker(Protocol):
    """A place that keeps a run's parameters, metrics and artifacts."""

    def begin(self, parameters: Mapping[str, str]) -> None:
        """The run has begun; returns at once."""

    def status(self) -> MlflowStatus | None:
        """The run in the tracker, once it exists."""

    def finish(self, result: TrackedResult) -> None:
        """Write results and end the run.

        Raises:
            TrackingUnavailable: the server does not answer, after retries.
        """

    def fail(self, message: str) -> None:
        """The run failed: say so if the server answers; never raises."""


class NoTracker:
    """For runs that nobody tracks."""

    def begin(self, parameters: Mapping[str, str]) -> None:
        """Nothing to do."""

    def status(self) -> MlflowStatus | None:
        """Nowhere."""
        return None

    def finish(self, result: TrackedResult) -> None:
        """Nothing to do."""

    def fail(self, message: str) -> None:
        """Nothing to do."""
