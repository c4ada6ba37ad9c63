"""What the step check has found."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from anomaly_api.reasons import Reason
from anomaly_api.run import RunSummary
from anomaly_api.status import Listing, Stage
from anomaly_runner.context import Context
from anomaly_runner.data.samples import DatasetIndex
from anomaly_runner.data.summary import describe_briefly
from anomaly_runner.errors import MESSAGE_LIMIT


@dataclass(frozen=True)
class Checked:
    """A run in which nothing was found that would keep it from its end.

    Attributes:
        summary: the termination message.
        counts: number of images by split, and by label.
    """

    summary: RunSummary
    counts: Mapping[str, Counter[str]]


def passed(
    dataset: DatasetIndex | None,
    context: Context,
    *,
    with_masks: bool,
    left_out: str = "",
    unchecked: Sequence[str],
    listing: Listing | None,
) -> Checked:
    """The outcome of a check that found nothing wrong.

    Args:
        dataset: the images; None if they were not looked at.
        context: for the warnings.
        with_masks: whether masks are of use.
        left_out: what the run will not measure, and why, for people; empty for nothing.
        unchecked: what could not be known, for people.
        listing: what was listed, for the next step.
    """
    found = describe_briefly(dataset, with_masks=with_masks) if dataset else "nothing wrong was found"
    silence = f"not checked: {', '.join(unchecked)}" if unchecked else ""
    message = "; ".join(part for part in (found, left_out, silence) if part)
    summary = RunSummary(
        reason=Reason.COMPLETE,
        message=message[:MESSAGE_LIMIT],
        stage=Stage.CHECK,
        warnings=context.record.warnings,
        listing=listing,
    )
    return Checked(summary, _counts(dataset) if dataset else {})


def _counts(dataset: DatasetIndex) -> dict[str, Counter[str]]:
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {split: Counter(sample.label for sample in samples) for split, samples in splits.items() if samples}
