"""Draw splits that are missing in a dataset's folders from the existing splits.

Whether an image is drawn depends only on the seed and its key: the keys are ordered by a hash of both, and the first
ones are drawn. The same seed gives the same splits on every machine and for any order of listing, and adding a few
images changes the split of few others.
"""

from collections.abc import Sequence
from dataclasses import replace

from anomaly_api.dataset import DatasetSplits
from anomaly_runner.data.samples import GOOD, UNKNOWN, DatasetIndex, Sample, in_drawn_order
from anomaly_runner.errors import DataInvalid

_MIN_TRAINING_IMAGES = 2


def complete_splits(dataset: DatasetIndex, splits: DatasetSplits, seed: int) -> DatasetIndex:
    """Draw good test images if there are none, then validation images if the spec asks for a share of the test set.

    ``warnings`` of the result tell how many images were moved.

    Raises:
        DataInvalid: there are no good test images, and too few training images to draw some from.
    """
    return _with_validation(_with_good_test_images(dataset, splits.good_test_fraction, seed), splits, seed)


def _with_good_test_images(dataset: DatasetIndex, fraction: float, seed: int) -> DatasetIndex:
    if any(sample.label == GOOD for sample in dataset.test):
        return dataset
    count = max(1, round(len(dataset.train) * fraction))
    if len(dataset.train) - count < _MIN_TRAINING_IMAGES:
        raise DataInvalid(
            f"no good test images (test/good), and splits.goodTestFraction {fraction:g} of the {len(dataset.train)} "
            f"training images leaves fewer than {_MIN_TRAINING_IMAGES} to learn from: add good test images"
        )
    moved, kept = _draw(dataset.train, count, f"{seed}:good test images")
    warning = f"no good test images (test/good): {count} of the {len(dataset.train)} good training images serve as such"
    return replace(dataset, train=kept, test=_sort((*dataset.test, *moved)), warnings=(*dataset.warnings, warning))


def _with_validation(dataset: DatasetIndex, splits: DatasetSplits, seed: int) -> DatasetIndex:
    if dataset.validation or splits.validation_fraction is None:
        return dataset
    # Synthetic defects stand in for real ones, all of which are left to be tested on.
    labels = [GOOD] if splits.synthetic_defects else sorted({sample.label for sample in dataset.test} - {UNKNOWN})
    moved = [
        sample for label in labels for sample in _draw_share(dataset.test, label, splits.validation_fraction, seed)
    ]
    chosen = {sample.key for sample in moved}
    kept = tuple(sample for sample in dataset.test if sample.key not in chosen)
    warning = f"no validation images (val/): {len(moved)} of the {len(dataset.test)} test images serve for validation"
    return replace(dataset, validation=_sort(moved), test=kept, warnings=(*dataset.warnings, warning))


def _draw_share(samples: Sequence[Sample], label: str, fraction: float, seed: int) -> tuple[Sample, ...]:
    """Draw a share of the images of one label, but never all of them."""
    found = [sample for sample in samples if sample.label == label]
    return _draw(found, min(round(len(found) * fraction), len(found) - 1), f"{seed}:validation")[0]


def _draw(samples: Sequence[Sample], count: int, salt: str) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Draw ``count`` samples; returns the drawn ones and the others, each sorted by key."""
    drawn = in_drawn_order(samples, salt)
    return _sort(drawn[:count]), _sort(drawn[count:])


def _sort(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    return tuple(sorted(samples, key=lambda sample: sample.key))
