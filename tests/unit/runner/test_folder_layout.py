"""The folder layout, recognised from keys only."""

from collections.abc import Iterable
from typing import Literal

import pytest

from anomaly_api.dataset import DatasetLimits
from anomaly_api.run import UnreadableImage
from anomaly_runner.data.folder_layout import check_unreadable, index_experiment, index_inference
from anomaly_runner.data.images import max_file_bytes
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage.store import ObjectInfo, is_safe_key
from support.listings import objects

LAYOUT = [
    "train/good/b.png",
    "train/good/a.png",
    "test/good/000.png",
    "test/scratch/000.png",
    "test/scratch/001.jpg",
    "test/dent/000.png",
    "test/unknown/x.tif",
    "ground_truth/scratch/000_mask.png",
    "ground_truth/dent/000_mask.png",
    "license.txt",
    "train/good/notes.json",
]


def index_of(keys: Iterable[str], suffix: str = "_mask", masks: bool = True) -> DatasetIndex:
    return index_experiment(objects(keys), "s3://b/p", suffix, masks)


def first(sample: Sample) -> str | None:
    """The only mask of a sample; None if it has none."""
    assert len(sample.masks) <= 1
    return sample.masks[0] if sample.masks else None


def test_the_layout() -> None:
    dataset = index_of(LAYOUT)
    assert [sample.key for sample in dataset.train] == ["train/good/a.png", "train/good/b.png"]
    assert {sample.key: first(sample) for sample in dataset.test} == {
        "test/dent/000.png": "ground_truth/dent/000_mask.png",
        "test/good/000.png": None,
        "test/scratch/000.png": "ground_truth/scratch/000_mask.png",
        "test/scratch/001.jpg": None,
        "test/unknown/x.tif": None,
    }
    assert {sample.label: sample.defect for sample in dataset.test} == {
        "dent": True,
        "good": False,
        "scratch": True,
        "unknown": None,
    }
    assert dataset.missing_masks == ("test/scratch/001.jpg",)


def test_masks_pair_by_name_and_never_by_position() -> None:
    """Two kinds of defects with the same file names, one mask fewer than images."""
    keys = [
        "train/good/a.png",
        "train/good/b.png",
        "test/x/0.png",
        "test/x/1.png",
        "test/y/0.png",
        "test/y/1.png",
        "ground_truth/x/1_mask.png",
        "ground_truth/y/0_mask.png",
    ]
    assert [first(sample) for sample in index_of(keys).test] == [
        None,
        "ground_truth/x/1_mask.png",
        "ground_truth/y/0_mask.png",
        None,
    ]


@pytest.mark.parametrize(("suffix", "mask"), [("", "0.png"), ("_mask", "0_mask.png"), ("-gt", "0-gt.bmp")])
def test_mask_suffixes(suffix: str, mask: str) -> None:
    keys = ["train/good/a.png", "train/good/b.png", "test/x/0.png", f"ground_truth/x/{mask}"]
    assert index_of(keys, suffix).test[0].masks == (f"ground_truth/x/{mask}",)


def test_images_in_deeper_folders_pair_with_masks_in_deeper_folders() -> None:
    keys = ["train/good/a.png", "train/good/s/b.png", "test/x/s/0.png", "ground_truth/x/s/0_mask.png"]
    assert index_of(keys).test[0].masks == ("ground_truth/x/s/0_mask.png",)


VALIDATION = [
    "val/good/0.png",
    "val/scratch/000.png",
    "val/scratch/001.png",
    "val/dent/000.png",
    "val/dent/007.png",
    "val/unknown/x.png",
    "ground_truth/val/scratch/000_mask.png",
    "ground_truth/dent/007_mask.png",
]


