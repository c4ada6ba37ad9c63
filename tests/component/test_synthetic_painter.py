"""Painted defects: where they are, that nothing else changes, and that seed and key alone decide."""

from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.dataset import SyntheticDefects
from anomaly_runner.errors import InvalidConfig
from anomaly_runner.training.synthetic_painter import SyntheticPainter
from support.textures import texture

SPEC = SyntheticDefects()
KEYS = [f"val/good/{index}.png (synthetic defect 0)" for index in range(6)]


def image(mode: Literal["RGB", "L", "F"] = "RGB") -> Image.Image:
    if mode == "F":
        return Image.fromarray(np.asarray(texture(0).convert("L"), np.float32) / 255)
    return texture(0).convert(mode)


def pixels(shown: Image.Image) -> NDArray[np.float32]:
    return np.asarray(shown, np.float32)


@pytest.mark.parametrize("mode", ["RGB", "L", "F"])
def test_only_the_pixels_of_the_defect_change(mode: Literal["RGB", "L", "F"]) -> None:
    given = image(mode)
    before = pixels(given).copy()
    for key in KEYS:
        painted, defect = SyntheticPainter(SPEC, 42)(given, key)
        assert (painted.mode, painted.size) == (mode, given.size)
        assert defect.shape == (given.height, given.width)
        assert 0 < defect.mean() < 0.5
        changed = np.abs(pixels(painted) - before)
        changed = changed.max(-1) if mode == "RGB" else changed
        # Rounding apart, nothing changes elsewhere; most pixels of a defect are seen to change.
        assert changed[~defect].max() <= (0 if mode != "F" else 1e-6)
        assert (changed[defect] > (1 if mode != "F" else 1 / 255)).mean() > 0.5
    assert np.array_equal(pixels(given), before)


def test_seed_and_key_alone_decide_also_with_many_threads() -> None:
    painter, given = SyntheticPainter(SPEC, 42), image()
    one_by_one = [painter(given, key) for key in KEYS]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda key: SyntheticPainter(SPEC, 42)(given, key), reversed(KEYS)))[::-1]
    for (first, defect), (again, same) in zip(one_by_one, together, strict=True):
        assert np.array_equal(pixels(first), pixels(again))
        assert np.array_equal(defect, same)
    others = [SyntheticPainter(SPEC, 43)(given, key)[1] for key in KEYS]
    assert not any(np.array_equal(defect, other) for (_, defect), other in zip(one_by_one, others, strict=True))


def test_the_run_s_own_random_numbers_stay_the_same() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    SyntheticPainter(SPEC, 42)(image(), KEYS[0])
    assert torch.equal(torch.rand(3), expected)


def test_opacity_is_that_of_the_spec() -> None:
    faint = SyntheticPainter(SyntheticDefects(min_opacity=0.01, max_opacity=0.02), 42)(image(), KEYS[0])[0]
    strong = SyntheticPainter(SyntheticDefects(min_opacity=0.99, max_opacity=1.0), 42)(image(), KEYS[0])[0]
    assert np.abs(pixels(faint) - pixels(image())).max() <= 0.02 * 255 + 1
    assert np.abs(pixels(strong) - pixels(image())).max() > 30


def test_nothing_is_painted_outside_of_the_valid_area() -> None:
    valid = np.zeros((64, 64), bool)
    valid[:, :20] = True
    for key in KEYS:
        painted, defect = SyntheticPainter(SPEC, 42, valid)(image(), key)
        assert defect.any()
        assert not defect[:, 20:].any()
        assert np.array_equal(pixels(painted)[:, 20:], pixels(image())[:, 20:])


def test_an_area_without_room_for_a_defect_is_named() -> None:
    with pytest.raises(InvalidConfig, match=r"the valid area .* is too small"):
        SyntheticPainter(SPEC, 42, np.zeros((64, 64), bool))(image(), KEYS[0])
