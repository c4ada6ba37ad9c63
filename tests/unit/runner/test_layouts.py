"""Layouts of published data sets, masks that fit no image, and labels that are not what they look like."""

from collections import Counter
from collections.abc import Iterable

import pytest

from anomaly_runner.data.folder_layout import choose_layout, index_experiment, index_inference
from anomaly_runner.data.layouts.labels import looks_good
from anomaly_runner.data.samples import DatasetIndex
from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage.store import ObjectInfo

TRAIN = ("train/good/a.png", "train/good/b.png", "test/good/0.png")


def index_of(*keys: str, suffix: str = "_mask") -> DatasetIndex:
    return index_experiment(objects(keys), "s3://b/p", suffix, True)


def objects(keys: Iterable[str]) -> list[ObjectInfo]:
    return [ObjectInfo(key, 1, "e") for key in sorted(keys)]


def masks_of(dataset: DatasetIndex) -> dict[str, tuple[str, ...]]:
    return {sample.key: sample.masks for sample in (*dataset.validation, *dataset.test) if sample.masks}


LOCO = (
    "train/good/000.png",
    "train/good/001.png",
    "validation/good/000.png",
    "test/good/000.png",
    "test/logical_anomalies/000.png",
    "test/structural_anomalies/000.png",
    "ground_truth/logical_anomalies/000/000.png",
    "ground_truth/logical_anomalies/000/001.png",
    "ground_truth/structural_anomalies/000/000.png",
)
AD2 = (
    "train/good/000_regular.png",
    "train/good/001_regular.png",
    "validation/good/000_regular.png",
    "test_public/good/000_regular.png",
    "test_public/bad/000_regular.png",
    "test_public/ground_truth/bad/000_regular_mask.png",
    "test_private/000_regular.png",
    "test_private_mixed/000_mixed.png",
)
VISA = (
    "Data/Images/Normal/0000.JPG",
    "Data/Images/Normal/0001.JPG",
    "Data/Images/Anomaly/000.JPG",
    "Data/Masks/Anomaly/000.png",
    "image_anno.csv",
)
BTAD = (
    "train/ok/0000.bmp",
    "train/ok/0001.bmp",
    "test/ok/0000.bmp",
    "test/ko/0000.bmp",
    "ground_truth/ko/0000.png",
)


@pytest.mark.parametrize(
    ("keys", "title", "validation", "test", "masks"),
    [
        (
            LOCO,
            "MVTec LOCO",
            {"good": 1},
            {"good": 1, "logical_anomalies": 1, "structural_anomalies": 1},
            {"test/logical_anomalies/000.png": LOCO[6:8], "test/structural_anomalies/000.png": LOCO[8:]},
        ),
        (
            AD2,
            "MVTec AD 2",
            {"good": 1},
            {"good": 1, "bad": 1, "unknown": 2},
            {"test_public/bad/000_regular.png": AD2[5:6]},
        ),
        (VISA, "VisA", {}, {"anomaly": 1}, {"Data/Images/Anomaly/000.JPG": VISA[3:4]}),
        (BTAD, "BTAD", {}, {"good": 1, "ko": 1}, {"test/ko/0000.bmp": BTAD[4:]}),
    ],
)
def test_layouts_of_published_data_sets_are_recognised(
    keys: tuple[str, ...],
    title: str,
    validation: dict[str, int],
    test: dict[str, int],
    masks: dict[str, tuple[str, ...]],
) -> None:
    dataset = index_of(*keys)
    assert dataset.layout == title
    assert len(dataset.train) == 2
    assert Counter(sample.label for sample in dataset.validation) == validation
    assert Counter(sample.label for sample in dataset.test) == test
    assert masks_of(dataset) == masks
    assert not any("belong" in warning for warning in dataset.warnings)


@pytest.mark.parametrize(
    ("keys", "tested"),
    [
        (BTAD, {"test/ok/0000.bmp": "good", "test/ko/0000.bmp": "ko"}),
        (VISA, {"Data/Images/Anomaly/000.JPG": "anomaly"}),
        (AD2[:6], {"test_public/good/000_regular.png": "good", "test_public/bad/000_regular.png": "bad"}),
    ],
)
def test_a_labelled_input_may_have_such_a_layout(keys: tuple[str, ...], tested: dict[str, str]) -> None:
    dataset = index_inference(objects(keys), "u", "labelled", "_mask", True)
    assert {sample.key: sample.label for sample in dataset.test} == tested
    assert any(sample.masks for sample in dataset.test)


