"""Pictures of gravel with painted defects and their masks, for the samples that segment.

Each picture is a piece of scikit-image's photograph of gravel, cut out at a random place and rotated by a random
multiple of 90 degrees. Defects are scratches (bright lines) and stains (dark blots). The same arguments always give the
same files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

SIDE = 128
# Pixels at each edge that valid_area.png excludes.
BORDER = 4


@dataclass(frozen=True)
class Counts:
    """Number of pictures in each folder."""

    train: int = 40
    validation: int = 6
    test: int = 10
    unknown: int = 4


def write_gravel(destination: Path, counts: Counts = Counts()) -> None:
    """Write train/good, val and test with good, scratch and stain, test/unknown, ground_truth and valid_area.png."""
    numbers = iter(range(10_000))
    _write_good(destination / "train/good", [next(numbers) for _ in range(counts.train)])
    for part, masks, count in (("val", "ground_truth/val", counts.validation), ("test", "ground_truth", counts.test)):
        _write_good(destination / part / "good", [next(numbers) for _ in range(count)])
        for kind in ("scratch", "stain"):
            folders = destination / part / kind, destination / masks / kind
            _write_defects(kind, *folders, [next(numbers) for _ in range(count)])
    _write_defects("scratch", destination / "test/unknown", None, [next(numbers) for _ in range(counts.unknown)])
    _valid_area().save(destination / "valid_area.png")


def write_good_gravel(destination: Path, count: int = 200) -> None:
    """Write train/good and nothing else: the good parts that most lines begin with."""
    _write_good(destination / "train/good", list(range(20_000, 20_000 + count)))


def gravel(number: int) -> Image.Image:
    """Return a piece of gravel without defects: RGB, SIDE x SIDE pixels; `number` is the random seed."""
    import skimage.data

    random = np.random.default_rng(number)
    photograph: NDArray[np.uint8] = skimage.data.gravel()
    row, column = random.integers(0, 512 - SIDE, 2)
    pixels = np.rot90(photograph[row : row + SIDE, column : column + SIDE], int(random.integers(4)))
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


def defective(kind: str, number: int) -> tuple[Image.Image, Image.Image]:
    """Return a piece with a scratch or a stain, and its single-channel mask: 255 where the defect is, else 0."""
    random = np.random.default_rng(number)
    mask = Image.new("L", (SIDE, SIDE))
    canvas = ImageDraw.Draw(mask)
    places = [int(value) for value in random.integers(20, SIDE - 20, 4)]
    if kind == "scratch":
        canvas.line(places, fill=255, width=4)
    else:
        radius = int(random.integers(6, 14))
        canvas.ellipse((places[0] - radius, places[1] - radius, places[0] + radius, places[1] + radius // 2), fill=255)
    paint = Image.new("RGB", (SIDE, SIDE), (235, 235, 225) if kind == "scratch" else (35, 25, 20))
    soft = mask.filter(ImageFilter.GaussianBlur(0.7))
    return Image.composite(paint, gravel(number), soft), mask


def _write_good(folder: Path, numbers: list[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        gravel(number).save(folder / f"{number:03d}.png")


def _write_defects(kind: str, folder: Path, masks: Path | None, numbers: list[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        image, mask = defective(kind, number)
        image.save(folder / f"{number:03d}.png")
        if masks:
            masks.mkdir(parents=True, exist_ok=True)
            mask.save(masks / f"{number:03d}_mask.png")


def _valid_area() -> Image.Image:
    area = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(area).rectangle((BORDER, BORDER, SIDE - 1 - BORDER, SIDE - 1 - BORDER), fill=255)
    return area
