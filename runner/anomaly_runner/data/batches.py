"""Read, hash and decode image files to batches of model input, on several threads and in order.

Every image is read once, with its mask. An image that cannot be used, or whose mask cannot, is recorded in the
IntegrityLog and left out of its batch.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.dataset import DatasetLimits
from anomaly_api.run import UnreadableImage
from anomaly_runner.data.augment import Augmenter
from anomaly_runner.data.decoded_cache import DecodedImages
from anomaly_runner.data.equal_images import equal_images_warnings
from anomaly_runner.data.files import read_file
from anomaly_runner.data.folder_layout import check_unreadable
from anomaly_runner.data.images import UnreadableImageError
from anomaly_runner.data.masks import KeptMasks, MaskSource, TrueMask
from anomaly_runner.data.notices import Notice, Notices
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.data.small_defects import DefectCounts
from anomaly_runner.storage import Prefetcher
from anomaly_runner.system.parallel import ordered_map

Painter = Callable[[Image.Image, str], tuple[Image.Image, NDArray[np.bool_]]]
"""Paints a defect on an image of the model's size, by the result's key; returns it with the pixels of the defect."""


@dataclass(frozen=True)
class Changes:
    """What happens to an image between its file and the model: see ``read_batches``."""

    augment: Augmenter | None = None
    paint: Painter | None = None

    def apply(
        self, image: Image.Image, sample: Sample, preprocessor: Preprocessor
    ) -> tuple[Image.Image, TrueMask | None]:
        """Change a decoded image; returns it with the pixels of its synthetic defect, if it has one.

        Raises:
            ValueError: nobody paints the defect that it has.
        """
        if sample.source is None:
            return (self.augment(preprocessor.resize(image), sample.key) if self.augment else image), None
        if self.paint is None:
            raise ValueError(f"nothing paints the defect of {sample.key}")
        painted, defect = self.paint(preprocessor.resize(image), sample.key)
        return painted, TrueMask(defect)


@dataclass(frozen=True)
class Batch:
    """B consecutive readable images: their samples, and ``images``, the model's input (B, 3, H, W), float32."""

    samples: tuple[Sample, ...]
    images: NDArray[np.float32]


@dataclass
class IntegrityLog:
    """What a run learns about its files as it reads them.

    Attributes:
        limits: hold the number of unusable files that is tolerated.
        digests: SHA-256 of each image file read, by key; empty bytes for a file that could not be opened.
        unreadable: image files that cannot be used, also because of their mask.
        masks: of the images that were read.
        notices: about files that are used nevertheless.
        defects: in the masks.
    """

    limits: DatasetLimits
    digests: dict[str, bytes] = field(default_factory=dict)
    unreadable: list[UnreadableImage] = field(default_factory=list)
    masks: KeptMasks = field(default_factory=KeptMasks)
    notices: Notices = field(default_factory=Notices)
    defects: DefectCounts = field(default_factory=DefectCounts)

    def warnings(self, size: tuple[int, int], dataset: DatasetIndex) -> tuple[str, ...]:
        """What to tell about the files of a dataset that were read for a model's input of ``size`` (rows, columns)."""
        return (
            *self.notices.warnings(),
            *self.defects.warnings(size),
            *equal_images_warnings(dataset, self.digests),
        )

    def add_unreadable(self, path: str, problem: str) -> None:
        """Record a file that cannot be used; only once, even if it is read several times.

        Raises:
            DataInvalid: there are now more unusable files than the dataset tolerates.
        """
        if any(image.path == path for image in self.unreadable):  # training may read a file in each epoch
            return
        self.unreadable.append(UnreadableImage(path=path, problem=problem))
        check_unreadable(self.unreadable, self.limits)

    def extend_unreadable(self, images: Iterable[UnreadableImage]) -> None:
        """Record files that were refused before they were opened.

        Raises:
            DataInvalid: as ``add_unreadable``.
        """
        for image in images:
            self.add_unreadable(image.path, image.problem)

    def record(self, read: "ReadImage") -> None:
        """Record a file that was read.

        Raises:
            DataInvalid: as ``add_unreadable``.
        """
        self.digests[read.sample.file] = read.digest
        if isinstance(read.image, str):
            self.add_unreadable(read.sample.file, read.image)
            return
        self.notices.add(read.sample.file, read.notices)
        if read.mask is not None:
            self.masks.add(read.sample.key, read.mask.pixels)
            self.notices.extend(read.mask.notices)
            self.defects.found.update(read.mask.defects)

    def fingerprint(self) -> str:
        """SHA-256, hexadecimal, of the paths and contents of all images read, in the order of their paths."""
        total = hashlib.sha256()
        for key in sorted(self.digests):
            total.update(key.encode() + b"\0" + self.digests[key])
        return total.hexdigest()