def test_masks_in_a_folder_of_their_image_count_with_every_suffix() -> None:
    keys = (*TRAIN, "test/x/000.png", "ground_truth/x/000/000.png", "ground_truth/x/000/001.png")
    for suffix in ("", "_mask"):
        assert masks_of(index_of(*keys, suffix=suffix)) == {"test/x/000.png": keys[-2:]}


def test_masks_without_the_suffix_are_used_and_told() -> None:
    dataset = index_of(*TRAIN, "test/x/000.png", "ground_truth/x/000.png")
    assert masks_of(dataset) == {"test/x/000.png": ("ground_truth/x/000.png",)}
    assert dataset.warnings == (
        "no mask ends in maskSuffix _mask: masks named as their images, or in folders so named, are used",
    )


def test_one_kind_of_defect_may_have_the_suffix_and_another_not() -> None:
    dataset = index_of(*TRAIN, "test/x/0.png", "test/y/0.png", "ground_truth/x/0_mask.png", "ground_truth/y/0.png")
    assert masks_of(dataset) == {
        "test/x/0.png": ("ground_truth/x/0_mask.png",),
        "test/y/0.png": ("ground_truth/y/0.png",),
    }


def test_beside_masks_with_the_suffix_those_without_belong_to_no_image() -> None:
    dataset = index_of(*TRAIN, "test/x/0.png", "test/x/1.png", "ground_truth/x/0_mask.png", "ground_truth/x/1.png")
    assert masks_of(dataset) == {"test/x/0.png": ("ground_truth/x/0_mask.png",)}
    assert dataset.warnings == (
        "1 defective images have no mask and count as wholly defective",
        "1 of 2 masks belong to no image; looked for LABEL/NAME_mask.* and LABEL/NAME/*; not used: "
        "ground_truth/x/1.png",
    )


def test_masks_that_fit_no_image_are_counted_and_the_first_named() -> None:
    strays = [f"ground_truth/x/{index}_mask.png" for index in range(5)]
    dataset = index_of(*TRAIN, "test/x/9.png", "ground_truth/x/9_mask.png", *strays)
    assert dataset.warnings == (
        "5 of 6 masks belong to no image; looked for LABEL/NAME_mask.* and LABEL/NAME/*; not used: "
        f"{', '.join(strays[:3])}, ...",
    )


def test_a_mask_with_another_ending_is_not_cut_to_the_name_of_an_image() -> None:
    dataset = index_of(*TRAIN, "test/x/0.png", "test/x/1.png", "ground_truth/x/0_mask.png", "ground_truth/x/1_mesk.png")
    assert masks_of(dataset) == {"test/x/0.png": ("ground_truth/x/0_mask.png",)}


@pytest.mark.parametrize(
    "keys",
    [
        (*LOCO, "test/logical_anomalies/001.png"),
        (*AD2, "test_public/bad/001_regular.png"),
        (*VISA, "Data/Images/Anomaly/001.JPG"),
        (*BTAD, "test/ko/0001.bmp"),
    ],
)
def test_the_mask_of_one_image_is_none_of_another(keys: tuple[str, ...]) -> None:
    found = index_of(*keys)
    assert found.missing_masks == keys[-1:]
    assert found.warnings[-1] == "1 defective images have no mask and count as wholly defective"
    tested = index_inference(objects(keys), "u", "labelled", "_mask", True)
    assert tested.missing_masks == keys[-1:]


@pytest.mark.parametrize("label", ["logical_anomalies", "structural_anomalies"])
def test_one_kind_of_defect_is_enough_to_recognise_loco(label: str) -> None:
    assert index_of(*TRAIN, f"test/{label}/000.png").layout == "MVTec LOCO"


def test_a_deeper_folder_of_a_public_test_set_is_recognised() -> None:
    assert index_of("train/good/0.png", "train/good/1.png", "test_public/bad/0.png").layout == "MVTec AD 2"
    assert choose_layout(objects(["train/good/0.png", "test_public/0.png"])).title == "MVTec AD 2"


def test_images_of_the_private_test_sets_may_have_the_same_names() -> None:
    assert index_of(*AD2, "test_private_mixed/000_regular.png").warnings == ()


