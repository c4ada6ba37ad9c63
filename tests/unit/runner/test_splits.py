"""Missing splits are drawn by the seed: independent of the listing's order, and without duplicate images."""

import hashlib
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from anomaly_api.dataset import DatasetSplits
from anomaly_runner.data.folder_layout import index_experiment
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.data.splits import complete_splits
from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage.store import ObjectInfo

TRAIN = [f"train/good/{index:03d}.png" for index in range(50)]
GOOD = [f"test/good/{index:03d}.png" for index in range(20)]
DENT = [f"test/dent/{index:03d}.png" for index in range(11)]
ONE = ["test/rare/000.png"]
UNKNOWN = [f"test/unknown/{index}.png" for index in range(5)]


def dataset(keys: Iterable[str]) -> DatasetIndex:
    return index_experiment([ObjectInfo(key, 1, "e") for key in keys], "s3://b/p", "_mask", False)


def keys(samples: Iterable[Sample]) -> list[str]:
    return [sample.key for sample in samples]


def labels(samples: Iterable[Sample]) -> list[str]:
    return sorted({sample.label for sample in samples})


def test_existing_splits_are_kept() -> None:
    found = dataset(TRAIN + GOOD + DENT)
    assert complete_splits(found, DatasetSplits(), 1) == found


def test_good_test_images_come_from_the_training_images() -> None:
    found = complete_splits(dataset(TRAIN + DENT), DatasetSplits(good_test_fraction=0.3), 7)
    moved = [key for key in keys(found.test) if key.startswith("train/")]
    assert len(moved) == 15
    assert sorted(moved + keys(found.train)) == TRAIN
    assert labels(found.test) == ["dent", "good"]
    assert found.warnings == ("no good test images (test/good): 15 of the 50 good training images serve as such",)


def test_the_sample_of_good_parts_divides_them_as_it_says() -> None:
    sample = (Path(__file__).parents[3] / "manifests/samples/gravel-good-parts.yaml").read_text()
    splits = DatasetSplits.model_validate(yaml.safe_load(sample)["spec"]["dataset"]["splits"])
    found = complete_splits(dataset(f"train/good/{index:03d}.png" for index in range(200)), splits, 42)
    assert (len(found.train), len(found.validation), len(found.test)) == (80, 60, 60)
    assert "Of the 200 of `make demo` the model learns from 80; by 60 the\n" in sample


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_listing() -> None:
    shuffled = TRAIN + DENT
    random.Random(0).shuffle(shuffled)
    splits = DatasetSplits(validation_fraction=0.5)
    first, again = complete_splits(dataset(TRAIN + DENT), splits, 3), complete_splits(dataset(shuffled), splits, 3)
    assert first == again
    assert keys(complete_splits(dataset(TRAIN + DENT), splits, 4).train) != keys(first.train)


def test_a_new_image_moves_few_others() -> None:
    before = set(keys(complete_splits(dataset(TRAIN + DENT), DatasetSplits(), 3).train))
    after = set(keys(complete_splits(dataset([*TRAIN, "train/good/new.png", *DENT]), DatasetSplits(), 3).train))
    assert len(before ^ after) <= 2


def test_validation_takes_its_share_of_each_label_and_leaves_one() -> None:
    found = complete_splits(dataset(TRAIN + GOOD + DENT + ONE + UNKNOWN), DatasetSplits(validation_fraction=0.4), 5)
    counts = {label: sum(sample.label == label for sample in found.validation) for label in ("good", "dent", "rare")}
    assert counts == {"good": 8, "dent": 4, "rare": 0}
    assert not set(keys(found.validation)) & set(keys(found.test))
    assert len(found.validation) + len(found.test) == 37
    assert sum(sample.label == "unknown" for sample in found.test) == 5
    assert found.warnings == ("no validation images (val/): 12 of the 37 test images serve for validation",)
    assert keys(found.train) == TRAIN


def test_folders_of_validation_images_win_over_a_share() -> None:
    found = complete_splits(
        dataset(TRAIN + GOOD + DENT + ["val/good/0.png", "val/dent/0.png"]), DatasetSplits(validation_fraction=0.9), 5
    )
    assert keys(found.validation) == ["val/dent/0.png", "val/good/0.png"]
    assert keys(found.test) == sorted(GOOD + DENT)


def test_too_few_training_images_cannot_be_split() -> None:
    with pytest.raises(DataInvalid, match=r"goodTestFraction 0\.2 of the 2 training images"):
        complete_splits(dataset(TRAIN[:2] + DENT), DatasetSplits(), 1)


@pytest.mark.parametrize("folder", ["train/good", "Data/Images/Normal", "train/ok"])
def test_good_images_alone_are_enough_in_every_layout_and_some_are_held_out(folder: str) -> None:
    only = [f"{folder}/{index:03d}.png" for index in range(50)]
    splits = DatasetSplits(good_test_fraction=0.4, validation_fraction=0.5)
    found = complete_splits(dataset(only), splits, 3)
    assert [len(split) for split in (found.train, found.validation, found.test)] == [30, 10, 10]
    held_out = keys(found.validation) + keys(found.test)
    assert sorted(keys(found.train) + held_out) == only
    assert labels((*found.validation, *found.test)) == ["good"]


def test_two_training_images_may_be_left() -> None:
    found = complete_splits(dataset(TRAIN[:3] + DENT), DatasetSplits(), 1)
    assert (len(found.train), labels(found.test)) == (2, ["dent", "good"])


@pytest.mark.parametrize(("images", "taken"), [(1, 0), (2, 1), (3, 2), (11, 10)])
def test_validation_never_takes_all_images_of_a_label(images: int, taken: int) -> None:
    found = complete_splits(dataset(TRAIN + GOOD + DENT[:images]), DatasetSplits(validation_fraction=0.95), 5)
    assert sum(sample.label == "dent" for sample in found.validation) == taken
    assert sum(sample.label == "dent" for sample in found.test) == images - taken


def first_by_hash(found: Iterable[str], count: int, salt: str) -> list[str]:
    return sorted(sorted(found, key=lambda key: hashlib.sha256(f"{salt}:{key}".encode()).digest())[:count])


def test_the_draw_is_the_one_that_earlier_releases_made() -> None:
    """The same seed has to give the same splits, or results of two releases are not of the same images."""
    found = complete_splits(dataset(TRAIN + DENT), DatasetSplits(validation_fraction=0.5), 7)
    moved = first_by_hash(TRAIN, 10, "7:good test images")
    validation = [*first_by_hash(DENT, 6, "7:validation"), *first_by_hash(moved, 5, "7:validation")]
    assert keys(found.train) == sorted(set(TRAIN) - set(moved))
    assert keys(found.validation) == sorted(validation)
    assert keys(found.test) == sorted((set(DENT) | set(moved)) - set(validation))
