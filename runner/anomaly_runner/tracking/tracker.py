"""The protocol of experiment trackers: a run starts, logs metrics while it trains, and finishes with its results.

Tracking never delays a run's stages: ``start`` and ``log_metrics`` return without waiting for the server. ``check``
waits for its first answer, once, so that a refusal ends the run before the training; ``finish`` waits after all results
are stored.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from anomaly_api import GROUP
from anomaly_api.run import ModelManifest
from anomaly_api.status import MlflowStatus

MetricHistory = Mapping[str, Sequence[tuple[int, float]]]
"""Logged values by the metric's name: pairs of step and value."""


@dataclass(frozen=True, kw_only=True)
class TrackedDataset:
    """The images that a run has read.

    Attributes:
        name: the dataset's category, or else its address.
        digest: SHA-256 over paths and contents, hexadecimal.
        kind: s3, persistentVolumeClaim or builtin.
        uri: location of the images.
        images: numbers of images, by the names of ``ImageCounts``.
        context: use of the images.
    """

    name: str
    digest: str
    kind: str
    uri: str
    images: Mapping[str, int]
    context: Literal["training", "inference"]


@dataclass(frozen=True, kw_only=True)
class TrackedResult:
    """The results that a finished run logs.

    Attributes:
        metrics: final values by name.
        artifacts: pairs of folder in the tracker and file on this machine; the model's files are in ``MODEL_FOLDER``.
        history: metrics of the training's steps.
        dataset: the images, if they were read.
        model: the trained model, if all of its files are among the artifacts.
        tags: tags to set in addition to those of the start.
        failed: whether the run has failed although it has results.
    """

    metrics: Mapping[str, float]
    artifacts: tuple[tuple[str, Path], ...]
    history: MetricHistory = field(default_factory=dict)
    dataset: TrackedDataset | None = None
    model: ModelManifest | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    failed: bool = False


MODEL_FOLDER = "model"
"""Folder of the trained model among a run's artifacts."""
FAILURE_TAG = f"{GROUP}/failure"
"""Tag with the message of a run that failed."""


class Tracker(Protocol):
    """A service that stores a run's parameters, metrics and artifacts."""

    def start(self, parameters: Mapping[str, str]) -> None:
        """Start the run, without waiting for the server."""

    def check(self, still_wanted: Callable[[], None]) -> None:
        """Wait for the server's first answer to ``start``, but not for a server that does not answer.

        Args:
            still_wanted: called while waiting; may raise to end the wait.

        Raises:
            TrackingDenied: it refuses the account, the experiment, the parameters or artifacts.
        """

    def probe(self, still_wanted: Callable[[], None]) -> str | None:
        """Ask the server whether it would take the run, without creating anything.

        Args:
            still_wanted: as for ``check``.

        Returns:
            Why the server does not answer; None if it does.

        Raises:
            TrackingDenied: it refuses the account or the experiment.
        """

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log metrics of one step of the training, without waiting for the server."""

    def status(self) -> MlflowStatus | None:
        """Identity of the run in the tracker; None until it exists there."""

    def finish(self, result: TrackedResult) -> None:
        """Log the results and end the run, as finished or as failed.

        Raises:
            TrackingDenied: the server refuses.
            TrackingUnavailable: the server does not answer, after retries.
            StorageUnavailable: the disk of this machine is full.
            InternalError: a fault of this program.
        """

    def fail(self, message: str, *, stopped: bool = False) -> None:
        """Mark the run as failed, or as stopped by somebody, if the server answers; never raises."""


class NoTracker:
    """The tracker of runs that are not tracked."""

    def start(self, parameters: Mapping[str, str]) -> None:
        """Nothing to do."""

    def check(self, still_wanted: Callable[[], None]) -> None:
        """Nothing to do."""

    def probe(self, still_wanted: Callable[[], None]) -> str | None:
        """Nothing to ask."""
        return None

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing to do."""

    def status(self) -> MlflowStatus | None:
        """Return None: the run is not tracked."""
        return None

    def finish(self, result: TrackedResult) -> None:
        """Nothing to do."""

    def fail(self, message: str, *, stopped: bool = False) -> None:
        """Nothing to do."""
