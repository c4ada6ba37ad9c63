"""Image files to batches of model input: read, hashed and decoded on several threads, in order.

Every file is opened once. A file that cannot be used is noted in the IntegrityLog and left out of its batch.
"""

import errno
import hashlib
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.dataset import CropArea, DatasetLimits
from anomaly_api.run import UnreadableImage
from anomaly_runner.data.augment import Augmenter
from anomaly_runner.data.folder_layout import check_unreadable
from anomaly_runner.data.images import UnreadableImageError, decode, resized, to_input
from anomaly_runner.data.samples import Sample
from anomaly_runner.data.valid_area import ValidArea
from anomaly_runner.errors import StorageDenied, StorageUnavailable
from anomaly_runner.storage import Prefetcher
from anomaly_runner.system.parallel import ordered_map


@dataclass(frozen=True)
class Preprocessor:
    """What the model wants to see: how an image becomes its input."""

    height: int
    width: int
    normalization: Literal["imagenet", "none"]
    crop: CropArea | None = None
    bit_depth: int | None = None
    valid_area: ValidArea | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    @cached_property
    def valid(self) -> NDArray[np.bool_] | None:
        """Pixels of the model's maps (height, width) that count; None where all do."""
        return self.valid_area.at(self.height, self.width, self.crop) if self.valid_area else None

    def decode(self, data: bytes, max_pixels: int) -> Image.Image:
        """A file as the image that the model is shown, at its own resolution: see ``images.decode``."""
        blacken = partial(self.valid_area.blacken, exactly=self.crop is not None) if self.valid_area else None
        return decode(data, max_pixels, self.crop, bit_depth=self.bit_depth, before_crop=blacken)

    def resize(self, image: Image.Image) -> Image.Image:
        """A decoded image at the model's size, of the same mode: what augmentations change."""
        return resized(image, self.height, self.width)

    def to_input(self, image: Image.Image) -> NDArray[np.float32]:
        """A decoded image of any size as the model's input, (3, height, width)."""
        return to_input(image, self.height, self.width, self.normalization)


@dataclass(frozen=True)
class Batch:
    """Consecutive readable images: samples, and input of shape (B, 3, H, W), float32."""

    samples: tuple[Sample, ...]
    images: NDArray[np.float32]


@dataclass
class IntegrityLog:
    """What reading found out: digests of contents by key, and files that could not be used."""

    limits: DatasetLimits
    digests: dict[str, bytes] = field(default_factory=dict)
    unreadable: list[UnreadableImage] = field(default_factory=list)

    def add_unreadable(self, path: str, problem: str) -> None:
        """Note a file that cannot be used.

        Raises:
            DataInvalid: there are now more of them than the dataset tolerates.
        """
        if any(image.path == path for image in self.unreadable):  # files may be read once an epoch
            return
        self.unreadable.append(UnreadableImage(path=path, problem=problem))
        check_unreadable(self.unreadable, self.limits)

    def extend_unreadable(self, images: Iterable[UnreadableImage]) -> None:
        """Note files that were found unusable before they were opened; raises as ``add_unreadable``."""
        for image in images:
            self.add_unreadable(image.path, image.problem)

    def fingerprint(self) -> str:
        """SHA-256 over the sorted paths and contents of all images read."""
        total = hashlib.sha256()
        for key in sorted(self.digests):
            total.update(key.encode() + b"\0" + self.digests[key])
        return total.hexdigest()


@dataclass(frozen=True)
class _Read:
    sample: Sample
    digest: bytes
    image: NDArray[np.float32] | str
    """The input, or what is wrong with the file."""


def read_file(prefetcher: Prefetcher, key: str) -> bytes:
    """Content of one image file.

    Raises:
        UnreadableImageError: a symbolic link that leads out of the dataset, or not a file.
        StorageDenied: no permission to read it.
        StorageUnavailable: the file system failed.
    """
    path = prefetcher.path(key)
    try:
        if not _is_file(path):  # a pipe would never end, a link to itself never begin
            raise UnreadableImageError("not a file")
        if not _is_inside(path, prefetcher.root):
            raise UnreadableImageError("a symbolic link that leads out of the dataset")
        return path.read_bytes()
    except PermissionError as error:
        raise StorageDenied(f"no permission for {path}") from error
    except OSError as error:
        raise StorageUnavailable(f"cannot read {path}: {error.strerror}") from error


def _is_file(path: Path) -> bool:
    """As ``Path.is_file``, which hides failures of the file system from Python 3.14 on."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return False


def _is_inside(path: Path, root: Path) -> bool:
    return not path.is_symlink() or path.resolve().is_relative_to(root.resolve())


def read_batches(
    prefetcher: Prefetcher,
    samples: Sequence[Sample],
    preprocessor: Preprocessor,
    integrity: IntegrityLog,
    *,
    batch_size: int,
    threads: int,
    augment: Augmenter | None = None,
) -> Iterator[Batch]:
    """Batches of at most ``batch_size`` images in the order of the samples; ``integrity`` fills as they are read.

    ``augment`` changes training images as one epoch wants them.

    Raises:
        DataInvalid: more unreadable images than tolerated.
        RunFailed: the storage failed.
    """
    read = _reader(prefetcher, preprocessor, integrity.limits.max_image_pixels, augment)
    images = ordered_map(read, samples, threads, ahead=batch_size + 2 * threads)
    return _batched(_readable(images, integrity), batch_size)


def _reader(
    prefetcher: Prefetcher, preprocessor: Preprocessor, max_pixels: int, augment: Augmenter | None
) -> Callable[[Sample], _Read]:
    def read(sample: Sample) -> _Read:
        digest = b""
        try:
            data = read_file(prefetcher, sample.key)
            digest = hashlib.sha256(data).digest()
            image = preprocessor.decode(data, max_pixels)
            shown = augment(preprocessor.resize(image), sample.key) if augment else image
            return _Read(sample, digest, preprocessor.to_input(shown))
        except UnreadableImageError as error:
            return _Read(sample, digest, str(error))

    return read


def _readable(images: Iterable[_Read], integrity: IntegrityLog) -> Iterator[tuple[Sample, NDArray[np.float32]]]:
    for read in images:
        integrity.digests[read.sample.key] = read.digest
        if isinstance(read.image, str):
            integrity.add_unreadable(read.sample.key, read.image)
        else:
            yield read.sample, read.image


def _batched(images: Iterable[tuple[Sample, NDArray[np.float32]]], batch_size: int) -> Iterator[Batch]:
    group: list[tuple[Sample, NDArray[np.float32]]] = []
    for item in images:
        group.append(item)
        if len(group) == batch_size:
            yield _batch(group)
            group = []
    if group:
        yield _batch(group)


def _batch(group: Sequence[tuple[Sample, NDArray[np.float32]]]) -> Batch:
    return Batch(tuple(sample for sample, _ in group), np.stack([image for _, image in group]))
