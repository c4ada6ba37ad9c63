"""Image files to pixels and to the model's input, the same in training and in inference (Pillow and numpy only).

Depths: 8-bit images of any colour model become RGB; 16-bit grey is scaled by its full range (65535 is 1.0,
so the pictures of a 12-bit camera stay dark, and stay comparable); float images hold 0..1. What Pillow's own
``convert("RGB")`` would clip to white is refused instead.

Files are hostile: only the formats of cameras are opened, the size is read from the header before anything is
decoded, and a file that breaks off is a fault of the file, never half an image.
"""

import struct
import zlib
from io import BytesIO
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from anomaly_api.dataset import CropArea

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".jp2")
"""Names that count as images; everything else in a folder is ignored."""
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")
_FLOAT_TOLERANCE = 1e-3
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, IndexError, KeyError, OverflowError,
           TypeError)  # fmt: skip
"""What Pillow's decoders raise on damaged files."""

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

Image.MAX_IMAGE_PIXELS = None  # the limit is the dataset's own, checked in decode()


class UnreadableImageError(Exception):
    """This file is not an image that can be used; ``str()`` says why."""


def decode(data: bytes, max_pixels: int, crop: CropArea | None = None) -> Image.Image:
    """An image file's bytes as an image of mode RGB (8 bits a channel), or F (grey, 0..1) where depth is higher.

    Raises:
        UnreadableImageError: not an image, damaged, larger than ``max_pixels``, of an unknown depth, or smaller
            than the crop.
    """
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            _check_size(image, max_pixels)
            image.load()
            return _cropped(_standard(image), crop)
    except UnreadableImageError:
        raise
    except _BROKEN as error:
        raise UnreadableImageError(_problem(error)) from error


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise UnreadableImageError(f"{image.width} x {image.height} pixels are more than maxImagePixels {max_pixels}")


def _problem(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    return f"damaged file: {error}"[:200]


def _standard(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        return _unit_range(np.asarray(image, np.float32), 1.0)
    if image.mode.startswith("I"):  # I;16 in its byte orders, and I, which Pillow also uses for 16 bits
        return _unit_range(np.asarray(image).astype(np.float32), 65535.0)
    return image.convert("RGBA").convert("RGB") if image.mode in ("PA", "P") else image.convert("RGB")


def _unit_range(values: NDArray[np.float32], full: float) -> Image.Image:
    scaled = values / np.float32(full)
    low, high = float(scaled.min()), float(scaled.max())
    if not (low >= -_FLOAT_TOLERANCE and high <= 1 + _FLOAT_TOLERANCE):  # also catches NaN
        kind = "float" if full == 1.0 else "32-bit"
        raise UnreadableImageError(f"{kind} values from {low * full:g} to {high * full:g}; expected 0 to {full:g}")
    return Image.fromarray(np.clip(scaled, 0, 1))


def _cropped(image: Image.Image, crop: CropArea | None) -> Image.Image:
    if crop is None:
        return image
    right, bottom = crop.left + crop.width, crop.top + crop.height
    if right > image.width or bottom > image.height:
        raise UnreadableImageError(f"{image.width} x {image.height} pixels do not cover cropArea up to "
                                   f"({right}, {bottom})")  # fmt: skip
    return image.crop((crop.left, crop.top, right, bottom))


def to_input(
    image: Image.Image, height: int, width: int, normalization: Literal["imagenet", "none"]
) -> NDArray[np.float32]:
    """The model's input for one image: float32 (3, height, width), RGB.

    Resized by itself (bilinear, antialiased, Pillow's), scaled to 0..1, then normalised.
    """
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = _channels_first(image)
    if normalization == "imagenet":
        pixels -= MEAN[:, None, None]
        pixels /= STD[:, None, None]
    return pixels


def _channels_first(image: Image.Image) -> NDArray[np.float32]:
    if image.mode == "F":
        return np.repeat(np.asarray(image, np.float32)[None], 3, axis=0)
    pixels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)).astype(np.float32)
    pixels /= np.float32(255)
    return pixels


def to_rgb8(image: Image.Image) -> Image.Image:
    """The image as people look at it: 8-bit RGB."""
    if image.mode != "F":
        return image
    return Image.fromarray((np.asarray(image) * 255 + 0.5).astype(np.uint8)).convert("RGB")


def decode_mask(data: bytes, height: int, width: int, max_pixels: int, crop: CropArea | None) -> NDArray[np.bool_]:
    """A ground-truth mask at the model's size (height, width): every pixel that is not black is defective.

    Raises:
        UnreadableImageError: as ``decode``.
    """
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            _check_size(image, max_pixels)
            image.load()
            flat: Any = image if image.mode in ("1", "L") or image.mode.startswith("I") else image.convert("L")
            white = Image.fromarray((np.asarray(flat) > 0).astype(np.uint8) * 255)
            resized = _cropped(white, crop).resize((width, height), Image.Resampling.NEAREST)
            return np.asarray(resized) > 0
    except UnreadableImageError:
        raise
    except _BROKEN as error:
        raise UnreadableImageError(_problem(error)) from error
