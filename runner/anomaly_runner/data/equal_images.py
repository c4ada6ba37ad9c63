"""Images of the same bytes where that makes metrics wrong: learnt from and tested on, or under two labels."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from anomaly_runner.data.notices import name_first
from anomaly_runner.data.samples import DatasetIndex, Sample


def equal_images_warnings(dataset: DatasetIndex, digests: Mapping[str, bytes]) -> tuple[str, ...]:
    """The messages about images of a split that equal those of an earlier one, and about contradictory labels.

    Args:
        dataset: images by split; those with synthetic defects are left out.
        digests: of the files that were read, by key; empty for those that could not be opened.
    """
    known = {key: digest for key, digest in digests.items() if digest}
    train, validation, test = (
        [sample for sample in samples if sample.source is None and sample.key in known]
        for samples in (dataset.train, dataset.validation, dataset.test)
    )
    scored = [*validation, *test]
    return (
        *_told(_in_both(scored, train, known), "images to validate or test on equal images to learn from"),
        *_told(_in_both(test, validation, known), "images to test on equal images to validate on"),
        *_told(_under_two_labels(scored, known), "images equal one of another label"),
    )


def _in_both(samples: Sequence[Sample], others: Sequence[Sample], digests: Mapping[str, bytes]) -> list[str]:
    """Keys of the samples that equal any of the others."""
    there = {digests[sample.key] for sample in others}
    return [sample.key for sample in samples if digests[sample.key] in there]


def _under_two_labels(scored: Sequence[Sample], digests: Mapping[str, bytes]) -> list[str]:
    """Keys of the images that are there with another label too; an unknown one is none."""
    labels: defaultdict[bytes, set[str]] = defaultdict(set)
    labelled = [sample for sample in scored if sample.defect is not None]
    for sample in labelled:
        labels[digests[sample.key]].add(sample.label)
    return [sample.key for sample in labelled if len(labels[digests[sample.key]]) > 1]


def _told(keys: Sequence[str], what: str) -> tuple[str, ...]:
    return (f"{len(keys)} {what}, which makes metrics wrong: {name_first(keys)}",) if keys else ()