@dataclass(frozen=True)
class ReadImage:
    """A file after reading.

    Attributes:
        sample: the image.
        digest: SHA-256 of the file; empty bytes if it could not be opened.
        image: the model's input (3, H, W), or the reason why the file or its mask cannot be used.
        mask: what its masks mark; None without masks.
        notices: about the file.
        whole: width and height of the decoded file, before the crop; None if it could not be decoded.
        mode: of the decoded file, as in ``images.Decoded``; empty if it could not be decoded.
    """

    sample: Sample
    digest: bytes
    image: NDArray[np.float32] | str
    mask: TrueMask | None = None
    notices: tuple[Notice, ...] = ()
    whole: tuple[int, int] | None = None
    mode: str = ""


def read_batches(
    prefetcher: Prefetcher,
    samples: Sequence[Sample],
    preprocessor: Preprocessor,
    integrity: IntegrityLog,
    *,
    batch_size: int,
    threads: int,
    augment: Augmenter | None = None,
    paint: Painter | None = None,
    kept: DecodedImages | None = None,
) -> Iterator[Batch]:
    """Yield batches of at most ``batch_size`` images, in the order of the samples.

    Args:
        prefetcher: provides the files.
        samples: images to read.
        preprocessor: converts a file to the model's input.
        integrity: filled as the images are read.
        batch_size: images in a batch; the last batch may have fewer.
        threads: number of images that are decoded at the same time.
        augment: augments training images for one epoch; None for no augmentation.
        paint: paints synthetic defects; needed for samples that have one.
        kept: decoded images of earlier runs; None to decode every file.

    Raises:
        DataInvalid: there are more unreadable images than tolerated.
        RunFailed: the storage failed, or the run was asked to stop.
    """
    change = Changes(augment, paint)
    read = partial(read_image, prefetcher, preprocessor, integrity.limits.max_image_pixels, change, kept=kept)
    images = ordered_map(read, samples, threads, ahead=batch_size + 2 * threads)
    return _batched(_record_and_filter(images, integrity), batch_size)


def read_image(
    prefetcher: Prefetcher,
    preprocessor: Preprocessor,
    max_pixels: int,
    changes: Changes,
    sample: Sample,
    *,
    kept: DecodedImages | None = None,
) -> ReadImage:
    """Read one image and its masks; arguments are those of ``read_batches``.

    Raises:
        RunFailed: the storage failed, or the run was asked to stop.
    """
    digest = b""
    try:
        data = read_file(prefetcher, sample.file)
        digest = hashlib.sha256(data).digest()
        decoded = kept.read(data, digest) if kept else preprocessor.decode(data, max_pixels)
        masks = MaskSource(prefetcher, max_pixels, preprocessor.crop, finds_defects=True)
        mask = masks.read(sample.masks, decoded, preprocessor.size) if sample.masks else None
        image, painted = changes.apply(decoded.image, sample, preprocessor)
        notices = (Notice.MORE_FRAMES,) if decoded.has_more_frames else ()
        pixels = preprocessor.to_input(image)
        return ReadImage(sample, digest, pixels, mask or painted, notices, decoded.whole, decoded.image.mode)
    except UnreadableImageError as error:
        return ReadImage(sample, digest, str(error))


def _record_and_filter(
    images: Iterable[ReadImage], integrity: IntegrityLog
) -> Iterator[tuple[Sample, NDArray[np.float32]]]:
    for read in images:
        integrity.record(read)
        if not isinstance(read.image, str):
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
