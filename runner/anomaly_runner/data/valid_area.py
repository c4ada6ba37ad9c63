"""The valid area of all images: pixels outside of it are black for the model and count in no pixel metric.

The mask is read once, kept at its own size, and scaled to each image's size by nearest-neighbour interpolation. It is
published with the trained model as a black-and-white image, so that inference ignores the same area as training.
"""

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.dataset import CropArea
from anomaly_runner.data.images import UnreadableImageError
from anomaly_runner.data.mask_files import has_same_aspect, open_mask, resize_mask
from anomaly_runner.errors import DataInvalid

FILE = "valid_area.png"
"""Name of the mask's file beside model.json."""
_CACHED_SIZES = 8
"""Number of scaled masks kept in memory: the images of a dataset have one size or a few."""


@dataclass(frozen=True, eq=False)
class ValidArea:
    """The valid area.

    ``mask``: mode 1, at its own size, set where pixels count. ``lossy``: whether its file was stored with loss.
    """

    mask: Image.Image
    lossy: bool = False

    @classmethod
    def read(cls, data: bytes, name: str, max_pixels: int) -> Self:
        """Read the mask from an image file; pixels that are not black count.

        Args:
            data: the file.
            name: of the file, for messages.
            max_pixels: largest width x height that is decoded.

        Raises:
            DataInvalid: the mask cannot be read, or is black everywhere.
        """
        try:
            file = open_mask(data, max_pixels)
        except UnreadableImageError as error:
            raise DataInvalid(f"validAreaMask {name} cannot be read: {error}") from error
        if file.pixels.getbbox() is None:
            raise DataInvalid(f"validAreaMask {name} is black everywhere, so no pixel would count")
        return cls(file.pixels, file.lossy)

    def warnings(self, name: str) -> tuple[str, ...]:
        """What to tell about its file of this name."""
        told = {
            "is stored with loss (as JPEG): half of white or more counts": self.lossy,
            "has no black pixel, so that nothing is ignored": bool(np.asarray(self.mask).all()),
        }
        return tuple(f"validAreaMask {name} {text}" for text, applies in told.items() if applies)

    def at(self, height: int, width: int, crop: CropArea | None) -> NDArray[np.bool_]:
        """Crop the mask and scale it to the size of a model's maps: (height, width), true where pixels count.

        Raises:
            DataInvalid: the crop is larger than the mask, or leaves nothing of the valid area.
        """
        try:
            valid = resize_mask(self.mask, height, width, crop)
        except UnreadableImageError as error:
            raise DataInvalid(f"validAreaMask: {error}") from error
        if not valid.any():
            raise DataInvalid("validAreaMask is black everywhere inside cropArea, so no pixel would count")
        return valid

    def blacken(self, image: Image.Image, *, exactly: bool) -> Image.Image:
        """Copy an image (mode RGB, L or F) with black where pixels do not count.

        Args:
            image: a whole image.
            exactly: refuse an image of another size than the mask's; needed if both are cropped by the same pixels.

        Raises:
            UnreadableImageError: the image has another size although ``exactly`` is set, or another aspect ratio.
        """
        if exactly and image.size != self.mask.size:
            raise UnreadableImageError(
                f"{image.width} x {image.height} pixels, but validAreaMask, which cropArea cuts "
                f"too, has {self.mask.width} x {self.mask.height}"
            )
        if not has_same_aspect(self.mask.size, image.size):
            raise UnreadableImageError(
                f"{image.width} x {image.height} pixels do not have the aspect ratio of "
                f"validAreaMask's {self.mask.width} x {self.mask.height}"
            )
        result = image.copy()
        result.paste(0, mask=_ignored(self, image.size))
        return result

    def to_png(self) -> bytes:
        """Encode the mask as PNG, for publishing it with a model."""
        buffer = BytesIO()
        self.mask.save(buffer, "PNG")
        return buffer.getvalue()


@lru_cache(_CACHED_SIZES)
def _ignored(area: ValidArea, size: tuple[int, int]) -> Image.Image:
    """Mask of the ignored pixels of an image of ``size`` (width, height), in mode 1."""
    return Image.fromarray(~np.asarray(area.mask.resize(size, Image.Resampling.NEAREST)))
