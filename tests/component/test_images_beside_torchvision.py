"""Resizing and normalisation give the same results as torchvision."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from anomaly_runner.data.images import decode, to_input

RAMP = np.linspace(0, 255, 64 * 48).reshape(48, 64).round().astype(np.uint8)


@pytest.fixture
def image() -> Image.Image:
    """A grey ramp in colours, decoded from PNG."""
    buffer = BytesIO()
    Image.fromarray(RAMP).convert("RGB").save(buffer, "PNG")
    return decode(buffer.getvalue(), RAMP.size).image


def pixels_of(image: Image.Image) -> torch.Tensor:
    """Pixels (3, H, W), uint8."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def test_normalisation_equals_torchvision(image: Image.Image) -> None:
    scaled = pixels_of(image).float() / 255
    expected = functional.normalize(scaled, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]).numpy()
    assert np.array_equal(to_input(image, 48, 64, "imagenet"), expected)


@pytest.mark.parametrize("size", [(24, 32), (96, 128), (37, 51)])
def test_resizing_equals_torchvisions_antialiased_bilinear_within_one_grey_level(
    size: tuple[int, int], image: Image.Image
) -> None:
    expected = functional.resize(pixels_of(image), list(size), antialias=True).numpy() / 255
    assert np.abs(to_input(image, *size, "none") - expected).max() <= 1.01 / 255


def small(noise: int) -> Image.Image:
    """An 8-bit image of 28 x 28 pixels, the first of MNIST's sizes, with every grey level next to every other."""
    return Image.fromarray(np.random.default_rng(noise).integers(0, 256, (28, 28), np.uint8))


@pytest.mark.parametrize("size", [(224, 224), (32, 40), (20, 14)])
def test_8_bit_images_are_within_a_grey_level_of_the_exact_interpolation(size: tuple[int, int]) -> None:
    """Which is what anomalib computes, that scales to 0..1 first."""
    image = small(1)
    exact = functional.resize(torch.from_numpy(np.asarray(image)[None] / np.float32(255)), list(size), antialias=True)
    found = to_input(image, *size, "none")
    assert 0 < np.abs(found - exact.numpy()).max() <= 1.01 / 255
    assert np.array_equal(found[0], found[1])


@pytest.mark.parametrize("size", [(224, 224), (32, 40), (20, 14)])
def test_deep_images_are_interpolated_exactly(size: tuple[int, int]) -> None:
    pixels = np.asarray(small(2), np.float32) / np.float32(255)
    exact = functional.resize(torch.from_numpy(pixels[None]), list(size), antialias=True).numpy()
    assert np.abs(to_input(Image.fromarray(pixels), *size, "none") - exact).max() < 1e-5
