"""Ignored pixels are black for the model at every image size, and excluded from maps."""

from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.dataset import CropArea
from anomaly_runner.data.images import UnreadableImageError
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.data.valid_area import ValidArea
from anomaly_runner.errors import DataInvalid
from support.optional import not_none

LIMIT = 1_000_000
CROP = CropArea(left=4, top=2, width=8, height=6)


def png(array: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def border(height: int = 12, width: int = 16, thickness: int = 3) -> NDArray[np.uint8]:
    """Return a white mask with a black border."""
    mask = np.zeros((height, width), np.uint8)
    mask[thickness:-thickness, thickness:-thickness] = 255
    return mask


def valid_area(mask: NDArray[np.uint8] | None = None) -> ValidArea:
    return ValidArea.read(png(border() if mask is None else mask), "valid.png", LIMIT)


def preprocessor(crop: CropArea | None = None) -> Preprocessor:
    return Preprocessor(height=24, width=32, normalization="none", crop=crop, valid_area=valid_area())


@pytest.mark.parametrize("factor", [1, 2, 5])
def test_every_size_of_image_is_blackened_where_the_mask_is(factor: int) -> None:
    pixels = np.full((12 * factor, 16 * factor, 3), 200, np.uint8)
    seen = np.asarray(preprocessor().decode(png(pixels), LIMIT).image)
    expected = np.kron(border(), np.ones((factor, factor), np.uint8))[..., None] > 0
    assert np.array_equal(seen, np.where(expected, pixels, 0))


def test_deep_images_keep_their_depth() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (12, 16)).astype(np.uint16)
    seen = np.asarray(preprocessor().decode(png(values), LIMIT).image)
    expected = np.where(border() > 0, values.astype(np.float32) / np.float32(65535), 0)
    assert seen.dtype == np.float32
    assert np.array_equal(seen, expected)


def test_maps_count_the_same_pixels() -> None:
    assert np.array_equal(not_none(preprocessor().valid), np.kron(border(), np.ones((2, 2))) > 0)
    assert Preprocessor(height=24, width=32, normalization="none").valid is None


def test_the_crop_cuts_image_and_mask_alike() -> None:
    cropped = preprocessor(CROP)
    seen = np.asarray(cropped.decode(png(np.full((12, 16, 3), 200, np.uint8)), LIMIT).image)
    assert np.array_equal(seen[..., 0] > 0, border()[2:8, 4:12] > 0)
    assert np.array_equal(not_none(cropped.valid), np.kron(border()[2:8, 4:12], np.ones((4, 4))) > 0)


def test_with_a_crop_the_sizes_must_agree() -> None:
    with pytest.raises(UnreadableImageError, match=r"32 x 24 pixels, but validAreaMask.*16 x 12"):
        preprocessor(CROP).decode(png(np.zeros((24, 32, 3), np.uint8)), LIMIT)


def test_an_image_of_another_aspect_ratio_is_refused() -> None:
    with pytest.raises(UnreadableImageError, match=r"12 x 16 pixels do not have the aspect ratio of.*16 x 12"):
        preprocessor().decode(png(np.zeros((16, 12, 3), np.uint8)), LIMIT)


def test_an_area_that_is_stored_with_loss_is_cut_at_half_of_white() -> None:
    buffer = BytesIO()
    Image.fromarray(np.kron(border(), np.ones((8, 8), np.uint8))).save(buffer, "JPEG", quality=70)
    area = ValidArea.read(buffer.getvalue(), "valid.jpg", LIMIT)
    assert area.lossy
    assert np.array_equal(area.at(12, 16, None), border() > 0)
    assert area.warnings("valid.jpg") == (
        "validAreaMask valid.jpg is stored with loss (as JPEG): half of white or more counts",
    )


def test_an_area_that_ignores_nothing_is_told() -> None:
    """As a label map whose background is 1."""
    numbered = np.where(border() > 0, 2, 1).astype(np.uint8)
    assert valid_area(numbered).warnings("a.png") == (
        "validAreaMask a.png has no black pixel, so that nothing is ignored",
    )
    assert valid_area().warnings("a.png") == ()


def test_it_travels_as_a_file() -> None:
    again = ValidArea.read(valid_area().to_png(), "valid_area.png", LIMIT)
    assert np.array_equal(again.at(12, 16, None), border() > 0)


@pytest.mark.parametrize(
    ("data", "problem"),
    [(b"no image", "valid.png cannot be read: not an image"), (png(np.zeros((4, 4), np.uint8)), "black everywhere")],
)
def test_masks_that_cannot_be_used(data: bytes, problem: str) -> None:
    with pytest.raises(DataInvalid, match=problem):
        ValidArea.read(data, "valid.png", LIMIT)


@pytest.mark.parametrize(
    ("crop", "problem"),
    [
        (CropArea(left=0, top=0, width=17, height=2), "validAreaMask: 16 x 12 pixels do not cover"),
        (CropArea(left=0, top=0, width=2, height=2), "black everywhere inside cropArea"),
    ],
)
def test_crops_that_leave_nothing(crop: CropArea, problem: str) -> None:
    with pytest.raises(DataInvalid, match=problem):
        valid_area().at(24, 32, crop)
