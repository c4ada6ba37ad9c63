"""Which validation images have synthetic defects, that they stay apart from real ones, and what is said of them."""

from collections.abc import Sequence

import pytest

from anomaly_api.dataset import DatasetSplits, SyntheticDefects
from anomaly_api.status import Curve
from anomaly_api.sweep_exchange import epochs_of
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.data.splits import complete_splits
from anomaly_runner.data.stored_listing import FoundImages, from_parquet, to_parquet
from anomaly_runner.data.summary import describe, describe_briefly
from anomaly_runner.data.synthetic import add_synthetic_defects
from anomaly_runner.errors import InvalidConfig
from anomaly_runner.storage.store import ObjectInfo


def good(split: str, count: int) -> tuple[Sample, ...]:
    return tuple(Sample(f"{split}/good/{index}.png", "good") for index in range(count))


def dataset(validation: Sequence[Sample]) -> DatasetIndex:
    return DatasetIndex(train=good("train", 5), validation=tuple(validation), test=good("test", 2), layout="MVTec AD")


def painted(found: DatasetIndex) -> list[Sample]:
    return [sample for sample in found.validation if sample.source is not None]


def test_every_good_validation_image_has_one_and_stays_good_itself() -> None:
    found = add_synthetic_defects(dataset(good("val", 3)), SyntheticDefects(), 42)
    assert len({sample.key for sample in found.validation}) == 6
    assert sorted(sample.source or "" for sample in painted(found)) == [f"val/good/{index}.png" for index in range(3)]
    assert all(sample.defect and sample.has_mask for sample in painted(found))
    assert [sample for sample in found.validation if sample.source is None] == list(good("val", 3))
    assert found.synthetic_defects == 3
    # They have no files: what is downloaded are the good images.
    assert set(found.file_keys()) == {sample.key for sample in (*found.train, *good("val", 3), *found.test)}


@pytest.mark.parametrize(("images", "numbers"), [(2, [0, 0]), (7, [0, 0, 0, 1, 1, 1, 2])])
def test_another_number_is_spread_over_the_good_images(images: int, numbers: list[int]) -> None:
    """Those of an image are counted in their keys, which say what is painted."""
    found = painted(add_synthetic_defects(dataset(good("val", 3)), SyntheticDefects(images=images), 42))
    counted = sorted(sample.key.removeprefix(f"{sample.source} ") for sample in found)
    assert counted == [f"(synthetic defect {number})" for number in numbers]


def test_the_seed_draws_which() -> None:
    drawn = {
        seed: {sample.source for sample in painted(add_synthetic_defects(dataset(good("val", 30)), FIVE, seed))}
        for seed in (1, 2)
    }
    assert drawn[1] != drawn[2]
    assert drawn[1] == {sample.source for sample in painted(add_synthetic_defects(dataset(good("val", 30)), FIVE, 1))}


FIVE = SyntheticDefects(images=5)


def test_without_good_validation_images_or_with_real_defects_they_are_refused() -> None:
    field = r"^dataset\.splits\.syntheticDefects "
    with pytest.raises(
        InvalidConfig, match=rf"{field}.*there are none: add val/good, or set splits\.validationFraction$"
    ):
        add_synthetic_defects(dataset(()), SyntheticDefects(), 42)
    with pytest.raises(
        InvalidConfig, match=rf"{field}.*real ones to validate with: remove it, or the defects below val/$"
    ):
        add_synthetic_defects(dataset([*good("val", 3), Sample("val/dent/0.png", "dent")]), SyntheticDefects(), 42)


def test_a_share_for_validation_is_drawn_from_good_images_alone() -> None:
    dents = tuple(Sample(f"test/dent/{index}.png", "dent") for index in range(10))
    whole = DatasetIndex(train=good("train", 5), test=tuple(sorted((*good("test", 10), *dents), key=lambda s: s.key)))
    splits = DatasetSplits(validation_fraction=0.5, synthetic_defects=SyntheticDefects())
    found = complete_splits(whole, splits, 42)
    assert {sample.label for sample in found.validation} == {"good"}
    assert sum(sample.label == "dent" for sample in found.test) == 10


def test_the_report_and_the_check_count_them_apart() -> None:
    found = add_synthetic_defects(dataset(good("val", 3)), SyntheticDefects(), 42)
    assert "6 to validate on (good 3, synthetic defect 3)" in describe(found)
    assert "6 to validate on: 3 good, 3 with synthetic defects" in describe_briefly(found, with_masks=True)


def test_a_stored_listing_leads_to_the_same_images() -> None:
    found = add_synthetic_defects(dataset(good("val", 3)), SyntheticDefects(), 42)
    objects = tuple(ObjectInfo(key, 1, "e") for key in dict.fromkeys(found.file_keys()))
    stored = from_parquet(to_parquet(FoundImages(found, objects), "x"), "x")
    assert add_synthetic_defects(stored.dataset, SyntheticDefects(), 42) == found


def test_a_curve_of_synthetic_defects_prunes_no_trial_that_real_ones_judge() -> None:
    curve = Curve(metric="imageAUROC", epochs=(1, 2), values=(0.5, 0.6))
    assert epochs_of(curve, "image.AUROC") == {0: 0.5, 1: 0.6}
    assert epochs_of(curve.model_copy(update={"synthetic": True}), "image.AUROC") == {}
    assert epochs_of(curve.model_copy(update={"synthetic": True}), "synthetic.imageAUROC") == {0: 0.5, 1: 0.6}
    assert epochs_of(curve, "synthetic.imageAUROC") == {}
