"""What was found in a dataset, as one sentence."""

from collections import Counter
from collections.abc import Sequence

from anomaly_runner.data.samples import GOOD, DatasetIndex, Sample

_NAMED_LABELS = 8
"""How many labels the sentence counts."""


def describe(dataset: DatasetIndex) -> str:
    """Say how many images of which labels are in each split, and how many masks there are."""
    masks = {key for sample in (*dataset.validation, *dataset.test) for key in sample.masks}
    parts = [
        f"{len(dataset.train)} good to learn from" if dataset.train else "",
        _split(dataset.validation, "to validate on"),
        _split(dataset.test, "to test" if dataset.train else "to score"),
        f"{len(masks)} masks" if masks else "",
    ]
    share = f" (fraction {dataset.fraction:g} of each label)" if dataset.fraction < 1 else ""
    return f"{dataset.layout or 'images'}{share}: {', '.join(part for part in parts if part)}"


def _split(samples: Sequence[Sample], purpose: str) -> str:
    """The number of images of a split and, if they are not all good, of each of their labels."""
    labels = Counter(sample.label for sample in samples)
    if not labels:
        return ""
    if set(labels) == {GOOD}:
        return f"{len(samples)} good {purpose}"
    counted = sorted(labels.items(), key=lambda item: (item[0] != GOOD, -item[1], item[0]))
    named = [f"{label} {count}" for label, count in counted[:_NAMED_LABELS]]
    return f"{len(samples)} {purpose} ({', '.join(named)}{', ...' if len(counted) > _NAMED_LABELS else ''})"
