"""From an image file to the model's input: decode, blacken outside of the valid area, crop, resize, normalise."""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.dataset import CropArea
from anomaly_runner.data.images import Decoded, decode, resize, to_input
from anomaly_runner.data.valid_area import ValidArea


@dataclass(frozen=True, kw_only=True)
class Preprocessor:
    """Decodes an image file and converts it to the model's input.

    Attributes:
        height: rows of the model's input.
        width: columns of the model's input.
        normalization: see ``images.to_input``.
        crop: the part of each image that is kept; None for the whole image.
        bit_depth: significant bits of 16-bit grey; None for the depth in the file.
        valid_area: pixels outside of it are made black; None for no such area.
    """

    height: int
    width: int
    normalization: Literal["imagenet", "none"]
    crop: CropArea | None = None
    bit_depth: int | None = None
    valid_area: ValidArea | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the model's input."""
        return self.height, self.width

    @cached_property
    def valid(self) -> NDArray[np.bool_] | None:
        """Mask (height, width) of the pixels of the model's maps that count; None for all."""
        return self.valid_area.at(self.height, self.width, self.crop) if self.valid_area else None

    def decode(self, data: bytes, max_pixels: int) -> Decoded:
        """Decode a file at its own resolution, blacken all outside of the valid area, and crop; see ``images.decode``.

        Raises:
            UnreadableImageError: as ``images.decode`` and ``ValidArea.blacken``.
        """
        blacken = partial(self.valid_area.blacken, exactly=self.crop is not None) if self.valid_area else None
        return decode(data, max_pixels, self.crop, bit_depth=self.bit_depth, before_crop=blacken)

    def resize(self, image: Image.Image) -> Image.Image:
        """Resize a decoded image to the model's size in the same mode, so that augmentations can be applied to it."""
        return resize(image, self.height, self.width)

    def to_input(self, image: Image.Image) -> NDArray[np.float32]:
        """Turn a decoded image of any size into the model's input, (3, height, width)."""
        return to_input(image, self.height, self.width, self.normalization)
