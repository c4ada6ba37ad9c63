"""Pictures of gravel as PNG files, with scratches on half of the test pictures."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def write_pictures(root: Path, train: int, test: int, side: int) -> None:
    """Write train/good, test/good and test/scratch below a folder, of ``side`` x ``side`` pixels."""
    for folder in ("train/good", "test/good", "test/scratch"):
        (root / folder).mkdir(parents=True)
    for index in range(train):
        picture(index, side).save(root / f"train/good/{index:04d}.png")
    for index in range(test):
        kind = "scratch" if index % 2 else "good"
        image = picture(10_000 + index, side)
        if kind == "scratch":
            _scratch(image, index)
        image.save(root / f"test/{kind}/{index:04d}.png")


def picture(number: int, side: int) -> Image.Image:
    """Return a piece of scikit-image's photograph of gravel, RGB; ``number`` is the random seed."""
    import skimage.data

    photograph = skimage.data.gravel()
    row, column = np.random.default_rng(number).integers(0, len(photograph) - side, 2)
    return Image.fromarray(photograph[row : row + side, column : column + side]).convert("RGB")


def _scratch(image: Image.Image, number: int) -> None:
    ends = [int(value) for value in np.random.default_rng(number).integers(image.width // 8, image.width * 7 // 8, 4)]
    ImageDraw.Draw(image).line(ends, fill=(255, 255, 255), width=max(2, image.width // 40))
