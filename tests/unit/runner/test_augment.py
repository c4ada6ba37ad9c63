"""Augmentations: their effect on a picture, and their reproducibility."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.data import gravel

from anomaly_api.dataset import DatasetLimits
from anomaly_api.transforms import Augmentations
from anomaly_runner.data.augment import Augmenter, augment, rotate
from anomaly_runner.data.batches import IntegrityLog, read_batches
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.data.samples import Sample
from anomaly_runner.storage import FolderStore, start_prefetch

GREY = gravel()[:96, :128]
ALL = Augmentations(horizontal_flip=0.5, vertical_flip=0.5, rotation_degrees=20, brightness=0.3, contrast=0.3)


def picture(mode: str) -> Image.Image:
    return Image.fromarray(GREY.astype(np.float32) / 255) if mode == "F" else Image.fromarray(GREY).convert("RGB")


def augmented(mode: str, seed: int = 0, **spec: Any) -> NDArray[np.generic]:
    return np.asarray(augment(picture(mode), Augmentations(**spec), np.random.default_rng(seed)))


@pytest.mark.parametrize("mode", ["RGB", "F"])
def test_flips(mode: str) -> None:
    original = np.asarray(picture(mode))
    assert np.array_equal(augmented(mode, horizontal_flip=1), original[:, ::-1])
    assert np.array_equal(augmented(mode, vertical_flip=1), original[::-1])
    assert np.array_equal(augmented(mode), original)


def test_grey_changes_as_the_same_image_in_colour() -> None:
    """Equal up to one grey level, because the mean is summed differently."""
    for seed in range(20):
        grey, colour = (
            augment(picture("RGB").convert(mode), ALL, np.random.default_rng(seed)) for mode in ("L", "RGB")
        )
        assert grey.mode == "L"
        assert np.abs(np.asarray(grey)[..., None] - np.asarray(colour, np.int16)).max() <= 1


def test_flips_come_as_often_as_asked() -> None:
    original = np.asarray(picture("RGB"))
    flipped = sum(not np.array_equal(augmented("RGB", seed, horizontal_flip=0.25), original) for seed in range(400))
    assert 75 < flipped < 125


@pytest.mark.parametrize("degrees", [-33.0, 7.5, 90.0])
def test_rotation_is_scipys_with_mirrored_corners(degrees: float) -> None:
    ours = np.asarray(rotate(picture("F"), degrees))
    theirs = ndimage.rotate(GREY.astype(np.float32) / 255, degrees, reshape=False, order=1, mode="reflect")
    assert ours.shape == GREY.shape
    assert np.abs(ours - theirs).mean() < 0.01


def test_rotation_stays_within_its_limit() -> None:
    row = np.zeros((65, 65), np.float32)
    row[32] = 1
    for seed in range(30):
        turned = np.asarray(
            augment(Image.fromarray(row), Augmentations(rotation_degrees=10), np.random.default_rng(seed))
        )
        ys, xs = np.nonzero(turned > 0.5)
        assert abs(np.degrees(np.arctan(np.polyfit(xs, ys, 1)[0]))) <= 10.5


@pytest.mark.parametrize(("mode", "tolerance"), [("F", 1e-6), ("RGB", 1.0)])
def test_light(mode: str, tolerance: float) -> None:
    """As in torchvision, except for its grey mean: brightness first, then contrast about the mean."""
    white = 1.0 if mode == "F" else 255.0
    draws = np.random.default_rng(5).random(5)
    brightness, contrast = 1 + (2 * draws[3] - 1) * 0.4, 1 + (2 * draws[4] - 1) * 0.6
    lit = np.asarray(picture(mode), np.float64) * brightness
    expected = np.clip(lit.mean() + (lit - lit.mean()) * contrast, 0, white)
    assert np.abs(augmented(mode, 5, brightness=0.4, contrast=0.6) - expected).max() <= tolerance


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for index in range(6):
        Image.fromarray(GREY).save(tmp_path / f"{index}.png")
    return tmp_path


def read_images(
    folder: Path, samples: Sequence[Sample], augmenter: Augmenter | None, threads: int = 2
) -> dict[str, NDArray[np.float32]]:
    store = FolderStore(folder)
    prefetcher = start_prefetch(store, store.list(), folder, lambda: None)
    batches = read_batches(
        prefetcher,
        samples,
        Preprocessor(height=48, width=64, normalization="none"),
        IntegrityLog(DatasetLimits()),
        batch_size=2,
        threads=threads,
        augment=augmenter,
    )
    return {sample.key: image for batch in batches for sample, image in zip(batch.samples, batch.images, strict=True)}


def test_an_epoch_repeats_whatever_the_order_and_the_threads(pictures: Path) -> None:
    samples = [Sample(f"{index}.png", "good") for index in range(6)]
    first = read_images(pictures, samples, Augmenter(ALL, 3, 1))
    again = read_images(pictures, samples[::-1], Augmenter(ALL, 3, 1), threads=1)
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert not np.array_equal(first["0.png"], first["1.png"])


@pytest.mark.parametrize(("seed", "epoch"), [(3, 2), (4, 1)])
def test_epochs_and_seeds_differ(pictures: Path, seed: int, epoch: int) -> None:
    samples = [Sample("0.png", "good")]
    first = read_images(pictures, samples, Augmenter(ALL, 3, 1))["0.png"]
    assert not np.array_equal(first, read_images(pictures, samples, Augmenter(ALL, seed, epoch))["0.png"])


def test_without_augmentations_nothing_changes(pictures: Path) -> None:
    plain = read_images(pictures, [Sample("0.png", "good")], None)["0.png"]
    assert np.array_equal(
        plain, read_images(pictures, [Sample("0.png", "good")], Augmenter(Augmentations(), 3, 1))["0.png"]
    )


# At the limits; expected values are by hand


def with_draws(image: Image.Image, draws: Sequence[float], **spec: float) -> NDArray[np.generic]:
    """Augment an image with chosen numbers: for both flips, the turn, brightness and contrast."""
    generator: Any = SimpleNamespace(random=lambda count: np.array(draws)[:count])
    return np.asarray(augment(image, Augmentations.model_validate(spec), generator))


def test_what_never_happens_does_not_happen_by_the_smallest_draw_either() -> None:
    assert np.array_equal(with_draws(picture("RGB"), [0.0] * 5), np.asarray(picture("RGB")))


@pytest.mark.parametrize(
    ("spec", "pixels", "expected"),
    [
        ({"brightness": 1}, [0, 100, 200], [0, 200, 255]),
        ({"contrast": 1}, [0, 100, 200], [0, 100, 255]),
        ({"brightness": 1}, [0.0, 0.25, 0.75], [0.0, 0.5, 1.0]),
        ({"contrast": 1}, [0.0, 0.25, 0.5], [0.0, 0.25, 0.75]),
        ({"contrast": 1}, [0.25, 0.5, 1.0], [0.0, 5 / 12, 1.0]),
    ],
)
def test_light_and_contrast_that_are_doubled_end_at_black_and_white(
    spec: dict[str, float], pixels: list[float], expected: list[float]
) -> None:
    """Contrast doubles the distance from the mean, which is 100, 0.25 and 7/12."""
    image = Image.fromarray(np.array([pixels], np.uint8 if pixels[-1] > 1 else np.float32))
    np.testing.assert_allclose(with_draws(image, [0.5, 0.5, 0.5, 1.0, 1.0], **spec)[0], expected, rtol=1e-6)


@pytest.mark.parametrize("size", [(65, 65), (64, 64), (100, 20), (7, 90)])
@pytest.mark.parametrize("degrees", [-45, 30, 45, 90, 135])
def test_what_is_of_one_colour_stays_so_however_it_is_turned(size: tuple[int, int], degrees: float) -> None:
    assert np.asarray(rotate(Image.new("L", size, 200), degrees)).tolist() == [[200] * size[0]] * size[1]


def test_an_epoch_is_the_one_that_earlier_releases_made() -> None:
    """Or the rest of a run that is resumed after an upgrade would learn from other images."""
    first_bytes = int.from_bytes(hashlib.sha256(b"a.png").digest()[:8], "big")
    expected = augment(picture("RGB"), ALL, np.random.default_rng((3, 1, first_bytes)))
    assert np.array_equal(np.asarray(Augmenter(ALL, 3, 1)(picture("RGB"), "a.png")), np.asarray(expected))
