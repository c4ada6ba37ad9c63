"""Validation images with synthetic defects: which ones there are. ``training.synthetic_painter`` paints them.

They have no files of their own: each is read from the good image below it, and painted as it is read.
"""

from dataclasses import replace

from anomaly_api.dataset import SyntheticDefects
from anomaly_runner.data.samples import GOOD, SYNTHETIC, DatasetIndex, Sample, in_drawn_order
from anomaly_runner.errors import InvalidConfig


def add_synthetic_defects(dataset: DatasetIndex, spec: SyntheticDefects | None, seed: int) -> DatasetIndex:
    """Add images with synthetic defects to the validation images.

    Args:
        dataset: all splits of which are complete.
        spec: how many; None for none.
        seed: draws which images they are painted on, where there are fewer than good ones.

    Raises:
        InvalidConfig: there is no good validation image to paint on, or there are real defects to validate with.
    """
    if spec is None:
        return dataset
    good = [sample for sample in dataset.validation if sample.label == GOOD]
    if not good:
        raise InvalidConfig(
            "dataset.splits.syntheticDefects are painted on good validation images, and there are none: add val/good, "
            "or set splits.validationFraction"
        )
    if any(sample.defect for sample in dataset.validation):
        raise InvalidConfig(
            "dataset.splits.syntheticDefects stand in for real defects, and there are real ones to validate with: "
            "remove it, or the defects below val/"
        )
    drawn = in_drawn_order(good, f"{seed}:synthetic")
    count = spec.images or len(good)
    painted = [_painted(drawn[number % len(drawn)], number // len(drawn)) for number in range(count)]
    validation = sorted((*dataset.validation, *painted), key=lambda sample: sample.key)
    return replace(dataset, validation=tuple(validation))


def _painted(good: Sample, number: int) -> Sample:
    """The image with its defect of a number, from 0."""
    return Sample(f"{good.key} ({SYNTHETIC} {number})", SYNTHETIC, source=good.key)
