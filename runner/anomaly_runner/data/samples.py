"""The images of a run as they are known before any is opened: key, label, mask and split."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from anomaly_api.run import UnreadableImage

GOOD = "good"
"""Label of an image without a defect."""
UNKNOWN = "unknown"
"""Label of an image that is scored but counts in no metric."""
SYNTHETIC = "synthetic defect"
"""Label of a good image with a defect painted on it."""


def is_defect(label: str) -> bool | None:
    """Whether a label is one of defective images; None when it is unknown."""
    return None if label == UNKNOWN else label != GOOD


@dataclass(frozen=True)
class Sample:
    """One image of a dataset.

    Attributes:
        key: path below the dataset's root.
        label: ``GOOD``, ``UNKNOWN``, or a kind of defect.
        masks: keys of its ground-truth masks, of which each shows a part of what is defective; empty if it has none.
        source: key of the good image that a synthetic defect is painted on; None for an image as it is.
    """

    key: str
    label: str
    masks: tuple[str, ...] = ()
    source: str | None = None

    @property
    def file(self) -> str:
        """Key of the file to read."""
        return self.source or self.key

    @property
    def has_mask(self) -> bool:
        """Whether it is known which pixels are defective."""
        return bool(self.masks) or self.source is not None

    @property
    def defect(self) -> bool | None:
        """Whether the image is known to be defective; None when its label is unknown."""
        return is_defect(self.label)


def in_drawn_order(samples: Iterable[Sample], salt: str) -> list[Sample]:
    """Return samples in an order that depends on the salt and each one's key alone, whatever others there are."""
    return sorted(samples, key=lambda sample: hashlib.sha256(f"{salt}:{sample.key}".encode()).digest())


@dataclass(frozen=True, kw_only=True)
class DatasetIndex:
    """The images of a run by split, each split sorted by key.

    Attributes:
        train: good images to learn from; empty for an inference.
        validation: images that thresholds are found on; may be empty.
        test: images that are scored.
        unreadable: image files that were refused because of their name or size, without opening them.
        missing_masks: keys of defective images that have no mask although others have one.
        warnings: messages for the user about the dataset.
        layout: what the layout of the files is called; empty for an inference.
        fraction: share of the images of each label that the splits hold, of those that were found.
    """

    train: tuple[Sample, ...] = ()
    validation: tuple[Sample, ...] = ()
    test: tuple[Sample, ...] = ()
    unreadable: tuple[UnreadableImage, ...] = ()
    missing_masks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    layout: str = ""
    fraction: float = 1.0

    @property
    def has_masks(self) -> bool:
        """Whether any test image has a mask, which pixel metrics need."""
        return any(sample.masks for sample in self.test)

    @property
    def synthetic_defects(self) -> int:
        """Number of validation images with a synthetic defect."""
        return sum(sample.source is not None for sample in self.validation)

    def file_keys(self) -> list[str]:
        """Keys of all files, in the order of use: training, validation and test images, each with its masks."""
        samples = (*self.train, *self.validation, *self.test)
        return [key for sample in samples for key in (sample.file, *sample.masks)]