def test_masks_of_the_validation_images_of_loco() -> None:
    keys = (*LOCO, "validation/logical_anomalies/000.png", "ground_truth/validation/logical_anomalies/000/000.png")
    dataset = index_of(*keys)
    assert masks_of(dataset)["validation/logical_anomalies/000.png"] == keys[-1:]
    assert masks_of(dataset)["test/logical_anomalies/000.png"] == LOCO[6:8]
    assert dataset.warnings == ()


def test_if_no_mask_fits_they_are_not_called_absent() -> None:
    dataset = index_of(*TRAIN, "test/x/000.png", "ground_truth/x/000.gt.png")
    assert dataset.warnings == (
        "pixel metrics are left out: none of 1 masks belongs to an image; looked for LABEL/NAME_mask.* and "
        "LABEL/NAME/*; there are ground_truth/x/000.gt.png",
    )
    assert dataset.missing_masks == ()


def test_masks_of_good_images_are_not_needed_and_not_strays() -> None:
    dataset = index_of(*TRAIN, "test/x/0.png", "ground_truth/x/0_mask.png", "ground_truth/good/0_mask.png")
    assert dataset.warnings == ()
    assert masks_of(dataset) == {"test/x/0.png": ("ground_truth/x/0_mask.png",)}


@pytest.mark.parametrize(
    "label",
    [
        *("Good", "GOOD", "OK", "ok", "normal", "Normal", "io", "i.O.", "pass", "no_defect", "non-anomalous", "good "),
        *("Gut", "Gutteile", "bueno", "sin defecto", "良品", "正常", "合格", "양품", "годен"),
        *("ok_front", "good1", "01-OK", "Good parts", "no_defect_parts", "none", "clean", "Uncracked"),
    ],
)
def test_a_misspelt_good_is_refused(label: str) -> None:
    assert looks_good(label)
    with pytest.raises(DataInvalid, match=rf"b/p/test/{label} would count as defective.*rename the folder to good"):
        index_of(*TRAIN, f"test/{label}/0.png")
    with pytest.raises(DataInvalid, match=rf"u/{label} would count"):
        index_inference(objects(["good/0.png", f"{label}/1.png"]), "u", "labelled", "_mask", True)


@pytest.mark.parametrize(
    "label",
    [
        *("not_good", "nio", "ko", "bad", "goodyear", "abnormal", "0", "缺陷", "不良", "불량", "nicht gut"),
        *("def_front", "top side", "pass_through", "ok to bad", "unclean", "3"),
    ],
)
def test_kinds_of_defects_are_not_taken_for_good(label: str) -> None:
    assert not looks_good(label)


def test_of_two_labels_0_and_1_the_first_may_mean_good() -> None:
    with pytest.raises(DataInvalid, match=r"b/p/test/0 would count as defective.*rename the folder to good"):
        index_of("train/good/a.png", "train/good/b.png", "test/0/0.png", "test/1/0.png")
    with pytest.raises(DataInvalid, match=r"u/0 would count"):
        index_inference(objects(["0/0.png", "1/1.png"]), "u", "labelled", "_mask", True)


@pytest.mark.parametrize("labels", [("good", "0", "1"), ("0", "1", "2"), ("1", "2")])
def test_other_numbers_are_kinds_of_defects(labels: tuple[str, ...]) -> None:
    dataset = index_inference(objects([f"{label}/0.png" for label in labels]), "u", "labelled", "_mask", True)
    assert sorted(sample.label for sample in dataset.test) == sorted(labels)


COMPOSED, DECOMPOSED = "pr\u00fcf", "pru\u0308f"


