"""Training and validation images as a LightningDataModule: decoded once, in an order set by seed and epoch alone.

Decoded images are in an unnamed file that is mapped into memory, so that an epoch decodes nothing and memory does not
grow with the number of images. Augmented images are read and decoded again in each epoch.
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
from anomaly_runner.system.parallel import one_ahead
from anomaly_runner.system.scratch import allocate_array

ReadAugmented = Callable[[Sequence[Sample], int, int], Iterator[Batch]]
"""Reads batches of samples, in the given order, augmented for an epoch; takes (samples, epoch, batch size)."""


@dataclass(frozen=True)
class DecodedImages:
    """Readable images as the model's input."""

    samples: tuple[Sample, ...]
    inputs: NDArray[np.float32]
    """Model input of the N samples, (N, 3, H, W)."""
    descriptor: int | None = None
    """Descriptor of the open file that holds the inputs; None where other processes need no access to it."""

    @classmethod
    def from_descriptor(cls, samples: tuple[Sample, ...], size: tuple[int, int], descriptor: int) -> Self:
        """Map the images that another process has decoded into memory.

        Args:
            samples: one for each image.
            size: rows and columns of an image.
            descriptor: of the open file, inherited from that process; closed here.
        """
        with os.fdopen(descriptor, "rb") as file:
            inputs: NDArray[np.float32] = np.memmap(file, np.float32, "r", shape=(len(samples), 3, *size))
        return cls(samples, inputs)

    def batch(self, rows: Sequence[int]) -> Batch:
        """Copy the images with these indices, in this order."""
        return Batch(tuple(self.samples[row] for row in rows), self.inputs[list(rows)])


def decode_all(batches: Iterable[Batch], expected: int, size: tuple[int, int], work: Path) -> DecodedImages:
    """Collect the images of all batches in a file.

    Args:
        batches: readable images, decoded as they are iterated over.
        expected: largest number of images.
        size: rows and columns of an image.
        work: folder for the file.

    Raises:
        StorageUnavailable: the disk has no room for the images.
    """
    with tempfile.TemporaryFile(dir=work) as file:
        inputs = allocate_array(file, (max(expected, 1), 3, *size))
        descriptor = os.dup(file.fileno())  # for the processes of other devices, while the array lives
    weakref.finalize(inputs, os.close, descriptor)
    samples: list[Sample] = []
    for batch in batches:
        inputs[len(samples) : len(samples) + len(batch.samples)] = batch.images
        samples.extend(batch.samples)
    return DecodedImages(tuple(samples), inputs[: len(samples)], descriptor)


