"""The result of stage train, and the count of the images that a model has learnt from."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from anomaly_api.run import TrainingReport
from anomaly_runner.context import Context
from anomaly_runner.data.batches import Batch
from anomaly_runner.errors import DataInvalid
from anomaly_runner.models.base import ScoringModel


class ResumableState(Protocol):
    """State of a training that outlives the pod, so that another pod can continue the run."""

    def preserved(self) -> AbstractContextManager[None]:
        """Store the newest state if the run is stopped inside this block."""

    def discard(self) -> None:
        """Delete what was stored; called once the run is published."""


class NoResumableState:
    """The state of models that are fitted in one pass: none, so that a stopped run starts again from the beginning."""

    def preserved(self) -> AbstractContextManager[None]:
        """Store nothing."""
        return nullcontext()

    def discard(self) -> None:
        """Nothing was stored."""


@dataclass(frozen=True)
class TrainedModel:
    """A fitted model and a report of its training."""

    model: ScoringModel
    image_count: int
    """Number of training images that the model has learnt from."""
    report: TrainingReport | None = None
    """Epochs, steps and metrics of a training by gradient; None for models that are fitted in one pass."""
    state: ResumableState = field(default_factory=NoResumableState)
    """To be preserved during all stages that follow the training."""

    @property
    def pruned(self) -> TrainingReport | None:
        """The report of a training that the operator has ended; None if it has not."""
        return self.report if self.report is not None and self.report.pruned is not None else None


class CountedBatches:
    """Batches on their way to a model; counts their images and reports progress as they are used."""

    def __init__(self, batches: Iterable[Batch], context: Context) -> None:
        self._batches, self._context = batches, context
        self.image_count = 0
        """Number of images used so far."""

    def batches(self) -> Iterator[Batch]:
        """Iterate over the batches; a batch counts once the next one is asked for.

        Raises:
            Stopped: the run was asked to stop.
        """
        for batch in self._batches:
            yield batch
            self.image_count += len(batch.samples)
            self._context.advance(len(batch.samples))

    def images(self) -> Iterator[Tensor]:
        """Iterate over the images of each batch, (B, 3, H, W), float32.

        Raises:
            DataInvalid: fewer than two images were readable; raised after the last batch.
            Stopped: the run was asked to stop.
        """
        for batch in self.batches():
            yield torch.from_numpy(batch.images)
        check_image_count(self.image_count)


def check_image_count(count: int) -> None:
    """Check that there are enough images to learn from.

    Raises:
        DataInvalid: there are fewer than two.
    """
    if count < 2:
        raise DataInvalid(f"only {count} of the training images can be read; at least two are needed")
