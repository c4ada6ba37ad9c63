"""Images, masks, pixels and scores at the limits of what counts; expected values are by hand."""

import struct
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.dataset import CropArea, DatasetLimits, FolderLayoutName
from anomaly_api.run import UnreadableImage
from anomaly_runner.data.batches import Batch
from anomaly_runner.data.folder_layout import check_unreadable, choose_layout, index_experiment, index_inference
from anomaly_runner.data.fraction import take_fraction
from anomaly_runner.data.images import Decoded
from anomaly_runner.data.mask_files import check_fit, open_mask, range_of_values
from anomaly_runner.data.masks import KeptMasks, MaskSource, TrueMask
from anomaly_runner.data.notices import Notice
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.data.small_defects import DefectCounts, Defects
from anomaly_runner.data.valid_area import ValidArea
from anomaly_runner.errors import DataInvalid, Diverged
from anomaly_runner.scoring.predict import Predictions, ScoredBatch, maps_by_key, predict
from anomaly_runner.storage import Prefetcher
from support.contexts import make_context
from support.listings import objects

LIMIT = 1_000_000
TRAIN = ("train/good/a.png", "train/good/b.png", "test/good/0.png")
Pixels = NDArray[np.bool_]
VISA = (
    *("Data/Images/Anomaly/0.JPG", "Data/Images/Anomaly/0_mask.JPG"),
    *("Data/Masks/Anomaly/0.png", "Data/Masks/Anomaly/0_mask.png"),
)
"""Two defective images, one of which has a name that ends as masks do in other layouts."""


def index_of(*keys: str) -> DatasetIndex:
    return index_experiment(objects(keys), "s3://b/p", "_mask", True)


def labelled(*keys: str, masks: bool = True) -> DatasetIndex:
    return index_inference(objects(keys), "u", "labelled", "_mask", masks)


def problem_of(*keys: str) -> str:
    """What is said of a folder that cannot be learnt from."""
    with pytest.raises(DataInvalid) as raised:
        index_of(*keys)
    return str(raised.value)


# Which images are used, and as what


@pytest.mark.parametrize(
    ("name", "title"), [(None, "BTAD"), ("mvtec", "MVTec AD"), ("visa", "VisA"), ("mvtecLoco", "MVTec LOCO")]
)
def test_a_layout_that_is_named_is_not_recognised(name: FolderLayoutName | None, title: str) -> None:
    assert choose_layout(objects(["train/ok/a.png"]), name).title == title


def test_images_of_a_named_layout_are_those_of_its_folders() -> None:
    """Both folders are there; in that of BTAD, ok is the good one, and good a label that learning has no use for."""
    keys = ("train/good/a.png", "train/ok/b.png", "train/ok/c.png")
    found = index_experiment(objects(keys), "s3://b/p", "_mask", False, layout="btad")
    assert found.layout == "BTAD"
    assert {sample.key for sample in found.train} >= {"train/ok/b.png", "train/ok/c.png"}
    assert index_of("train/good/a.png", "train/good/d.png", "train/ok/b.png").layout == "MVTec AD"


def test_a_layout_is_recognised_by_images_alone() -> None:
    listed = objects(["test_public/good/notes.txt", "train/good/a.png"])
    assert choose_layout(listed).title == "MVTec AD"


def test_folders_in_a_labels_folder_belong_to_the_label() -> None:
    found = labelled("dent/deep/0.png", "good/0.png", "ground_truth/dent/deep/0_mask.png")
    assert [(sample.key, sample.label, sample.masks) for sample in found.test] == [
        ("dent/deep/0.png", "dent", ("ground_truth/dent/deep/0_mask.png",)),
        ("good/0.png", "good", ()),
    ]


def test_a_labelled_input_without_pixel_metrics_uses_no_masks() -> None:
    found = labelled("dent/0.png", "ground_truth/dent/0_mask.png", masks=False)
    assert found.test == (Sample("dent/0.png", "dent"),)
    assert found.warnings == ()


