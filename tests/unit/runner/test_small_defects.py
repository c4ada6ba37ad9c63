"""Defects that vanish at the model's size are counted, and the size that is proposed keeps them."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import label

from anomaly_runner.data.mask_files import resize_mask
from anomaly_runner.data.small_defects import DefectCounts, Defects, find_defects

SIZE = (32, 48)


def dots(*places: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Return a mask of 320 x 480 with squares: top, left and side of each."""
    mask = np.zeros((320, 480), np.bool_)
    for top, left, side in places:
        mask[top : top + side, left : left + side] = True
    return mask


def lost_by_hand(mask: NDArray[np.bool_], size: tuple[int, int]) -> int:
    """Scale each region by itself, and count those of which nothing is left."""
    regions, count = label(mask, structure=np.ones((3, 3), int))
    return sum(not resize_mask(Image.fromarray(regions == index), *size, None).any() for index in range(1, count + 1))


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (dots(), Defects(0)),
        (dots((0, 0, 40)), Defects(1)),
        (dots((5, 5, 1)), Defects(1)),  # pixels are taken at 5, 15, 25 ...
        (dots((6, 6, 9)), Defects(1, 1, (36, 54))),
        (dots((6, 6, 1), (100, 100, 20)), Defects(2, 1, (320, 480))),
        (dots((6, 6, 4), (26, 46, 2)), Defects(2, 2, (160, 240))),
    ],
)
def test_defects_that_fall_between_the_pixels_are_counted(mask: NDArray[np.bool_], found: Defects) -> None:
    assert find_defects(mask, SIZE) == found
    assert lost_by_hand(mask, SIZE) == found.lost


@pytest.mark.parametrize("seed", range(20))
def test_the_size_that_is_proposed_keeps_every_defect(seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = (int(random.integers(40, 200)), int(random.integers(40, 200)))
    noise = np.kron(random.random((shape[0] // 3 + 1, shape[1] // 4 + 1)) < 0.02, np.ones((3, 4), bool))
    mask = noise[: shape[0], : shape[1]] & (random.random(shape) < 0.9)
    found = find_defects(mask, (16, 16))
    assert found.lost == lost_by_hand(mask, (16, 16)) > 0
    assert lost_by_hand(mask, found.needed) == 0
    assert find_defects(mask, found.needed).lost == 0
    larger = (found.needed[0] + 7, found.needed[1] + 13)
    assert lost_by_hand(mask, larger) == 0


def test_what_is_told() -> None:
    counts = DefectCounts({"a": Defects(3), "b": Defects(2, 1, (100, 200)), "c": Defects(4, 2, (300, 10))})
    (told,) = counts.warnings((64, 96))
    assert told == (
        "3 defects of 9 vanish at inputSize 64 x 96 (height x width), so that no pixel metric sees them; "
        "320 x 224 would keep them"
    )
    assert DefectCounts({"a": Defects(3)}).warnings((64, 96)) == ()
    (told,) = DefectCounts({"a": Defects(1, 1, (8000, 10))}).warnings((64, 96))
    assert told.endswith("8000 x 32, which is too large: cut the images by cropArea")