@pytest.mark.parametrize(("of_image", "of_mask"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_masks_may_write_accents_in_another_way_than_images(of_image: str, of_mask: str) -> None:
    dataset = index_of(*TRAIN, f"test/{of_image}/{of_image}.png", f"ground_truth/{of_mask}/{of_mask}_mask.png")
    assert masks_of(dataset) == {f"test/{of_image}/{of_image}.png": (f"ground_truth/{of_mask}/{of_mask}_mask.png",)}
    assert dataset.warnings == ()


def test_where_both_ways_are_there_each_image_has_its_own_mask() -> None:
    names = (COMPOSED, DECOMPOSED)
    dataset = index_of(*TRAIN, *(f"{top}{name}{end}" for name in names for top, end in (IMAGE, MASK)))
    assert masks_of(dataset) == {f"test/x/{name}.png": (f"ground_truth/x/{name}_mask.png",) for name in names}


IMAGE, MASK = ("test/x/", ".png"), ("ground_truth/x/", "_mask.png")


def test_labels_that_differ_only_in_how_accents_are_written_are_named() -> None:
    dataset = index_of(*TRAIN, f"test/{COMPOSED}/0.png", f"test/{DECOMPOSED}/1.png")
    assert any("counted as different kinds of defect" in warning for warning in dataset.warnings)


@pytest.mark.parametrize("folder", ["@eaDir/a.png", "__MACOSX", "$RECYCLE.BIN", "System Volume Information"])
def test_folders_of_file_servers_are_no_images_and_not_missed(folder: str) -> None:
    dataset = index_of(*TRAIN, f"train/good/{folder}/SYNOPHOTO_THUMB_M.jpg", f"train/good/{folder}/a.txt")
    assert [sample.key for sample in dataset.train] == ["train/good/a.png", "train/good/b.png"]
    assert dataset.warnings == ()


@pytest.mark.parametrize("label", ["Unknown", "unlabelled", "NaN"])
def test_a_misspelt_unknown_is_refused(label: str) -> None:
    with pytest.raises(DataInvalid, match="rename the folder to unknown"):
        index_of(*TRAIN, f"test/{label}/0.png")


# Masks that would count as images


@pytest.mark.parametrize("label", ["ground_truth", "Ground Truth", "gt", "Masks", "mask"])
def test_a_folder_of_masks_is_no_kind_of_defect(label: str) -> None:
    with pytest.raises(
        DataInvalid, match=rf"b/p/test/{label} would count as images: .* move them .*, else rename the folder$"
    ):
        index_of(*TRAIN, "test/bad/0.png", f"test/{label}/bad/0_mask.png")
    with pytest.raises(DataInvalid, match=r"u/masks would count as images"):
        index_inference(objects(["good/0.png", "masks/1.png"]), "u", "labelled", "_mask", True)


@pytest.mark.parametrize("ending", ["_mask", "-GT", " masks", "_label"])
def test_a_folder_named_as_another_ones_masks_is_no_kind_of_defect(ending: str) -> None:
    keys = ("test/scratch/0.png", f"test/scratch{ending}/0.png")
    with pytest.raises(DataInvalid, match=rf"b/p/test/scratch{ending} would count as images"):
        index_of(*TRAIN, *keys)
    assert {sample.label for sample in index_of(*TRAIN, keys[1]).test} == {"good", f"scratch{ending}"}


@pytest.mark.parametrize("folder", ["test/hole/gt", "train/good/gt", "val/hole/deep/gt", "test/good/gt"])
def test_masks_in_a_folder_of_their_label_are_no_images(folder: str) -> None:
    """As in MVTec 3D-AD, whose images are in ``rgb``."""
    images = (f"{key.rpartition('/')[0]}/rgb/{key.rpartition('/')[2]}" for key in TRAIN)
    with pytest.raises(DataInvalid, match=rf"b/p/{folder} would count as images"):
        index_of(*images, f"{folder}/000.png")


@pytest.mark.parametrize("folder", ["train/good", "test/good", "test/x", "val/x"])
@pytest.mark.parametrize(("name", "suffix"), [("9_mask", "_mask"), ("9_GT", "_mask"), ("9.label", ""), ("9x", "x")])
def test_masks_beside_their_images_are_no_images(folder: str, name: str, suffix: str) -> None:
    """As in KolektorSDD2 and DAGM."""
    keys = (*TRAIN, f"{folder}/9.jpg", f"{folder}/{name}.png")
    with pytest.raises(DataInvalid, match=rf"1 images below s3://b/p are named as masks.*: {folder}/{name}\.png$"):
        index_of(*keys, suffix=suffix)


def test_masks_beside_the_images_of_a_labelled_input_are_no_images() -> None:
    keys = [f"x/{index}{ending}" for index in range(4) for ending in (".png", "_mask.png")]
    with pytest.raises(DataInvalid, match=r"4 images below u are.*: x/0_mask.png, x/1_mask.png, x/2_mask.png, \.\.\.$"):
        index_inference(objects(keys), "u", "labelled", "_mask", True)


def test_the_suffix_of_the_spec_tells_masks_beside_the_images_of_a_labelled_input() -> None:
    with pytest.raises(DataInvalid, match=r"1 images below u are named as masks"):
        index_inference(objects(["x/0.png", "x/0-truth.png"]), "u", "labelled", "-truth", True)


def test_what_only_has_a_name_like_a_masks_is_an_image() -> None:
    """Without an image of the rest of its name in the same folder, or with a mask of its own."""
    keys = ("test/x/0_mask.png", "test/y/0.png", "test/z/1.png", "test/z/1_mask.png")
    dataset = index_of(*TRAIN, *keys, "ground_truth/z/1_mask_mask.png", "ground_truth/z/1_mask.png")
    assert {sample.key for sample in dataset.test} == {*keys, "test/good/0.png"}


@pytest.mark.parametrize("folder", ["train/good", "test/good", "test/x", "val/x"])
def test_images_of_the_same_name_are_told(folder: str) -> None:
    """As in the data set of magnetic tiles, where one of them is the mask."""
    found = index_of(*TRAIN, f"{folder}/9.jpg", f"{folder}/9.png", "test/x/8.jpg", "ground_truth/x/8_mask.png")
    told = [warning for warning in found.warnings if "extension" in warning]
    assert told == [
        "2 images have the name of another one but for its extension: each counts, with the same masks: "
        f"{folder}/9.jpg, {folder}/9.png"
    ]


def test_images_of_the_same_name_are_told_of_a_labelled_input() -> None:
    found = index_inference(objects(["x/0.jpg", "x/0.png", "x/1.png", "good/1.jpg"]), "u", "labelled", "_mask", False)
    (told,) = found.warnings
    assert told.endswith(": x/0.jpg, x/0.png")


def test_masks_of_images_that_are_ok_may_have_the_suffix() -> None:
    """BTAD names masks as their images; people who say ok and ng name them as in MVTec AD all the same."""
    keys = ("train/ok/0.png", "train/ok/1.png", "test/ok/0.png", "test/ng/0.png", "ground_truth/ng/0_mask.png")
    assert masks_of(index_of(*keys)) == {"test/ng/0.png": keys[-1:]}
    found = index_inference(objects(keys), "u", "labelled", "_mask", True)
    assert masks_of(found) == {"test/ng/0.png": keys[-1:]}


def test_a_misspelt_training_folder_is_named() -> None:
    with pytest.raises(DataInvalid, match="is train/Good meant\\? Rename it to train/good"):
        index_of("train/Good/0.png", "train/Good/1.png", "test/good/0.png")


def test_labels_that_differ_only_in_case_are_named() -> None:
    dataset = index_of(*TRAIN, "test/Scratch/0.png", "test/scratch/0.png")
    assert "the labels Scratch and scratch are counted as different kinds of defect" in dataset.warnings


def test_images_in_folders_that_mean_nothing_are_counted_and_named() -> None:
    dataset = index_of(*TRAIN, "originals/a.png", "originals/b.png", "test/stray.png", "preview.png")
    assert dataset.warnings == (
        "4 images in folders that mean nothing are not used: originals/ (2), ./ (1), test/ (1)",
    )


def test_a_data_set_of_several_products_asks_for_one() -> None:
    with pytest.raises(DataInvalid, match="set category to one of its products: bottle, cable"):
        index_of("bottle/train/good/0.png", "cable/train/good/0.png", "license/x.png")


def test_images_of_a_labelled_input_that_are_not_scored_are_named() -> None:
    """But for those to learn from and to validate on."""
    keys = ("test/good/0.png", "test/x/0.png", "stray.png", "other/1.png", "test/stray.png")
    others = ("train/good/2.png", "train/stray.png", "val/stray.png", "validation/good/3.png")
    dataset = index_inference(objects((*keys, *others)), "u", "labelled", "_mask", False)
    assert dataset.warnings == ("3 images in folders that mean nothing are not used: other/ (1), ./ (1), test/ (1)",)


def test_what_macos_adds_to_images_is_no_image() -> None:
    dataset = index_of(*TRAIN, "test/good/._0.png", "train/good/._a.png", "__MACOSX/train/good/._a.png", "test/x/1.png")
    assert [sample.key for sample in (*dataset.train, *dataset.test)] == [*TRAIN, "test/x/1.png"]
    assert dataset.warnings == ("no masks below ground_truth/: pixel metrics are left out",)
