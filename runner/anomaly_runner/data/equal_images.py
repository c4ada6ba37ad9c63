"""Images of the same bytes where that makes metrics wrong: learnt from and tested on, or under two labels."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from anomaly_runner.data.notices import name_first
from anomaly_runner.data.samples import DatasetIndex, Sample


def equal_images_warnings(dataset: DatasetIndex, digests: Mapping[str, bytes]) -> tuple[str, ...]:
    """The messages about images to validate or test on that equal others; synthetic defects are left out.

    Args:
        dataset: images by split.
        digests: of the files that were read, by key; empty for those that could not be opened.
    """
    known = {key: digest for key, digest in digests.items() if digest}
    scored = [
        sample for sample in (*dataset.validation, *dataset.test) if sample.source is None and sample.key in known
    ]
    learnt = {known.get(sample.key) for sample in dataset.train}
    again = [sample.key for sample in scored if known[sample.key] in learnt]
    return (
        *_told(again, "images to validate or test on equal images to learn from, so that metrics look better"),
        *_told(_under_two_labels(scored, known), "images equal one of another label"),
    )


def _under_two_labels(scored: Sequence[Sample], digests: Mapping[str, bytes]) -> list[str]:
    """Keys of the images that are there with another label too; an unknown one is none."""
    labels: defaultdict[bytes, set[str]] = defaultdict(set)
    labelled = [sample for sample in scored if sample.defect is not None]
    for sample in labelled:
        labels[digests[sample.key]].add(sample.label)
    return [sample.key for sample in labelled if len(labels[digests[sample.key]]) > 1]


def _told(keys: Sequence[str], what: str) -> tuple[str, ...]:
    return (f"{len(keys)} {what}: {name_first(keys)}",) if keys else ()