def test_defective_images_without_a_mask_are_known_of_a_labelled_input() -> None:
    found = labelled("dent/0.png", "dent/1.png", "ground_truth/dent/0_mask.png")
    assert found.missing_masks == ("dent/1.png",)
    assert found.warnings == ("1 defective images have no mask and count as wholly defective",)


def test_files_too_large_are_refused_where_they_would_be_scored() -> None:
    listed = [*objects(["dent/a.png"]), *objects(["dent/scan.tif", "val/good/scan.tif"], 1001)]
    found = index_inference(listed, "u", "labelled", "_mask", True, max_bytes=1000)
    assert [image.path for image in found.unreadable] == ["dent/scan.tif"]
    assert [sample.key for sample in found.test] == ["dent/a.png"]
    listed = [*objects(VISA), *objects(["Data/Images/Normal/scan.tif", "Data/Images/Anomaly/scan.tif"], 1001)]
    found = index_inference(listed, "u", "labelled", "_mask", True, max_bytes=1000)
    assert [image.path for image in found.unreadable] == ["Data/Images/Anomaly/scan.tif"]


def test_masks_of_training_images_are_no_strays() -> None:
    dent = ("test/dent/0.png", "ground_truth/dent/0_mask.png")
    assert index_of(*TRAIN, *dent, "ground_truth/good/a_mask.png").warnings == ()


def test_where_masks_are_named_as_their_images_the_suffix_does_not_count() -> None:
    for found in (index_of(*VISA, "Data/Images/Normal/0.JPG", "Data/Images/Normal/1.JPG"), labelled(*VISA)):
        assert {sample.key: sample.masks for sample in found.test} == {
            "Data/Images/Anomaly/0.JPG": ("Data/Masks/Anomaly/0.png",),
            "Data/Images/Anomaly/0_mask.JPG": ("Data/Masks/Anomaly/0_mask.png",),
        }
        assert found.warnings == ()


def test_images_to_learn_from_are_none_that_an_inference_has_lost() -> None:
    found = labelled(*VISA, "Data/Images/Normal/0.JPG", "Data/Images/Normal/1.JPG")
    assert [sample.key for sample in found.test] == ["Data/Images/Anomaly/0.JPG", "Data/Images/Anomaly/0_mask.JPG"]
    assert found.warnings == ()


def test_a_folder_without_images_is_no_input() -> None:
    with pytest.raises(DataInvalid, match=r"^no images below u: expected images$"):
        index_inference(objects(["notes.txt"]), "u", "flat", "_mask", True)
    with pytest.raises(DataInvalid, match=r"^no images below u: expected LABEL/\* or test/LABEL/\*$"):
        labelled("stray.png")


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (["normal/deep/0.png"], "no images below s3://b/p/train/good; the folder holds normal"),
        (["train/bad/0.png"], "no images below s3://b/p/train/good; the folder holds train"),
        ([f"{name}/0.png" for name in "ihgfedcb"], f"; the folder holds {', '.join('bcdefghi')}"),
        ([f"{name}/0.png" for name in "ihgfedcba"], f"; the folder holds {', '.join('abcdefgh')}, ..."),
    ],
)
def test_of_a_folder_that_holds_something_else_it_is_said_what(keys: list[str], problem: str) -> None:
    assert problem_of(*keys).endswith(problem)


def test_images_none_of_which_is_usable_are_not_called_absent() -> None:
    with pytest.raises(DataInvalid, match=r"^no images below u/train/good; the folder holds no images$"):
        index_experiment(objects(["train/good/a.png"], 11), "u", "_mask", True, max_bytes=10)


def test_images_of_no_use_are_named_by_folder_with_the_reason() -> None:
    assert index_of(*TRAIN, "val/unknown/0.png", "val/good/0.png", "train/ugly/0.png", "train/bad/0.png").warnings == (
        "images below train/bad/ are ignored: training uses good images alone",
        "images below train/ugly/ are ignored: training uses good images alone",
        "images below val/unknown/ are ignored: thresholds are found on good images and kinds of defects",
    )


def test_files_among_images_of_no_use_are_not_missed() -> None:
    notes, scan = objects(["train/bad/notes.txt"]), objects(["train/bad/scan.tif"], 1001)
    found = index_experiment([*objects(TRAIN), *notes, *scan], "u", "_mask", True, max_bytes=1000)
    assert (found.unreadable, found.warnings) == ((), ())


