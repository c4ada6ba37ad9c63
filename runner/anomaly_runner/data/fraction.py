"""Take a fraction of a dataset: of each split, label by label, by the order of a hash of the seed and the image's key.

A smaller fraction is part of every larger one with the same seed, whatever the order of the listing, and a new image
takes the place of one other at most. Masks stay with their images.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from anomaly_runner.data.layouts.mask_pairs import missing_warning
from anomaly_runner.data.samples import DatasetIndex, Sample, in_drawn_order

_LEAST = 2
"""Images of each label of each split that stay, where there are as many: fewer than two have no spread, and no model
learns from less."""


def take_fraction(dataset: DatasetIndex, fraction: float, seed: int) -> DatasetIndex:
    """Keep a fraction of the images of each label in each split, two at least.

    Args:
        dataset: images by split, none of which has to be drawn any more.
        fraction: share that is kept, above 0 and at most 1.
        seed: of the draw.
    """
    if fraction == 1:
        return dataset
    kept = replace(
        dataset,
        train=_take(dataset.train, fraction, seed),
        validation=_take(dataset.validation, fraction, seed),
        test=_take(dataset.test, fraction, seed),
        fraction=fraction,
    )
    return _without_others(kept)


def _take(samples: Sequence[Sample], fraction: float, seed: int) -> tuple[Sample, ...]:
    by_label: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_label[sample.label].append(sample)
    taken = [sample for alike in by_label.values() for sample in _first(alike, fraction, seed)]
    return tuple(sorted(taken, key=lambda sample: sample.key))


def _first(samples: Sequence[Sample], fraction: float, seed: int) -> Sequence[Sample]:
    count = max(_LEAST, round(len(samples) * fraction))
    return in_drawn_order(samples, f"{seed}:fraction")[:count]


def _without_others(dataset: DatasetIndex) -> DatasetIndex:
    """The dataset with masks missed among its own images alone."""
    keys = {sample.key for sample in (*dataset.validation, *dataset.test)}
    missing = tuple(key for key in dataset.missing_masks if key in keys)
    before = missing_warning(dataset.missing_masks)
    if not set(before) <= set(dataset.warnings):  # masks are of no use in this run
        return replace(dataset, missing_masks=missing)
    others = tuple(warning for warning in dataset.warnings if warning not in before)
    return replace(dataset, missing_masks=missing, warnings=(*others, *missing_warning(missing)))
