"""Random augmentation of training images: flips, a rotation, brightness and contrast.

The augmentation of an image depends only on the seed, the epoch and the image's key, not on the order of reading, the
threads or the batch. A run that is resumed at an epoch therefore gets the same images as an uninterrupted one.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.transforms import Augmentations


@dataclass(frozen=True)
class Augmenter:
    """Augments the images of one epoch.

    Attributes:
        spec: limits of the augmentations.
        seed: of the run.
        epoch: number of the epoch, from 0.
    """

    spec: Augmentations
    seed: int
    epoch: int

    def __call__(self, image: Image.Image, key: str) -> Image.Image:
        """Augment one image; ``key`` is its key in the dataset."""
        key_hash = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
        return augment(image, self.spec, np.random.default_rng((self.seed, self.epoch, key_hash)))


def augment(image: Image.Image, spec: Augmentations, rng: np.random.Generator) -> Image.Image:
    """Change an image at random; size and mode stay the same.

    Args:
        image: mode RGB, L, or F with values of 0..1.
        spec: limits of the augmentations.
        rng: generator that five numbers are drawn from.
    """
    # All numbers are drawn for any spec, so that one setting does not change the effect of another.
    horizontal, vertical, turn, brightness, contrast = rng.random(5)
    if horizontal < spec.horizontal_flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if vertical < spec.vertical_flip:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if spec.rotation_degrees:
        image = rotate(image, _scale(turn, spec.rotation_degrees))
    if spec.brightness or spec.contrast:
        image = _adjust(image, 1 + _scale(brightness, spec.brightness), 1 + _scale(contrast, spec.contrast))
    return image


def _scale(draw: float, limit: float) -> float:
    """Map a number in 0..1 to -limit..limit."""
    return (2 * draw - 1) * limit


def rotate(image: Image.Image, degrees: float) -> Image.Image:
    """Rotate an image counter-clockwise about its centre (bilinear), and fill the corners with mirrored pixels.

    Black corners would look like anomalies.
    """
    diagonal = math.hypot(*image.size)
    left, top = (math.ceil((diagonal - side) / 2) + 1 for side in image.size)
    wider = _pad_mirrored(image, left, top).rotate(degrees, Image.Resampling.BILINEAR)
    return wider.crop((left, top, left + image.width, top + image.height))


def _pad_mirrored(image: Image.Image, left: int, top: int) -> Image.Image:
    pixels = np.asarray(image)
    margins = [(top, top), (left, left), (0, 0)][: pixels.ndim]
    return Image.fromarray(np.pad(pixels, margins, mode="symmetric"))


def _adjust(image: Image.Image, brightness: float, contrast: float) -> Image.Image:
    """Multiply pixels by ``brightness``, then their distance from the mean by ``contrast``, and clip them."""
    white = 1.0 if image.mode == "F" else 255.0
    pixels: NDArray[np.float32] = np.asarray(image, np.float32) * np.float32(brightness)
    mean = pixels.mean()
    changed = np.clip(mean + (pixels - mean) * np.float32(contrast), 0, white)
    return Image.fromarray(changed if image.mode == "F" else (changed + 0.5).astype(np.uint8))
