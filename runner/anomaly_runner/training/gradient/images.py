"""Training and validation images as Lightning's data: decoded once, shuffled each epoch, the same for the same seed.

Decoded inputs lie in a nameless file, which memory can let go of, so that an epoch costs no decoding and the memory
does not grow with the images. Augmented images are made anew each epoch.
"""

import math
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray

from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import Sample
from anomaly_runner.system.scratch import allocate_array

Augmented = Callable[[Sequence[Sample], int, int], Iterator[Batch]]
"""Batches of the samples in this order, augmented for an epoch: (samples, epoch, batch size)."""


@dataclass(frozen=True)
class DecodedImages:
    """Readable images: samples, and inputs (N, 3, H, W), float32, with the open file that they lie in, if any."""

    samples: tuple[Sample, ...]
    inputs: NDArray[np.float32]
    descriptor: int | None = None

    @classmethod
    def opened(cls, samples: tuple[Sample, ...], size: tuple[int, int], descriptor: int) -> Self:
        """Images that another process has decoded."""
        with os.fdopen(descriptor, "rb") as file:
            inputs: NDArray[np.float32] = np.memmap(file, np.float32, "r", shape=(len(samples), 3, *size))
        return cls(samples, inputs)

    def batch(self, rows: Sequence[int]) -> Batch:
        """Some of the images, in this order."""
        return Batch(tuple(self.samples[row] for row in rows), self.inputs[list(rows)])


def decode_all(batches: Iterable[Batch], expected: int, size: tuple[int, int], work: Path) -> DecodedImages:
    """Keep every readable image; ``expected`` at most.

    Raises:
        StorageUnavailable: the disk has no room for them.
    """
    with tempfile.TemporaryFile(dir=work) as file:
        inputs = allocate_array(file, (max(expected, 1), 3, *size))
        descriptor = os.dup(file.fileno())
    weakref.finalize(inputs, os.close, descriptor)
    samples: list[Sample] = []
    for batch in batches:
        inputs[len(samples) : len(samples) + len(batch.samples)] = batch.images
        samples.extend(batch.samples)
    return DecodedImages(tuple(samples), inputs[: len(samples)], descriptor)


@dataclass(frozen=True)
class Share:
    """What one of several devices takes of each training step: every ``devices``-th image, from the ``rank``-th on."""

    rank: int = 0
    devices: int = 1

    def of(self, order: Sequence[int], batch_size: int) -> list[int]:
        """Its images of an epoch, ``batch_size // devices`` a step.

        The last step may have fewer images than there are devices: who gets none takes one all the same, which
        counts for nothing, because all devices take part in each step.
        """
        own = list(order[self.rank :: self.devices])
        missing = math.ceil(len(order) / batch_size) - math.ceil(len(own) / (batch_size // self.devices))
        return own + [order[-1]] * missing

    def weight(self, images: int) -> float:
        """What its mean over its own images of a step counts for in the mean of all devices' means."""
        return len(range(self.rank, images, self.devices)) * self.devices / images


class Batches:
    """One pass over images as anomalib's batches; a new pass each time it is iterated."""

    def __init__(self, count: int, batch_size: int, make: Callable[[], Iterator[Batch]]) -> None:
        self._count, self._batch_size, self._make = count, batch_size, make

    def __len__(self) -> int:
        return math.ceil(self._count / self._batch_size)

    def __iter__(self) -> Iterator[Any]:
        return map(as_anomalib, self._make())


def as_anomalib(batch: Batch) -> Any:
    """A batch as anomalib's modules take it; masks are empty: those that train on masks simulate the defects.

    Images of unknown kind are labelled as defects: EfficientAD calibrates itself on the good ones.
    """
    from anomalib.data import ImageBatch

    images = torch.from_numpy(np.ascontiguousarray(batch.images))
    labels = torch.tensor([sample.defect is not False for sample in batch.samples])
    masks = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
    return ImageBatch(image=images, gt_label=labels, gt_mask=masks, image_path=[found.key for found in batch.samples])


class ImageData(LightningDataModule):  # type: ignore[misc]
    """What the Trainer and, where they look for it, anomalib's modules find their images by."""

    def __init__(
        self,
        training: DecodedImages,
        validation: DecodedImages,
        *,
        seed: int,
        train_batch_size: int,
        eval_batch_size: int,
        augmented: Augmented | None = None,
    ) -> None:
        super().__init__()
        self.train_batch_size = train_batch_size
        self._eval_batch_size = eval_batch_size
        self._training, self._validation = training, validation
        self._seed, self._augmented = seed, augmented
        self.share = Share()
        """Of each training step, which a callback of several devices sets when all of them have seen all images."""

    @property
    def training_samples(self) -> tuple[Sample, ...]:
        """The training images, in the order of their paths."""
        return self._training.samples

    def some_training_images(self, count: int) -> NDArray[np.float32]:
        """The first training images (count, 3, H, W)."""
        return np.ascontiguousarray(self._training.inputs[:count])

    @property
    def training_count(self) -> int:
        """How many they are."""
        return len(self._training.samples)

    @property
    def training_descriptor(self) -> int | None:
        """Of the file that their inputs lie in, for other processes."""
        return self._training.descriptor

    @property
    def validation_samples(self) -> tuple[Sample, ...]:
        """The validation images, in their order."""
        return self._validation.samples

    def train_dataloader(self) -> Batches:
        """The training images in the epoch's order, or this device's share of them."""
        return Batches(len(self._training.samples), self.train_batch_size, self._shuffled)

    def val_dataloader(self) -> Batches:
        """The validation images in their own order."""
        return Batches(len(self._validation.samples), self._eval_batch_size, self._in_order)

    def _in_order(self) -> Iterator[Batch]:
        return _cut(self._validation, range(len(self._validation.samples)), self._eval_batch_size)

    def _shuffled(self) -> Iterator[Batch]:
        # a generator: Lightning makes the iterator before it counts the epoch that a checkpoint is taken up at
        epoch = self.trainer.current_epoch if self.trainer else 0
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._training.samples))
        rows, step = self.share.of(order.tolist(), self.train_batch_size), self.train_batch_size // self.share.devices
        if self._augmented is None:
            yield from _cut(self._training, rows, step)
        else:
            yield from self._augmented([self._training.samples[row] for row in rows], epoch, step)


def _cut(images: DecodedImages, order: Sequence[int], size: int) -> Iterator[Batch]:
    return (images.batch(order[start : start + size]) for start in range(0, len(order), size))