def test_validation_images_have_masks_of_their_own_or_those_that_no_test_image_has() -> None:
    dataset = index_of([*LAYOUT, *VALIDATION])
    assert {sample.key: first(sample) for sample in dataset.validation} == {
        "val/dent/000.png": None,
        "val/dent/007.png": "ground_truth/dent/007_mask.png",
        "val/good/0.png": None,
        "val/scratch/000.png": "ground_truth/val/scratch/000_mask.png",
        "val/scratch/001.png": None,
    }
    by_key = {sample.key: first(sample) for sample in dataset.test}
    assert by_key["test/scratch/000.png"] == "ground_truth/scratch/000_mask.png"
    assert by_key["test/dent/000.png"] == "ground_truth/dent/000_mask.png"
    assert dataset.missing_masks == ("val/dent/000.png", "val/scratch/001.png", "test/scratch/001.jpg")
    assert dataset.warnings[0].startswith("images below val/unknown/ are ignored")


def test_files_are_listed_in_the_order_of_use() -> None:
    wanted = index_of([*LAYOUT, *VALIDATION]).file_keys()
    folders = [key.split("/")[0] for key in wanted if not key.startswith("ground_truth/")]
    assert folders == sorted(folders, key=["train", "val", "test"].index)
    # A mask is read with its image, which must not wait for all images after it.
    for image, mask in (("val/scratch/000", "val/scratch/000_mask"), ("test/dent/000", "dent/000_mask")):
        assert wanted.index(f"ground_truth/{mask}.png") == wanted.index(f"{image}.png") + 1


def test_without_any_mask_pixel_metrics_are_left_out_with_a_warning() -> None:
    dataset = index_of([key for key in LAYOUT if not key.startswith("ground_truth")])
    assert dataset.missing_masks == ()
    assert any("pixel metrics" in warning for warning in dataset.warnings)


def test_classification_needs_no_masks() -> None:
    dataset = index_of(LAYOUT, masks=False)
    assert all(not sample.masks for sample in dataset.test)
    assert dataset.missing_masks == ()


def test_training_folders_other_than_good_are_named() -> None:
    assert "train/bad" in index_of([*LAYOUT, "train/bad/0.png"]).warnings[0]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "no images below s3://b/p: expected train/good"),
        (["readme.md"], "expected train/good"),
        (["images/0.png"], "no images below s3://b/p/train/good; the folder holds images"),
        (["train/good/0.png", "test/good/0.png"], "only one training image"),
        (
            ["train/good/0.png", "train/good/1.png", "Test/dent/0.png", "tests/good/0.png"],
            r"no test images below s3://b/p: expected test/good and test/DEFECT. 2 images in folders that mean nothing "
            r"are not used: Test/dent/ \(1\), tests/good/ \(1\)",
        ),
    ],
)
def test_what_is_missing_is_named(keys: list[str], message: str) -> None:
    with pytest.raises(DataInvalid, match=message):
        index_of(keys)


@pytest.mark.parametrize(
    "key",
    [
        "../../etc/passwd.png",
        "/etc/x.png",
        "a/../../b.png",
        "a/..",
        "a/",
        "./a.png",
        "a/\0.png",
        "",
    ],
)
def test_keys_that_leave_the_folder_are_not_safe(key: str) -> None:
    assert not is_safe_key(key)


def test_hostile_keys_are_named_and_never_used() -> None:
    dataset = index_of([*LAYOUT, "../../etc/evil.png"])
    assert dataset.unreadable == (
        UnreadableImage(path="../../etc/evil.png", problem="its key leads out of the folder"),
    )
    assert not any(".." in key for key in dataset.file_keys())


@pytest.mark.parametrize("key", ["train/./good/x.png", "notes/../test/dent/x.png", "/etc/x.png"])
def test_keys_that_may_be_meant_for_the_layout_count(key: str) -> None:
    assert [image.path for image in index_of([*LAYOUT, key]).unreadable] == [key]


@pytest.mark.parametrize(
    ("key", "inside"),
    [
        ("a/../x.png", "train/good/../good/x.png"),
        ("notes/./x.png", "test/dent/./x.png"),
        ("train/bad/../bad/x.png", "train/bad/../good/x.png"),  # train/bad and val/unknown are ignored
        ("val/unknown/./x.png", "val/good/./x.png"),
        ("originals/pi\udce9ce.png", "test/dent/pi\udce9ce.png"),
    ],
)
def test_refused_files_outside_the_layout_do_not_count(key: str, inside: str) -> None:
    """What is refused for its name is told only if the run would have used it: the same fault inside counts."""
    assert index_of([*LAYOUT, key]).unreadable == ()
    assert len(index_of([*LAYOUT, inside]).unreadable) == 1


