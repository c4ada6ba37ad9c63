"""A fraction of a dataset: nested, by label and seed, with the masks of its images."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest

from anomaly_runner.data.fraction import take_fraction
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.data.summary import describe

SPLITS = ("train", "validation", "test")


def images(split: str, **counts: int) -> tuple[Sample, ...]:
    return tuple(
        Sample(
            f"{split}/{label}/{index:03d}.png",
            label,
            () if label in ("good", "unknown") else (f"truth/{split}/{label}/{index:03d}.png",),
        )
        for label, count in sorted(counts.items())
        for index in range(count)
    )


WHOLE = DatasetIndex(
    train=images("train", good=40),
    validation=images("val", good=8, dent=4),
    test=images("test", good=20, dent=12, scratch=3, rare=1, unknown=6),
    layout="MVTec AD",
)


def keys(dataset: DatasetIndex) -> set[str]:
    return set(dataset.file_keys())


def counts(samples: Iterable[Sample]) -> dict[str, int]:
    return dict(Counter(sample.label for sample in samples))


def test_each_label_of_each_split_keeps_its_share_and_two_at_least() -> None:
    quarter = take_fraction(WHOLE, 0.25, 7)
    assert counts(quarter.train) == {"good": 10}
    assert counts(quarter.validation) == {"good": 2, "dent": 2}
    assert counts(quarter.test) == {"good": 5, "dent": 3, "scratch": 2, "rare": 1, "unknown": 2}


def test_the_smallest_fraction_keeps_two_of_each_label() -> None:
    least = take_fraction(WHOLE, 1e-9, 7)
    assert counts(least.train) == {"good": 2}
    assert counts(least.test) == {"good": 2, "dent": 2, "scratch": 2, "rare": 1, "unknown": 2}


def test_one_is_the_whole_dataset() -> None:
    assert take_fraction(WHOLE, 1.0, 7) == WHOLE


@pytest.mark.parametrize("seed", range(5))
def test_smaller_fractions_are_parts_of_larger_ones(seed: int) -> None:
    nested = [keys(take_fraction(WHOLE, fraction, seed)) for fraction in (0.01, 0.1, 0.25, 0.3, 0.5, 0.9, 1.0)]
    assert all(small <= large for small, large in pairwise(nested))
    assert len(nested[0]) < len(nested[2]) < len(nested[4]) < len(nested[6])


def test_the_draw_depends_on_the_seed_alone() -> None:
    turned = replace(WHOLE, train=WHOLE.train[::-1], test=WHOLE.test[::-1])
    first = take_fraction(WHOLE, 0.5, 3)
    assert take_fraction(turned, 0.5, 3) == first
    other = take_fraction(WHOLE, 0.5, 4)
    assert all(getattr(other, split) != getattr(first, split) for split in SPLITS)


def test_samples_stay_in_the_order_of_their_keys() -> None:
    half = take_fraction(WHOLE, 0.5, 3)
    assert all(list(samples) == sorted(samples, key=lambda sample: sample.key) for samples in (half.train, half.test))


def test_a_new_image_takes_the_place_of_one_other_at_most() -> None:
    for index in range(40, 60):
        added = replace(WHOLE, train=(*WHOLE.train, Sample(f"train/good/{index:03d}.png", "good")))
        before, after = keys(take_fraction(WHOLE, 0.25, 3)), keys(take_fraction(added, 0.25, 3))
        assert len(before - after) <= 1
        assert after - before <= {f"train/good/{index:03d}.png"}


def test_masks_go_with_their_images() -> None:
    half = take_fraction(WHOLE, 0.5, 3)
    by_key = {sample.key: sample for sample in (*WHOLE.train, *WHOLE.validation, *WHOLE.test)}
    kept = [*half.train, *half.validation, *half.test]
    assert all(by_key[sample.key] == sample for sample in kept)
    masks = {key for key in half.file_keys() if key.startswith("truth/")}
    assert masks == {f"truth/{sample.key}" for sample in kept if sample.label not in ("good", "unknown")}


def test_missing_masks_are_those_of_the_images_that_are_used() -> None:
    test = tuple(replace(sample, masks=()) if sample.label == "dent" else sample for sample in WHOLE.test)
    bare = tuple(sample.key for sample in test if sample.label == "dent")
    told = "12 defective images have no mask and count as wholly defective"
    found = take_fraction(replace(WHOLE, test=test, missing_masks=bare, warnings=("first", told)), 0.25, 3)
    assert found.missing_masks == tuple(sample.key for sample in found.test if sample.label == "dent")
    assert found.warnings == ("first", "3 defective images have no mask and count as wholly defective")


def test_no_warning_is_left_when_every_image_that_is_used_has_its_mask() -> None:
    absent = replace(WHOLE, missing_masks=("test/gone/000.png",))
    told = "1 defective images have no mask and count as wholly defective"
    assert take_fraction(replace(absent, warnings=(told,)), 0.25, 3).warnings == ()


def test_the_line_on_the_dataset_says_the_fraction() -> None:
    assert describe(take_fraction(WHOLE, 0.25, 7)).startswith(
        "MVTec AD (fraction 0.25 of each label): 10 good to learn"
    )
    assert describe(WHOLE).startswith("MVTec AD: 40 good to learn from")