def test_of_five_folders_that_mean_nothing_four_are_named() -> None:
    (told,) = index_of(*TRAIN, *(f"{name}/0.png" for name in "abcde")).warnings
    assert told == "5 images in folders that mean nothing are not used: a/ (1), b/ (1), c/ (1), d/ (1), ..."


def test_a_name_that_is_no_utf8_is_told_escaped() -> None:
    (told,) = index_of(*TRAIN, "train/good/pi\udce9ce").warnings
    assert told == "1 files do not have the name of an image and are ignored: train/good/pi\\xe9ce"


def test_of_many_unreadable_images_three_are_named() -> None:
    broken = [UnreadableImage(path=f"{index}.png", problem="damaged") for index in range(4)]
    with pytest.raises(DataInvalid) as raised:
        check_unreadable(broken, DatasetLimits(max_unreadable_images=1))
    assert str(raised.value) == (
        "4 unreadable images, limits.maxUnreadableImages is 1: 0.png: damaged; 1.png: damaged; 2.png: damaged"
    )


# What a fraction keeps


def test_the_whole_dataset_is_left_as_it_is() -> None:
    """Also the order, and masks that are missing of others."""
    turned = DatasetIndex(train=(Sample("b.png", "good"), Sample("a.png", "good")), missing_masks=("c.png",))
    assert take_fraction(turned, 1.0, 7) == turned


def test_masks_missed_of_validation_images_stay_and_are_not_told_where_they_are_of_no_use() -> None:
    """No warning was there before; two images of the label are kept."""
    dents = tuple(Sample(f"val/dent/{index}.png", "dent") for index in range(2))
    whole = DatasetIndex(validation=dents, missing_masks=("val/dent/1.png", "gone.png"), warnings=("first",))
    found = take_fraction(whole, 0.1, 7)
    assert (found.missing_masks, found.warnings) == (("val/dent/1.png",), ("first",))
    assert found.fraction == 0.1


# Which pixels of a mask count


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def marked(data: bytes) -> Pixels:
    return np.asarray(open_mask(data, LIMIT).pixels)


@pytest.mark.parametrize(("value", "counts"), [(127, False), (128, True)])
def test_of_what_is_stored_with_loss_half_of_white_counts(value: int, counts: bool) -> None:
    """An even JPEG of the best quality has its values exactly."""
    pixels = marked(encoded(Image.new("L", (16, 16), value), "JPEG", quality=100))
    assert pixels.all() == pixels.any() == counts


@pytest.mark.parametrize(("value", "counts"), [(32767, False), (32768, True)])
def test_half_of_white_is_that_of_16_bits(value: int, counts: bool) -> None:
    deep = Image.fromarray(np.full((16, 16), value, np.uint16))
    pixels = marked(encoded(deep, "JPEG2000", irreversible=True))
    assert pixels.all() == pixels.any() == counts


@pytest.mark.parametrize(("alpha", "counts"), [(0, False), (1, True)])
def test_what_is_stored_with_loss_counts_unless_it_is_wholly_transparent(alpha: int, counts: bool) -> None:
    image = Image.new("RGBA", (16, 16), (255, 255, 255, alpha))
    pixels = marked(encoded(image, "WEBP", quality=90, exact=True))
    assert pixels.all() == pixels.any() == counts


@pytest.mark.parametrize("size", [3, 4, 5])
@pytest.mark.parametrize("lossless", [True, False])
def test_what_lies_before_the_pixels_of_a_webp_is_passed_over(size: int, lossless: bool) -> None:
    """A colour profile comes first, padded to an even length."""
    data = encoded(Image.new("RGB", (16, 16), "white"), "WEBP", lossless=lossless, icc_profile=b"p" * size)
    assert b"ICCP" in data
    assert open_mask(data, LIMIT).lossy is not lossless


