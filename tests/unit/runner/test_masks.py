"""Masks are read with their images: those that fit reach the metrics, those that do not count against the limits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from anomaly_api.dataset import CropArea, DatasetLimits
from anomaly_runner.data.batches import IntegrityLog, read_batches
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.data.samples import GOOD, Sample
from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage import Prefetcher

HEIGHT, WIDTH = 96, 128
IMAGE, MASK = "test/scratch/0.png", "ground_truth/scratch/0_mask.png"
SAMPLE = Sample(IMAGE, "scratch", (MASK,))
TRUTH = np.zeros((HEIGHT, WIDTH), np.bool_)
TRUTH[48:72, 64:96] = True


def put(image: Image.Image, file: Path, **options: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, **options)


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def read(
    folder: Path, samples: list[Sample], crop: CropArea | None = None, tolerated: int = 0
) -> tuple[list[str], IntegrityLog]:
    """Read images at the model's size of 48 x 64; returns the keys of those that can be used."""
    log = IntegrityLog(DatasetLimits(max_unreadable_images=tolerated))
    preprocessor = Preprocessor(height=48, width=64, normalization="none", crop=crop)
    batches = read_batches(Prefetcher(folder, lambda: None), samples, preprocessor, log, batch_size=4, threads=2)
    return [sample.key for batch in batches for sample in batch.samples], log


def mask_of(log: IntegrityLog, sample: Sample = SAMPLE) -> NDArray[np.bool_]:
    return log.masks.reader((48, 64))(sample)


def write_pair(folder: Path, mask: Image.Image, **options: Any) -> None:
    """Write an image of 128 x 96, and its mask."""
    put(Image.new("RGB", (WIDTH, HEIGHT), "grey"), folder / IMAGE, **options)
    put(mask, folder / MASK)


def test_masks_are_kept_as_they_are_read(tmp_path: Path) -> None:
    write_pair(tmp_path, Image.fromarray(TRUTH))
    good, unmasked = Sample(IMAGE, GOOD), Sample(IMAGE, "dent")
    keys, log = read(tmp_path, [SAMPLE, good, unmasked])
    assert keys == [IMAGE] * 3
    assert np.array_equal(mask_of(log), TRUTH[::2, ::2])
    assert not mask_of(log, good).any()
    assert mask_of(log, unmasked).all()
    assert log.notices.warnings() == ()


def test_an_image_is_defective_where_any_of_its_masks_is(tmp_path: Path) -> None:
    write_pair(tmp_path, Image.fromarray(TRUTH))
    put(Image.fromarray(TRUTH[::-1]), tmp_path / "second.png")
    _, log = read(tmp_path, [Sample(IMAGE, "scratch", (MASK, "second.png"))])
    assert np.array_equal(mask_of(log), (TRUTH | TRUTH[::-1])[::2, ::2])


def test_a_mask_of_half_the_size_is_scaled_and_named(tmp_path: Path) -> None:
    write_pair(tmp_path, Image.fromarray(TRUTH[::2, ::2]))
    _, log = read(tmp_path, [SAMPLE])
    assert np.array_equal(mask_of(log), TRUTH[::2, ::2])
    (warning,) = log.notices.warnings()
    assert warning.startswith("1 masks have another size than their images")
    assert MASK in warning


