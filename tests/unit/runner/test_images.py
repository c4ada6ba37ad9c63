"""Every depth and colour model of camera images is read as what it shows; broken files say why."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from anomaly_api.dataset import CropArea
from anomaly_runner.images import UnreadableImageError, decode, decode_mask, to_input, to_rgb8

RAMP = np.linspace(0, 1, 64 * 48, dtype=np.float64).reshape(48, 64)
LIMIT = 1_000_000


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def ramp8(mode: str) -> Image.Image:
    return Image.fromarray((RAMP * 255).round().astype(np.uint8)).convert(mode)


def ramp16() -> Image.Image:
    return Image.fromarray((RAMP * 65535).round().astype(np.uint16))


FILES = {
    "grey png": encoded(ramp8("L")),
    "rgb png": encoded(ramp8("RGB")),
    "rgba png": encoded(ramp8("RGBA")),
    "grey and alpha": encoded(ramp8("LA")),
    "palette": encoded(ramp8("L").convert("P")),
    "bmp": encoded(ramp8("RGB"), "BMP"),
    "tiff": encoded(ramp8("RGB"), "TIFF"),
    "webp": encoded(ramp8("RGB"), "WEBP", lossless=True),
    "16-bit png": encoded(ramp16()),
    "16-bit tiff": encoded(ramp16(), "TIFF"),
    "float tiff": encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
    "cmyk tiff": encoded(ramp8("RGB").convert("CMYK"), "TIFF"),
    "jpeg": encoded(ramp8("RGB"), "JPEG", quality=100),
    "cmyk jpeg": encoded(ramp8("RGB").convert("CMYK"), "JPEG", quality=100),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_shows_the_same_ramp(name):
    tensor = to_input(decode(FILES[name], LIMIT), 48, 64, "none")
    assert tensor.shape == (3, 48, 64)
    assert tensor.dtype == np.float32
    assert np.abs(tensor - RAMP).max() < (0.02 if "jpeg" in name or name == "palette" else 0.005)


def test_16_bits_keep_their_depth():
    """More than 256 levels reach the model."""
    tensor = to_input(decode(FILES["16-bit png"], LIMIT), 48, 64, "none")
    assert len(np.unique(tensor[0])) > 2500


def test_1_bit_images():
    black_and_white = Image.fromarray(RAMP > 0.5)
    tensor = to_input(decode(encoded(black_and_white), LIMIT), 48, 64, "none")
    assert np.array_equal(tensor[0] > 0.5, RAMP > 0.5)


def test_normalisation_is_torchvisions():
    import torch
    from torchvision.transforms.v2 import functional

    image = decode(FILES["rgb png"], LIMIT)
    scaled = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
    expected = functional.normalize(scaled, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]).numpy()
    assert np.array_equal(to_input(image, 48, 64, "imagenet"), expected)


@pytest.mark.parametrize("size", [(24, 32), (96, 128), (37, 51)])
def test_resizing_is_torchvisions_antialiased_bilinear_to_one_level(size):
    import torch
    from torchvision.transforms.v2 import functional

    image = decode(FILES["rgb png"], LIMIT)
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    expected = functional.resize(pixels, list(size), antialias=True).numpy() / 255
    assert np.abs(to_input(image, *size, "none") - expected).max() <= 1.01 / 255


def test_float_images_resize_without_rounding_to_8_bits():
    tensor = to_input(decode(FILES["float tiff"], LIMIT), 24, 32, "none")
    assert np.abs(tensor[0] - RAMP.reshape(24, 2, 32, 2).mean((1, 3))).max() < 0.02
    assert len(np.unique(tensor[0])) == 24 * 32


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not an image"),
        (b"hello, I am a text file with a .png name", "not an image"),
        (FILES["rgb png"][:-200], "damaged"),
        (FILES["jpeg"][: len(FILES["jpeg"]) // 2], "damaged"),
        (FILES["tiff"][:2000], "damaged"),
        (encoded(Image.new("1", (40000, 40000))), "1600000000 pixels|40000 x 40000"),
        (encoded(Image.fromarray(RAMP.astype(np.float32) * 300), "TIFF"), "float values from 0 to 300"),
        (encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"), "float values"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ],
)
def test_files_that_cannot_be_used_say_why(data, problem):
    with pytest.raises(UnreadableImageError, match=problem):
        decode(data, LIMIT)


def test_crop_comes_first():
    crop = CropArea(left=10, top=20, width=30, height=15)
    image = decode(FILES["rgb png"], LIMIT, crop)
    assert image.size == (30, 15)
    assert np.array_equal(np.asarray(image), np.asarray(ramp8("RGB"))[20:35, 10:40])


def test_a_crop_beyond_the_image_is_refused():
    with pytest.raises(UnreadableImageError, match="cropArea"):
        decode(FILES["rgb png"], LIMIT, CropArea(left=50, top=0, width=30, height=10))


def test_what_people_see_of_a_deep_image():
    assert np.abs(np.asarray(to_rgb8(decode(FILES["16-bit png"], LIMIT)), float)[..., 0] / 255 - RAMP).max() < 0.005


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "I;16"])
def test_masks_of_any_depth(mode):
    truth = np.zeros((48, 64), np.uint8)
    truth[10:20, 30:50] = 255
    image = Image.fromarray(truth.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(truth).convert(mode)
    mask = decode_mask(encoded(image), 24, 32, LIMIT, None)
    assert mask.dtype == bool
    assert np.array_equal(mask, truth.reshape(24, 2, 32, 2).max((1, 3)) > 0)


def test_masks_with_small_labels_count():
    """0 and 1 instead of 0 and 255."""
    truth = np.zeros((8, 8), np.uint8)
    truth[2:4, 2:4] = 1
    assert decode_mask(encoded(Image.fromarray(truth)), 8, 8, LIMIT, None).sum() == 4
