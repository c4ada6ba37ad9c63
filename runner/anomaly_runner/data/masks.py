"""Ground truth of labelled images at the model's size.

Masks are read with their images, by the same threads, so that a mask that does not fit its image counts against the
dataset's limits like an image that cannot be read. Until they are needed they are kept compressed: a mask takes some
hundred bytes.
"""

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.dataset import CropArea
from anomaly_runner.data.files import read_file
from anomaly_runner.data.images import Decoded, UnreadableImageError
from anomaly_runner.data.mask_files import MaskFile, check_fit, open_mask, place_on_mask, resize_mask
from anomaly_runner.data.notices import Notice
from anomaly_runner.data.samples import Sample
from anomaly_runner.data.small_defects import Defects, find_defects
from anomaly_runner.storage import Prefetcher

MaskReader = Callable[[Sample], NDArray[np.bool_]]
"""Returns the ground truth (H, W) of a labelled sample at the model's size, true where the image is defective.

A good image is defective nowhere, and a defective image without a mask is defective everywhere."""


@dataclass(frozen=True)
class TrueMask:
    """The mask of one image: the pixels (H, W) at the model's size.

    ``notices``, ``defects``: what was noticed about the files, and the defects in them, with their keys.
    """

    pixels: NDArray[np.bool_]
    notices: tuple[tuple[str, Notice], ...] = ()
    defects: tuple[tuple[str, Defects], ...] = ()


@dataclass(frozen=True)
class MaskSource:
    """Reads the masks of images.

    Attributes:
        prefetcher: provides the files.
        max_pixels: largest width x height that is decoded.
        crop: the part of each image that is kept; None for whole images.
        finds_defects: whether to look for defects that vanish at the size that is asked for.
    """

    prefetcher: Prefetcher
    max_pixels: int
    crop: CropArea | None
    finds_defects: bool = False

    def read(self, keys: Sequence[str], image: Decoded, size: tuple[int, int]) -> TrueMask:
        """Read the masks of an image at ``size`` (rows, columns); what any of them marks is defective.

        Raises:
            UnreadableImageError: a mask cannot be read, or has another aspect ratio than the image.
            RunFailed: as ``files.read_file``.
        """
        read = [self._read_one(key, image, size) for key in keys]
        marked = np.logical_or.reduce([mask.pixels for mask in read])
        notices = tuple(notice for mask in read for notice in mask.notices)
        return TrueMask(marked, notices, tuple(found for mask in read for found in mask.defects))

    def _read_one(self, key: str, image: Decoded, size: tuple[int, int]) -> TrueMask:
        try:
            mask = open_mask(read_file(self.prefetcher, key), self.max_pixels)
            check_fit(mask.pixels.size, image.whole)
            pixels = resize_mask(mask.pixels, *size, self.crop, image.whole)
            part = np.asarray(mask.pixels.crop(_whole_pixels(place_on_mask(mask.pixels.size, self.crop, image.whole))))
        except UnreadableImageError as error:
            raise UnreadableImageError(f"its mask {key} cannot be used: {error}") from error
        notices = tuple((key, notice) for notice in _notices(mask, image, part))
        return TrueMask(pixels, notices, ((key, find_defects(part, size)),) if self.finds_defects else ())


def _whole_pixels(box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    left, top, right, bottom = box
    return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)


def _notices(mask: MaskFile, image: Decoded, part: NDArray[np.bool_]) -> Iterator[Notice]:
    """Yield what is to be told of a mask, of which ``part`` is within the crop."""
    is_black = mask.pixels.getbbox() is None
    noticed = {
        Notice.LOSSY_MASK: mask.lossy,
        Notice.SCALED_MASK: mask.pixels.size != image.whole,
        Notice.UPRIGHT_MASK: image.turned and not mask.turned,
        Notice.TURNED_MASK: mask.turned and not image.turned,
        Notice.MORE_FRAMES_MASK: mask.has_more_frames,
        Notice.NO_BLACK_MASK: mask.has_no_black,
        Notice.SHADED_MASK: mask.has_shades,
        Notice.INVERTED_MASK: _marks_border_not_all(mask.pixels),
        Notice.BLACK_MASK: is_black,
        Notice.CROPPED_MASK: not is_black and not part.any(),
    }
    return (notice for notice, applies in noticed.items() if applies)


def _marks_border_not_all(mask: Image.Image) -> bool:
    """Whether the whole border of a mask is set, but not all of it, as where the defect was painted black on white."""
    pixels = np.asarray(mask)
    return all(side.all() for side in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])) and not pixels.all()


@dataclass
class KeptMasks:
    """Masks of the images that were read, by the images' keys, compressed."""

    _packed: dict[str, bytes] = field(default_factory=dict)

    def add(self, key: str, pixels: NDArray[np.bool_]) -> None:
        """Keep the mask (H, W) of an image."""
        self._packed[key] = zlib.compress(np.packbits(pixels).tobytes(), 1)

    def reader(self, size: tuple[int, int]) -> MaskReader:
        """Make a function that returns the masks, which were read at ``size`` (rows, columns)."""

        def read(sample: Sample) -> NDArray[np.bool_]:
            if not sample.has_mask:
                return np.full(size, bool(sample.defect))
            packed = np.frombuffer(zlib.decompress(self._packed[sample.key]), np.uint8)
            return np.unpackbits(packed, count=size[0] * size[1]).reshape(size).view(np.bool_)

        return read
