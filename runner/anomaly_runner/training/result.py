"""What a training answers, and how the images that it learns from are counted."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from anomaly_api.run import TrainingReport
from anomaly_runner.context import Context
from anomaly_runner.data.batches import Batch
from anomaly_runner.errors import DataInvalid
from anomaly_runner.models.base import ScoringModel


@dataclass(frozen=True)
class Trained:
    """A fitted model, how many images it learnt from, and for a training by gradient its course."""

    model: ScoringModel
    images: int
    report: TrainingReport | None = None
    kept: Callable[[], AbstractContextManager[None]] = nullcontext
    """Around everything after the training: keeps it for another pod if the run is stopped."""
    forget: Callable[[], None] = lambda: None
    """Called once the run is published: what was kept for a stopped run is not needed any more."""


class CountedBatches:
    """Images on their way to a model, counted as they are used."""

    def __init__(self, batches: Iterable[Batch], context: Context) -> None:
        self._batches, self._context = batches, context
        self.seen = 0

    def batches(self) -> Iterator[Batch]:
        """The batches."""
        for batch in self._batches:
            yield batch
            self.seen += len(batch.samples)
            self._context.advance(len(batch.samples))

    def images(self) -> Iterator[Tensor]:
        """Images (B, 3, H, W) to learn from.

        Raises:
            DataInvalid: fewer than two of them were readable.
        """
        for batch in self.batches():
            yield torch.from_numpy(batch.images)
        check_count(self.seen)


def check_count(images: int) -> None:
    """Raise DataInvalid if there is too little to learn from."""
    if images < 2:
        raise DataInvalid(f"only {images} of the training images can be read; at least two are needed")