def test_the_wavelets_are_those_of_the_code_and_not_of_bytes_before_it() -> None:
    """A box that nobody knows holds the code of the style that is looked for."""
    data = encoded(Image.new("RGB", (16, 16), (0, 0, 1)), "JPEG2000", irreversible=False)
    start = 12 + 20  # after the signature and the type of the file
    box = struct.pack(">I4s", 8 + 16 + 32, b"uuid") + bytes(16) + b"\xff\x52" + bytes(30)
    assert not open_mask(data[:start] + box + data[start:], LIMIT).lossy


def test_the_range_of_a_masks_values() -> None:
    grey = Image.new("L", (4, 4), 7)
    grey.putpixel((1, 2), 2)
    assert range_of_values(encoded(grey, "PNG"), LIMIT) == (2, 7)
    assert range_of_values(encoded(Image.new("RGB", (4, 4), (3, 9, 1)), "PNG"), LIMIT) == (1, 9)


def test_both_lengths_may_be_rounded_by_half_a_pixel() -> None:
    """29.5 of 590 and 30.5 of 610 are a twentieth both."""
    check_fit((30, 30), (590, 610))


# Which masks belong to an image, and what is noticed about them


def source(folder: Path, **masks: Pixels) -> MaskSource:
    """The masks of a folder, whose keys are their names."""
    for name, pixels in masks.items():
        (folder / name).write_bytes(encoded(Image.fromarray(pixels), "PNG"))
    return MaskSource(Prefetcher(folder, lambda: None), LIMIT, None)


def of_image(pixels: Pixels) -> Decoded:
    """An image of the mask's size."""
    height, width = pixels.shape
    return Decoded(Image.new("RGB", (width, height)), (width, height))


def inside(rows: slice, columns: slice, shape: tuple[int, int] = (6, 8)) -> Pixels:
    pixels = np.zeros(shape, np.bool_)
    pixels[rows, columns] = True
    return pixels


def read(folder: Path, pixels: Pixels) -> TrueMask:
    return source(folder, mask=pixels).read(["mask"], of_image(pixels), (6, 8))


def test_defects_are_not_looked_for_unless_asked(tmp_path: Path) -> None:
    assert read(tmp_path, inside(slice(2, 4), slice(2, 4))).defects == ()


def test_what_is_noticed_of_several_masks_is_kept_with_each_of_them(tmp_path: Path) -> None:
    """The first marks nothing, the second two defects: a pixel that a third of the size leaves out, and a corner."""
    second = inside(slice(0, 1), slice(0, 1), (9, 9)) | inside(slice(4, 7), slice(4, 7), (9, 9))
    masks = replace(source(tmp_path, first=np.zeros((9, 9), np.bool_), second=second), finds_defects=True)
    found = masks.read(["first", "second"], of_image(second), (3, 3))
    assert found.notices == (("first", Notice.BLACK_MASK),)
    assert found.defects == (("first", Defects(0)), ("second", Defects(2, 1, (9, 9))))
    # Of nine rows and columns the second, fifth and eighth are taken.
    assert found.pixels.tolist() == [[False, False, False], [False, True, False], [False, False, False]]


BORDER = ~inside(slice(1, 5), slice(1, 7))


@pytest.mark.parametrize("place", [(0, 3), (5, 3), (3, 0), (3, 7)])
def test_a_mask_with_a_gap_in_its_border_is_not_taken_for_inverted(tmp_path: Path, place: tuple[int, int]) -> None:
    mask = ~inside(slice(2, 4), slice(2, 6))
    mask[place] = False
    assert read(tmp_path, mask).notices == ()


def test_a_mask_of_its_border_alone_may_be_inverted(tmp_path: Path) -> None:
    assert read(tmp_path, BORDER).notices == (("mask", Notice.INVERTED_MASK),)


def test_masks_of_any_size_are_kept_as_they_are() -> None:
    """15 pixels are no whole bytes."""
    kept, pixels = KeptMasks(), inside(slice(1, 3), slice(2, 5), (3, 5))
    kept.add("a.png", pixels)
    found = kept.reader((3, 5))(Sample("a.png", "dent", ("mask",)))
    assert found.dtype == np.bool_
    assert found.tolist() == pixels.tolist()


