"""Random changes of training images: flips, a rotation, brightness and contrast.

What happens to an image depends on the seed, the epoch and the image's key alone: not on the order of reading, the
threads or the batch. A run that is resumed at an epoch sees what an uninterrupted one would have seen.
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
    """The changes of one epoch."""

    spec: Augmentations
    seed: int
    epoch: int

    def __call__(self, image: Image.Image, key: str) -> Image.Image:
        """The image as this epoch shows it; the key is the image's in the dataset."""
        place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
        return augment(image, self.spec, np.random.default_rng((self.seed, self.epoch, place)))


def augment(image: Image.Image, spec: Augmentations, random: np.random.Generator) -> Image.Image:
    """A randomly changed image of the same size and mode.

    Every number is drawn whatever the spec, so that one setting does not change what another one does.

    Args:
        image: mode RGB, L, or F with values of 0..1.
        spec: how much may change.
        random: the source of chance.
    """
    horizontal, vertical, turn, brightness, contrast = random.random(5)
    if horizontal < spec.horizontal_flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if vertical < spec.vertical_flip:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if spec.rotation_degrees:
        image = rotated(image, _spread(turn, spec.rotation_degrees))
    if spec.brightness or spec.contrast:
        image = _relit(image, 1 + _spread(brightness, spec.brightness), 1 + _spread(contrast, spec.contrast))
    return image


def _spread(draw: float, limit: float) -> float:
    """A number drawn from 0..1 as one from -limit..limit."""
    return (2 * draw - 1) * limit


def rotated(image: Image.Image, degrees: float) -> Image.Image:
    """The image turned about its centre (bilinear), its corners filled by mirroring: a black corner is an anomaly.

    Positive angles turn counter-clockwise.
    """
    diagonal = math.hypot(*image.size)
    left, top = (math.ceil((diagonal - side) / 2) + 1 for side in image.size)
    wider = _mirrored(image, left, top).rotate(degrees, Image.Resampling.BILINEAR)
    return wider.crop((left, top, left + image.width, top + image.height))


def _mirrored(image: Image.Image, left: int, top: int) -> Image.Image:
    pixels = np.asarray(image)
    margins = [(top, top), (left, left), (0, 0)][: pixels.ndim]
    return Image.fromarray(np.pad(pixels, margins, mode="symmetric"))


def _relit(image: Image.Image, brightness: float, contrast: float) -> Image.Image:
    """Pixels times ``brightness``, then their distance from the mean times ``contrast``, within the range."""
    white = 1.0 if image.mode == "F" else 255.0
    pixels: NDArray[np.float32] = np.asarray(image, np.float32) * np.float32(brightness)
    mean = pixels.mean()
    changed = np.clip(mean + (pixels - mean) * np.float32(contrast), 0, white)
    return Image.fromarray(changed if image.mode == "F" else (changed + 0.5).astype(np.uint8))
