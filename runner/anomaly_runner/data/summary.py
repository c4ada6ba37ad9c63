"""What was found in a dataset, as one sentence: in detail for the report, in short for a condition."""

from collections import Counter
from collections.abc import Sequence

from anomaly_runner.data.samples import GOOD, UNKNOWN, DatasetIndex, Sample

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


def describe_briefly(dataset: DatasetIndex, *, with_masks: bool) -> str:
    """Say how many images there are to learn from, to test on or to score, how many are good, and how many masks.

    Args:
        dataset: images by split.
        with_masks: whether masks are of use, so that it is worth saying that there are none.
    """
    parts = [
        f"{len(dataset.train)} to learn from" if dataset.train else "",
        _kinds(dataset.validation, "to validate on"),
        _kinds(dataset.test, "to test on" if dataset.train else "to score"),
        _masks(dataset) if with_masks else "",
        f"{len(dataset.unreadable)} that cannot be used" if dataset.unreadable else "",
    ]
    return ", ".join(part for part in parts if part)


def _kinds(samples: Sequence[Sample], purpose: str) -> str:
    """The number of images of a split and, of those with labels, how many are good and of how many kinds of defect."""
    labels = Counter(sample.label for sample in samples if sample.source is None)
    synthetic = len(samples) - labels.total()
    good, unknown = labels.pop(GOOD, 0), labels.pop(UNKNOWN, 0)
    if unknown == len(samples):
        return f"{unknown} {purpose}" if unknown else ""
    kinds = f"{len(labels)} kinds of defect" if len(labels) > 1 else "one kind of defect"
    counts = [
        f"{good} good" if good else "",
        f"{labels.total()} of {kinds}" if labels else "",
        f"{synthetic} with synthetic defects" if synthetic else "",
        f"{unknown} without a label" if unknown else "",
    ]
    return f"{len(samples)} {purpose}: {', '.join(count for count in counts if count)}"


def _masks(dataset: DatasetIndex) -> str:
    """How many masks there are, of how many defective images."""
    scored = (*dataset.validation, *dataset.test)
    defective = [sample for sample in scored if sample.defect and sample.source is None]
    if not defective:
        return ""
    masks = {key for sample in scored for key in sample.masks}
    if not masks:
        return "no masks"
    lacking = sum(not sample.masks for sample in defective)
    return f"{len(masks)} masks" + (f" ({lacking} defective images have none)" if lacking else "")


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