def test_the_crop_is_cut_in_the_images_pixels(tmp_path: Path) -> None:
    """The defect is in the lower right quarter, also of a mask that is stored at half the size."""
    write_pair(tmp_path, Image.fromarray(TRUTH[::2, ::2]))
    _, upper = read(tmp_path, [SAMPLE], CropArea(left=0, top=0, width=WIDTH // 2, height=HEIGHT // 2))
    assert not mask_of(upper).any()
    _, lower = read(
        tmp_path, [SAMPLE], CropArea(left=WIDTH // 2, top=HEIGHT // 2, width=WIDTH // 2, height=HEIGHT // 2)
    )
    assert np.array_equal(mask_of(lower), TRUTH[48:, 64:])


def test_a_mask_whose_defects_the_crop_cuts_away_is_named(tmp_path: Path) -> None:
    write_pair(tmp_path, Image.fromarray(TRUTH))
    left, right = (CropArea(left=side, top=0, width=64, height=HEIGHT) for side in (0, 64))
    (warning,) = read(tmp_path, [SAMPLE], left)[1].notices.warnings()
    assert warning.startswith("1 masks mark defects outside of cropArea alone")
    assert warning.endswith(MASK)
    assert read(tmp_path, [SAMPLE], right)[1].notices.warnings() == ()


@pytest.mark.parametrize(("column", "found"), [(4, 0), (5, 1), (9, 1), (10, 0)])
def test_a_defect_at_the_edge_of_the_crop_is_looked_for_in_every_pixel_that_the_crop_touches(
    tmp_path: Path, column: int, found: int
) -> None:
    """The mask has half the image's size: columns 11 to 19 of the image are 5.5 to 9.5 of the mask."""
    mask = np.zeros((HEIGHT // 2, WIDTH // 2), np.bool_)
    mask[10:20, column] = True
    write_pair(tmp_path, Image.fromarray(mask))
    _, log = read(tmp_path, [SAMPLE], CropArea(left=11, top=0, width=8, height=HEIGHT))
    (defects,) = log.defects.found.values()
    assert defects.count == found


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_of_the_image_before_it_is_turned_is_refused_and_named(tmp_path: Path, orientation: int) -> None:
    write_pair(tmp_path, Image.fromarray(TRUTH), exif=oriented(orientation))
    with pytest.raises(DataInvalid, match=rf"{IMAGE}: its mask {MASK}.*128 x 96 pixels.*96 x 128"):
        read(tmp_path, [SAMPLE])


def test_a_refused_mask_counts_against_the_limits_and_its_image_is_left_out(tmp_path: Path) -> None:
    write_pair(tmp_path, Image.fromarray(TRUTH.T))
    put(Image.new("RGB", (WIDTH, HEIGHT)), tmp_path / "test/good/1.png")
    keys, log = read(tmp_path, [SAMPLE, Sample("test/good/1.png", GOOD)], tolerated=1)
    assert keys == ["test/good/1.png"]
    assert [image.path for image in log.unreadable] == [IMAGE]


def test_a_mask_that_cannot_be_read_counts_against_the_limits(tmp_path: Path) -> None:
    write_pair(tmp_path, Image.fromarray(TRUTH))
    (tmp_path / MASK).write_bytes(b"")
    with pytest.raises(DataInvalid, match=rf"its mask {MASK} cannot be used: an empty file"):
        read(tmp_path, [SAMPLE])


@pytest.mark.parametrize(("turned", "told"), [(False, True), (True, False)])
def test_a_mask_without_the_orientation_of_its_image_is_taken_as_upright_and_named(
    tmp_path: Path, turned: bool, told: bool
) -> None:
    """By half a turn, which changes no size."""
    put(Image.new("RGB", (WIDTH, HEIGHT), "grey"), tmp_path / IMAGE, exif=oriented(3))
    mask = Image.fromarray(TRUTH[::-1, ::-1] if turned else TRUTH)
    put(mask, tmp_path / MASK, exif=oriented(3 if turned else 1))
    _, log = read(tmp_path, [SAMPLE])
    assert np.array_equal(mask_of(log), TRUTH[::2, ::2])
    assert any("have no EXIF orientation" in warning for warning in log.notices.warnings()) is told


def test_a_mask_that_is_turned_though_its_image_is_not_is_named(tmp_path: Path) -> None:
    put(Image.new("RGB", (WIDTH, HEIGHT), "grey"), tmp_path / IMAGE)
    put(Image.fromarray(TRUTH), tmp_path / MASK, exif=oriented(3))
    _, log = read(tmp_path, [SAMPLE])
    assert np.array_equal(mask_of(log), TRUTH[::-1, ::-1][::2, ::2])
    (told,) = log.notices.warnings()
    assert told.startswith("1 masks have an EXIF orientation, but their images have none")


def test_masks_with_loss_and_masks_that_mark_nothing_are_named(tmp_path: Path) -> None:
    samples = [Sample(f"{index}.png", "dent", (f"{index}.jpg",)) for index in range(5)]
    for sample in samples:
        put(Image.new("RGB", (WIDTH, HEIGHT), "grey"), tmp_path / sample.key)
        put(Image.new("L", (WIDTH, HEIGHT)), tmp_path / f"{Path(sample.key).stem}.jpg")
    _, log = read(tmp_path, samples)
    lossy, black = log.notices.warnings()
    assert lossy.startswith("5 masks are stored with loss")
    assert lossy.endswith("0.jpg, 1.jpg, 2.jpg, ...")
    assert black.startswith("5 masks of defective images mark nothing")


def test_masks_that_may_be_inverted_are_named(tmp_path: Path) -> None:
    write_pair(tmp_path, Image.fromarray(~TRUTH))
    _, log = read(tmp_path, [SAMPLE])
    assert np.array_equal(mask_of(log), ~TRUTH[::2, ::2]), "they are used as they are"
    (told,) = log.notices.warnings()
    assert told.startswith("1 masks mark their whole border and not all inside")
    assert told.endswith(MASK)


@pytest.mark.parametrize("inside", [1, 0])
def test_masks_that_mark_all_or_only_inside_are_not_taken_for_inverted(tmp_path: Path, inside: int) -> None:
    mask = np.full((HEIGHT, WIDTH), inside == 1)
    mask[1:-1, 1:-1] = True
    write_pair(tmp_path, Image.fromarray(mask))
    _, log = read(tmp_path, [SAMPLE])
    assert log.notices.warnings() == ()


def test_masks_with_several_frames_are_named(tmp_path: Path) -> None:
    put(Image.new("RGB", (WIDTH, HEIGHT), "grey"), tmp_path / "0.png")
    mask = Image.fromarray(TRUTH)
    put(mask, tmp_path / "0.tif", save_all=True, append_images=[mask.transpose(Image.Transpose.ROTATE_180)])
    sample = Sample("0.png", "dent", ("0.tif",))
    _, log = read(tmp_path, [sample])
    assert log.notices.warnings() == ("1 masks have several frames, of which the first is used: 0.tif",)


def test_images_with_several_frames_are_named_once(tmp_path: Path) -> None:
    image = Image.new("RGB", (WIDTH, HEIGHT))
    put(image, tmp_path / "0.tif", save_all=True, append_images=[image])
    _, log = read(tmp_path, [Sample("0.tif", GOOD)] * 2)
    assert log.notices.warnings() == ("1 images have several frames, of which the first is used: 0.tif",)


NO_BLACK = "1 masks have several values but no black, so that they mark all"


@pytest.mark.parametrize(
    ("background", "defect", "mode", "told"),
    [
        (1, 2, "L", True),
        (1, 2, "I;16", True),
        (1.0, 2.0, "F", True),
        ((9, 9, 9), (9, 9, 8), "RGB", True),
        (7, 7, "L", False),
        (0, 2, "L", False),
    ],
)
def test_masks_whose_background_is_not_black_are_named(
    tmp_path: Path, background: Any, defect: Any, mode: str, told: bool
) -> None:
    """As labels that are counted from 1."""
    mask = Image.new(mode, (WIDTH, HEIGHT), background)
    mask.paste(defect, (64, 48, 96, 72))
    put(Image.new("RGB", (WIDTH, HEIGHT), "grey"), tmp_path / "0.png")
    put(mask, tmp_path / "0.tif")
    _, log = read(tmp_path, [Sample("0.png", "dent", ("0.tif",))])
    assert any(warning.startswith(NO_BLACK) for warning in log.notices.warnings()) is told


@pytest.mark.parametrize(
    ("greys", "told"),
    [
        ([*range(1, 17), 128], True),
        ([*range(112, 128), 255], True),
        ([*range(1, 16), 255], False),  # classes, of which there are 15 and one
        ([*range(1, 17), 127], False),  # labels that are counted
        ([0, *range(129, 160)], False),
    ],
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_masks_with_many_shades_are_named(tmp_path: Path, greys: list[int], told: bool, mode: str) -> None:
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[5, 5 : 5 + len(greys)] = greys
    write_pair(tmp_path, Image.fromarray(pixels).convert(mode))
    _, log = read(tmp_path, [SAMPLE])
    assert any("many greys" in warning for warning in log.notices.warnings()) is told
    assert mask_of(log).any(), "they are used as they are"


def test_what_is_known_to_be_stored_with_loss_is_not_said_to_have_shades(tmp_path: Path) -> None:
    write_pair(tmp_path, Image.fromarray(TRUTH))
    blurred = Image.fromarray(TRUTH).convert("L").filter(ImageFilter.GaussianBlur(6))
    put(blurred, tmp_path / "0.jpg", quality=90)
    _, log = read(tmp_path, [Sample(IMAGE, "scratch", ("0.jpg",))])
    (told,) = log.notices.warnings()
    assert told.startswith("1 masks are stored with loss")