@pytest.mark.parametrize("key", ["notes//x.png", "C:/x.png", f"originals/{'x' * 300}.png"])
def test_odd_names_outside_the_layout_are_like_any_others_there(key: str) -> None:
    found = index_of([*LAYOUT, key])
    assert found.unreadable == ()
    assert key not in found.file_keys()
    assert any("folders that mean nothing are not used" in warning for warning in found.warnings)


@pytest.mark.parametrize("folder", ["train/bad", "val/unknown"])
def test_an_empty_part_of_a_key_leads_into_no_other_folder(folder: str) -> None:
    found = index_of([*LAYOUT, f"{folder}//x.png"])
    assert (found.unreadable, f"{folder}//x.png" in found.file_keys()) == ((), False)
    assert any(f"images below {folder}/ are ignored" in warning for warning in found.warnings)


def test_large_files_outside_the_layout_do_not_count() -> None:
    scan = ObjectInfo("originals/scan.tif", 3 << 30, "e")
    assert index_experiment([*objects(LAYOUT), scan], "u", "_mask", True, max_bytes=1000).unreadable == ()
    labelled = [*objects(["dent/a.png"]), ObjectInfo("train/scan.tif", 3 << 30, "e")]
    assert index_inference(labelled, "u", "labelled", "_mask", True, max_bytes=1000).unreadable == ()
    largest = objects(["a.png"], 1000)
    flat = index_inference([*largest, scan], "u", "flat", "_mask", True, max_bytes=1000)
    assert [image.path for image in flat.unreadable] == ["originals/scan.tif"]


def test_every_name_of_s3_is_used() -> None:
    """Parts longer than names of files, images in folders that are named as an image, and what only Windows refuses."""
    keys = [
        f"test/good/{'ü' * 200}.png",
        "test/dent/000.png",
        "test/dent/000.png/deep/1.png",
        "test/C:/what? 100%+\\'\"\n\U0001f600.png",
        "test/dent//2.png",
    ]
    dataset = index_of([*LAYOUT, *keys])
    assert dataset.unreadable == ()
    assert set(keys) <= set(dataset.file_keys())


def test_names_that_differ_in_case_or_normal_form_are_different() -> None:
    keys = ["test/dent/\u00e9.png", "test/dent/e\u0301.png", "test/dent/A.png", "test/dent/a.png"]
    assert set(keys) <= {sample.key for sample in index_of([*LAYOUT, *keys]).test}


def test_names_that_are_no_utf8_are_reported_escaped_and_never_used() -> None:
    keys = [f"{folder}/pi\udce9ce.png" for folder in ("train/good", "test/good", "ground_truth/dent")]
    dataset = index_of([*LAYOUT, *keys])
    assert [image.path for image in dataset.unreadable] == [key.replace("\udce9", "\\xe9") for key in sorted(keys)]
    assert {image.problem for image in dataset.unreadable} == {
        "its key is not UTF-8, as S3 asks for: it cannot be requested"
    }
    assert not set(keys) & set(dataset.file_keys())


def test_files_too_large_for_any_image_are_named_and_not_downloaded() -> None:
    listed = [*objects(LAYOUT), ObjectInfo("test/good/bomb.png", 1 << 40, "e")]
    dataset = index_experiment(listed, "s3://b/p", "_mask", True, max_bytes=max_file_bytes(1_000_000))
    assert [image.path for image in dataset.unreadable] == ["test/good/bomb.png"]
    assert "1099511627776 bytes are more than an image of maxImagePixels" in dataset.unreadable[0].problem
    assert "test/good/bomb.png" not in dataset.file_keys()


