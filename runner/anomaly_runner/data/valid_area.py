"""The part of every image that counts: what lies outside is black for the model and in no pixel metric.

The mask is read once, kept at its own size, and scaled to an image's by the nearest pixel. It travels with the
trained model as a file of two grey levels, so that inference ignores what training ignored.
"""

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.dataset import CropArea
from anomaly_runner.data.images import UnreadableImageError, mask_at, open_mask
from anomaly_runner.errors import DataInvalid

FILE = "valid_area.png"
"""Its name beside model.json."""
_SIZES = 8
"""Scaled masks that are kept: data sets have one size of image, or few."""


@dataclass(frozen=True, eq=False)
class ValidArea:
    """A mask of mode 1 at its own size: set where pixels count."""

    mask: Image.Image

    @classmethod
    def read(cls, data: bytes, name: str, max_pixels: int) -> Self:
        """Read an image file; pixels that are not black count.

        Raises:
            DataInvalid: it cannot be read, or everything is black.
        """
        try:
            mask = open_mask(data, max_pixels)
        except UnreadableImageError as error:
            raise DataInvalid(f"validAreaMask {name} cannot be read: {error}") from error
        if mask.getbbox() is None:
            raise DataInvalid(f"validAreaMask {name} is black everywhere, so no pixel would count")
        return cls(mask)

    def at(self, height: int, width: int, crop: CropArea | None) -> NDArray[np.bool_]:
        """The cropped mask at the size of a model's maps, (height, width): true where pixels count.

        Raises:
            DataInvalid: the crop leaves the mask, or leaves nothing of it.
        """
        try:
            valid = mask_at(self.mask, height, width, crop)
        except UnreadableImageError as error:
            raise DataInvalid(f"validAreaMask: {error}") from error
        if not valid.any():
            raise DataInvalid("validAreaMask is black everywhere inside cropArea, so no pixel would count")
        return valid

    def blacken(self, image: Image.Image, *, exactly: bool) -> Image.Image:
        """The image (mode RGB, L or F) with black where pixels do not count.

        Args:
            image: a whole image.
            exactly: refuse an image of another size than the mask's, because a crop will be cut out of both.

        Raises:
            UnreadableImageError: it has another size and should not.
        """
        if exactly and image.size != self.mask.size:
            raise UnreadableImageError(
                f"{image.width} x {image.height} pixels, but validAreaMask, which cropArea cuts "
                f"too, has {self.mask.width} x {self.mask.height}"
            )
        result = image.copy()
        result.paste((0, 0, 0) if image.mode == "RGB" else 0, mask=_ignored(self, image.size))
        return result

    def to_png(self) -> bytes:
        """The mask as the file that travels with a model."""
        buffer = BytesIO()
        self.mask.save(buffer, "PNG")
        return buffer.getvalue()


@lru_cache(_SIZES)
def _ignored(area: ValidArea, size: tuple[int, int]) -> Image.Image:
    """Where an image of this size (width, height) is ignored."""
    return Image.fromarray(~np.asarray(area.mask.resize(size, Image.Resampling.NEAREST)))
