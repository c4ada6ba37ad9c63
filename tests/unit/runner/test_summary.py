"""What a run says of its images: in the report, and in short in the condition DataReady."""

import pytest

from anomaly_api.run import UnreadableImage
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.data.summary import describe, describe_briefly


def images(masked: int = 0, **counts: int) -> tuple[Sample, ...]:
    """Images by label; the first ``masked`` of each kind of defect have a mask."""
    return tuple(
        Sample(f"{label}/{index}.png", label, (f"masks/{label}/{index}.png",) if index < masked else ())
        for label, count in counts.items()
        for index in range(count)
    )


GOOD, UNLABELLED = images(good=5), images(unknown=3)
DEFECTS = images(2, dent=3, scratch=2)


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (
            DatasetIndex(train=GOOD, test=(*GOOD, *DEFECTS, *UNLABELLED), layout="MVTec AD"),
            "MVTec AD: 5 good to learn from, 13 to test (good 5, dent 3, unknown 3, scratch 2), 4 masks",
        ),
        (
            DatasetIndex(train=GOOD, validation=DEFECTS, test=GOOD, layout="VisA", fraction=0.25),
            "VisA (fraction 0.25 of each label): 5 good to learn from, 5 to validate on (dent 3, scratch 2), "
            "5 good to test, 4 masks",
        ),
        (DatasetIndex(test=UNLABELLED), "images: 3 to score (unknown 3)"),
        (DatasetIndex(test=images(2, dent=2)), "images: 2 to score (dent 2), 2 masks"),
        (DatasetIndex(test=images(b=1, a=1, good=1)), "images: 3 to score (good 1, a 1, b 1)"),
        (
            DatasetIndex(test=images(good=1, a=1, b=2, c=1, d=1, e=1, f=1, g=1, h=1)),
            "images: 10 to score (good 1, b 2, a 1, c 1, d 1, e 1, f 1, g 1, ...)",
        ),
        (
            DatasetIndex(test=images(good=1, a=1, b=1, c=1, d=1, e=1, f=1, g=1)),
            "images: 8 to score (good 1, a 1, b 1, c 1, d 1, e 1, f 1, g 1)",
        ),
    ],
)
def test_a_report_counts_the_labels(dataset: DatasetIndex, expected: str) -> None:
    assert describe(dataset) == expected


def test_a_mask_of_several_images_is_counted_once() -> None:
    shared = tuple(Sample(f"dent/{index}.png", "dent", ("mask.png",)) for index in range(3))
    assert describe(DatasetIndex(test=shared)) == "images: 3 to score (dent 3), 1 masks"
    assert describe_briefly(DatasetIndex(test=shared), with_masks=True).endswith(", 1 masks")


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (
            DatasetIndex(train=GOOD, validation=images(good=1, dent=1), test=(*GOOD, *DEFECTS, *UNLABELLED)),
            "5 to learn from, 2 to validate on: 1 good, 1 of one kind of defect, "
            "13 to test on: 5 good, 5 of 2 kinds of defect, 3 without a label, "
            "4 masks (2 defective images have none)",
        ),
        (DatasetIndex(test=UNLABELLED), "3 to score"),
        (DatasetIndex(test=(*UNLABELLED, *GOOD)), "8 to score: 5 good, 3 without a label"),
        (DatasetIndex(test=images(dent=2)), "2 to score: 2 of one kind of defect, no masks"),
        (DatasetIndex(test=images(2, dent=2)), "2 to score: 2 of one kind of defect, 2 masks"),
        (
            DatasetIndex(test=images(1, dent=1), validation=GOOD),
            "5 to validate on: 5 good, 1 to score: 1 of one kind of",
        ),
    ],
)
def test_a_condition_counts_what_matters(dataset: DatasetIndex, expected: str) -> None:
    found = describe_briefly(dataset, with_masks=True)
    assert found == expected if expected[-1] != "f" else found.startswith(expected)


def test_masks_are_not_missed_where_they_are_of_no_use() -> None:
    assert (
        describe_briefly(DatasetIndex(test=images(dent=2)), with_masks=False) == "2 to score: 2 of one kind of defect"
    )


def test_what_cannot_be_used_is_counted() -> None:
    broken = (UnreadableImage(path="a.png", problem="damaged"),)
    dataset = DatasetIndex(train=GOOD, test=GOOD, unreadable=broken)
    assert describe_briefly(dataset, with_masks=True) == (
        "5 to learn from, 5 to test on: 5 good, 1 that cannot be used"
    )


def test_a_kind_of_defect_may_have_the_name_that_synthetic_defects_have() -> None:
    """They are told apart by what they are, not by a name that a folder may have."""
    named = tuple(Sample(f"test/synthetic defect/{index}.png", "synthetic defect") for index in range(2))
    painted = Sample("val/good/0.png (synthetic defect 0)", "synthetic defect", source="val/good/0.png")
    masked = Sample("test/dent/0.png", "dent", ("mask.png",))
    dataset = DatasetIndex(train=GOOD, validation=(*images(good=1), painted), test=(*named, masked))
    assert describe_briefly(dataset, with_masks=True) == (
        "5 to learn from, 2 to validate on: 1 good, 1 with synthetic defects, 3 to test on: 3 of 2 kinds of defect, "
        "1 masks (2 defective images have none)"
    )