def test_unreadable_images_up_to_the_limit() -> None:
    broken = [UnreadableImage(path=f"{index}.png", problem="damaged") for index in range(3)]
    check_unreadable(broken, DatasetLimits(max_unreadable_images=3))
    with pytest.raises(DataInvalid, match=r"3 unreadable images.*is 2.*0\.png: damaged; 1\.png"):
        check_unreadable(broken, DatasetLimits(max_unreadable_images=2))


def test_flat_input() -> None:
    dataset = index_inference(objects(["b.png", "sub/a.png", "c.txt"]), "u", "flat", "_mask", True)
    assert [(sample.key, sample.label) for sample in dataset.test] == [("b.png", "unknown"), ("sub/a.png", "unknown")]


@pytest.mark.parametrize("prefix", ["", "test/"])
def test_labelled_input(prefix: str) -> None:
    keys = [
        f"{prefix}good/a.png",
        f"{prefix}dent/b.png",
        f"{prefix}unknown/c.png",
        "stray.png",
        "ground_truth/dent/b_mask.png",
    ]
    dataset = index_inference(objects(keys), "u", "labelled", "_mask", True)
    assert {sample.label: first(sample) for sample in dataset.test} == {
        "dent": "ground_truth/dent/b_mask.png",
        "good": None,
        "unknown": None,
    }


def test_of_a_whole_dataset_the_test_images_are_scored() -> None:
    keys = [
        "train/good/a.png",
        "val/good/a.png",
        "val/dent/a.png",
        "other/good/a.png",
        "test/good/a.png",
        "test/dent/b.png",
        "ground_truth/dent/b_mask.png",
        "ground_truth/val/dent/a_mask.png",
    ]
    dataset = index_inference(objects(keys), "u", "labelled", "_mask", True)
    assert [(sample.key, first(sample)) for sample in dataset.test] == [
        ("test/dent/b.png", "ground_truth/dent/b_mask.png"),
        ("test/good/a.png", None),
    ]
    assert dataset.missing_masks == ()


def test_a_stray_image_in_test_makes_no_dataset_of_a_labelled_folder() -> None:
    dataset = index_inference(objects(["test/a.png", "dent/b.png"]), "u", "labelled", "_mask", False)
    assert [(sample.key, sample.label) for sample in dataset.test] == [("dent/b.png", "dent")]


def test_folders_of_the_layout_are_no_labels() -> None:
    keys = ["train/good/a.png", "val/good/a.png", "good/a.png"]
    dataset = index_inference(objects(keys), "u", "labelled", "_mask", False)
    assert [sample.key for sample in dataset.test] == ["good/a.png"]


def test_labelled_input_without_folders_says_what_was_expected() -> None:
    with pytest.raises(DataInvalid, match="LABEL"):
        index_inference(objects(["a.png"]), "u", "labelled", "_mask", True)


LEFT_BEHIND = ["train/good/.DS_Store", "train/good/._a.png", "test/good/Thumbs.db", "test/scratch/", "license.txt"]
UNNAMED = ["test/good/000", "train/good/c.heic", "train/good/x.png.part"]


def test_files_without_an_images_name_are_named_and_what_file_managers_leave_behind_is_not() -> None:
    dataset = index_of([*LAYOUT, *LEFT_BEHIND, *UNNAMED])  # LAYOUT has one more, train/good/notes.json
    assert [sample.key for sample in dataset.train] == ["train/good/a.png", "train/good/b.png"]
    (warning,) = [warning for warning in dataset.warnings if "name of an image" in warning]
    assert warning.startswith(
        f"{len(UNNAMED) + 1} files do not have the name of an image and are ignored: test/good/000, "
    )
    assert warning.endswith(", ...")


@pytest.mark.parametrize("layout", ["flat", "labelled"])
def test_an_inference_names_them_too(layout: Literal["flat", "labelled"]) -> None:
    keys = ["scratch/a.PNG", "scratch/._a.PNG", "scratch/b", ".DS_Store"]
    found = index_inference(objects(keys), "s3://b/p", layout, "_mask", True)
    assert [sample.key for sample in found.test] == ["scratch/a.PNG"]
    assert found.warnings[-1] == "1 files do not have the name of an image and are ignored: scratch/b"