def test_an_image_of_an_unknown_label_is_defective_nowhere() -> None:
    assert KeptMasks().reader((1, 2))(Sample("a.png", "unknown")).tolist() == [[False, False]]


# Which size keeps every defect


@pytest.mark.parametrize(
    ("needed", "told"),
    [
        ((32, 33), "32 x 64 would keep them"),
        ((4096, 1), "4096 x 32 would keep them"),
        ((1, 4097), "to keep them it would be 32 x 4128, which is too large: cut the images by cropArea"),
    ],
)
def test_a_size_is_proposed_in_steps_up_to_the_largest(needed: tuple[int, int], told: str) -> None:
    assert DefectCounts({"a": Defects(1, 1, needed)}).warnings((8, 8))[0].endswith(f"; {told}")


# The valid area


def area(pixels: Pixels) -> ValidArea:
    return ValidArea.read(encoded(Image.fromarray(pixels), "PNG"), "valid.png", LIMIT)


def test_a_grey_image_is_black_where_pixels_do_not_count() -> None:
    whole = Image.new("L", (3, 1), 9)
    found = area(np.array([[True, False, True]])).blacken(whole, exactly=True)
    assert np.asarray(found).tolist() == [[9, 0, 9]]
    assert np.asarray(whole).tolist() == [[9, 9, 9]]


def test_an_area_that_counts_nothing_is_refused_with_the_reason() -> None:
    with pytest.raises(DataInvalid, match=r"^validAreaMask valid\.png is black everywhere, so no pixel would count$"):
        area(np.zeros((2, 2), np.bool_))
    crop = CropArea(left=1, top=0, width=1, height=1)
    with pytest.raises(
        DataInvalid, match=r"^validAreaMask is black everywhere inside cropArea, so no pixel would count$"
    ):
        area(np.array([[True, False]])).at(2, 2, crop)


# Scores and maps of images


def scored(scores: list[float], maps: int | None, images: int = 2) -> ScoredBatch:
    """A batch of images with its scores, and so many maps of two pixels."""
    samples = tuple(Sample(f"{index}.png", "good") for index in range(images))
    batch = Batch(samples, np.zeros((images, 3, 1, 2), np.float32))
    return ScoredBatch(batch, np.array(scores, np.float32), None if maps is None else np.ones((maps, 1, 2), np.float32))


def predictor(*answers: ScoredBatch) -> Any:
    return SimpleNamespace(score=lambda _: iter(answers))


def predicted(work: Path, *answers: ScoredBatch, maps: bool = False) -> Predictions:
    return predict(
        predictor(*answers), [], expected=2, size=(1, 2), keep_maps=maps, context=make_context(work), reference=1
    )


def test_a_model_without_maps_has_its_images_and_what_exports_are_compared_with(tmp_path: Path) -> None:
    batch = scored([1, 2], None)
    found = predicted(tmp_path, batch)
    assert (found.samples, found.reference) == (batch.batch.samples, (batch,))


def test_scores_are_kept_in_the_precision_in_which_models_give_them(tmp_path: Path) -> None:
    found = predicted(tmp_path, scored([1, 2], 2))
    assert found.max_pixel_scores is not None
    assert found.scores.dtype == found.max_pixel_scores.dtype == np.float32


def test_maps_are_kept_in_the_scratch_folder_of_the_run_alone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        predicted(tmp_path / "gone", scored([1, 2], 2), maps=True)


def test_a_map_too_few_is_an_error() -> None:
    """Or it might be that of another image."""
    with pytest.raises(ValueError, match="shorter"):
        maps_by_key(predictor(scored([1, 2], 1)), [])


def test_where_scores_are_too_few_no_image_is_blamed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        predicted(tmp_path, scored([float("nan")], None))


def test_what_is_said_where_there_are_no_scores(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=r"^none of the images to score can be read$"):
        predicted(tmp_path)
    with pytest.raises(Diverged) as raised:
        predicted(tmp_path, scored([1, float("nan")], None))
    assert str(raised.value) == (
        "scores are not numbers, first for 1.png: the features overflow or the training images are all alike"
    )