@dataclass(frozen=True)
class BatchPartition:
    """The part of each batch that one process trains on: every ``world_size``-th image, beginning with ``rank``.

    Like torch's DistributedSampler, but for each batch: images are repeated only where a process would have none, and
    ``loss_weight`` is the weight of each part in the mean over the batch.
    """

    rank: int = 0
    world_size: int = 1

    def rows(self, order: Sequence[int], batch_size: int) -> list[int]:
        """This process's images of an epoch, ``batch_size // world_size`` of each batch.

        The last batch may have fewer images than there are processes. A process that would get no image gets one with
        weight 0, because all processes take part in each step.

        Args:
            order: indices of all images of the epoch.
            batch_size: images in a step, on all devices together.
        """
        own = list(order[self.rank :: self.world_size])
        missing = math.ceil(len(order) / batch_size) - math.ceil(len(own) / (batch_size // self.world_size))
        return own + [order[-1]] * missing

    def loss_weight(self, batch_size: int) -> float:
        """Factor of this process's mean loss that makes the mean over all processes the mean over the batch.

        Args:
            batch_size: images in this batch, on all devices together.
        """
        return len(range(self.rank, batch_size, self.world_size)) * self.world_size / batch_size


class BatchLoader:
    """A DataLoader of anomalib's batches without worker processes; every iteration is a new pass.

    Args:
        count: images in a pass.
        batch_size: images in a step, on all devices together.
        read: starts a pass.
        for_gpu: whether batches are copied to a GPU: they are then made one ahead, and in pinned memory, from which
            Lightning copies them without waiting.
    """

    def __init__(
        self, count: int, batch_size: int, read: Callable[[], Iterator[Batch]], *, for_gpu: bool = False
    ) -> None:
        self._count, self._batch_size, self._read, self._for_gpu = count, batch_size, read, for_gpu

    def __len__(self) -> int:
        return math.ceil(self._count / self._batch_size)

    def __iter__(self) -> Iterator[Any]:
        return one_ahead(map(to_pinned, self._read())) if self._for_gpu else map(to_anomalib, self._read())


def to_pinned(batch: Batch) -> Any:
    """Convert to anomalib's ImageBatch as ``to_anomalib``, with images, labels and masks in pinned memory."""
    converted = to_anomalib(batch)
    for name in ("image", "gt_label", "gt_mask"):
        setattr(converted, name, getattr(converted, name).pin_memory())
    return converted


def to_anomalib(batch: Batch) -> Any:
    """Convert to anomalib's ImageBatch: images (B, 3, H, W), labels (B,), masks (B, H, W).

    Masks are empty, because models that train on masks simulate the defects. Images without a label are marked as
    defective, because EfficientAD calibrates itself on all good ones.
    """
    from anomalib.data import ImageBatch

    images = torch.from_numpy(np.ascontiguousarray(batch.images))
    labels = torch.tensor([sample.defect is not False for sample in batch.samples])
    masks = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
    return ImageBatch(image=images, gt_label=labels, gt_mask=masks, image_path=[sample.key for sample in batch.samples])


class ImageDataModule(LightningDataModule):  # type: ignore[misc]
    """Training and validation images for the Trainer, and for modules of anomalib that read their trainer's datamodule.

    Args:
        seed: of the order of the training images in each epoch.
        train_batch_size: images in a step, on all devices together.
        read_augmented: reads the training images of an epoch; None to train on the decoded ones.
        for_gpu: whether batches are copied to a GPU.
    """

    def __init__(
        self,
        training: DecodedImages,
        validation: DecodedImages,
        *,
        seed: int,
        train_batch_size: int,
        eval_batch_size: int,
        read_augmented: ReadAugmented | None = None,
        for_gpu: bool = False,
    ) -> None:
        super().__init__()
        self.train_batch_size = train_batch_size
        self._eval_batch_size = eval_batch_size
        self._training, self._validation = training, validation
        self._seed, self._read_augmented, self._for_gpu = seed, read_augmented, for_gpu
        self.partition = BatchPartition()
        """This process's part of each batch; ``GradientSync`` sets it once the module has prepared on all images."""

    @property
    def training_samples(self) -> tuple[Sample, ...]:
        """The training images, in the order of their paths."""
        return self._training.samples

    def first_training_images(self, count: int) -> NDArray[np.float32]:
        """The first training images, (at most count, 3, H, W)."""
        return np.ascontiguousarray(self._training.inputs[:count])

    @property
    def training_count(self) -> int:
        """Number of training images."""
        return len(self._training.samples)

    @property
    def training_descriptor(self) -> int | None:
        """Descriptor of the file that holds the decoded training images, for the processes of other devices."""
        return self._training.descriptor

    @property
    def validation_samples(self) -> tuple[Sample, ...]:
        """The validation images, in the order of the validation batches."""
        return self._validation.samples

    def train_dataloader(self) -> BatchLoader:
        """This process's part of the training images, in the epoch's order."""
        return BatchLoader(len(self._training.samples), self.train_batch_size, self._epoch, for_gpu=self._for_gpu)

    def val_dataloader(self) -> BatchLoader:
        """The validation images in their own order."""
        count = len(self._validation.samples)
        return BatchLoader(count, self._eval_batch_size, self._in_order, for_gpu=self._for_gpu)

    def _in_order(self) -> Iterator[Batch]:
        return _batches(self._validation, range(len(self._validation.samples)), self._eval_batch_size)

    def _epoch(self) -> Iterator[Batch]:
        # a generator reads the epoch late enough: Lightning makes the iterator before it restores a checkpoint's epoch
        epoch = self.trainer.current_epoch if self.trainer else 0
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._training.samples))
        rows = self.partition.rows(order.tolist(), self.train_batch_size)
        batch_size = self.train_batch_size // self.partition.world_size
        if self._read_augmented is None:
            yield from _batches(self._training, rows, batch_size)
        else:
            yield from self._read_augmented([self._training.samples[row] for row in rows], epoch, batch_size)


def _batches(images: DecodedImages, rows: Sequence[int], batch_size: int) -> Iterator[Batch]:
    return (images.batch(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size))
