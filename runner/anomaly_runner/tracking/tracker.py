"""Experiment trackers: told early that a run has begun, then how training goes, and at the end what came of it.

Tracking never delays the work: ``start`` and ``log_metrics`` return at once, and whatever the server needs is done in a
thread of its own. Only ``finish`` waits, after everything is stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from anomaly_api import GROUP
from anomaly_api.run import ModelManifest
from anomaly_api.status import MlflowStatus

MetricHistory = Mapping[str, Sequence[tuple[int, float]]]
"""Values by name: (step, value)."""


@dataclass(frozen=True, kw_only=True)
class TrackedDataset:
    """The images that a run has seen.

    ``digest``: SHA-256 over their paths and contents. ``kind``: s3, persistentVolumeClaim or builtin. ``images``:
    how many of each sort.
    """

    name: str
    digest: str
    kind: str
    uri: str
    images: Mapping[str, int]
    context: Literal["training", "inference"]


@dataclass(frozen=True, kw_only=True)
class TrackedResult:
    """What a finished run tells its tracker.

    ``files``: folder in the run's artifacts and file on this machine; the trained model's are in ``MODEL_FOLDER``.
    ``model``: that model, if all of it is among the files. ``tags``: what the run found out about itself.
    ``failed``: whether it has failed although there are results.
    """

    metrics: Mapping[str, float]
    files: tuple[tuple[str, Path], ...]
    history: MetricHistory = field(default_factory=dict)
    dataset: TrackedDataset | None = None
    model: ModelManifest | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    failed: bool = False


MODEL_FOLDER = "model"
FAILURE_TAG = f"{GROUP}/failure"


class Tracker(Protocol):
    """A place that keeps a run's parameters, metrics and artifacts."""

    def start(self, parameters: Mapping[str, str]) -> None:
        """The run has begun; returns at once."""

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Values of a training that goes on; returns at once."""

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

    def start(self, parameters: Mapping[str, str]) -> None:
        """Nothing to do."""

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing to do."""

    def status(self) -> MlflowStatus | None:
        """Nowhere."""
        return None

    def finish(self, result: TrackedResult) -> None:
        """Nothing to do."""

    def fail(self, message: str) -> None:
        """Nothing to do."""
