"""An image file with the meaning that a layout gives to its path."""

import posixpath
from dataclasses import dataclass
from typing import Literal

from anomaly_runner.data.samples import GOOD, UNKNOWN, Sample

Role = Literal["train", "val", "test", "mask"]
"""What a file is for: to learn from, to find thresholds on, to test on, or the ground truth of one of these."""


@dataclass(frozen=True)
class PlacedFile:
    """An image file and its place in a layout.

    Attributes:
        key: path below the dataset's root.
        role: what it is for.
        label: ``GOOD``, ``UNKNOWN`` or a kind of defect; for a mask, the folder that stands for its images' label.
        name: path below the label's folder without the extension, by which masks and images are paired.
    """

    key: str
    role: Role
    label: str
    name: str

    @property
    def folder(self) -> str:
        """The label's folder, below the dataset's root."""
        return "/".join(self.key.split("/")[: -1 - self.name.count("/")])

    def sample(self, masks: tuple[str, ...] = ()) -> Sample:
        """The image with its masks."""
        return Sample(self.key, self.label, masks)


def is_unused(role: Role, label: str) -> bool:
    """Whether images with this label are of no use in this role: learning takes good ones, validation labelled ones."""
    return (role == "train" and label != GOOD) or (role == "val" and label == UNKNOWN)


def is_defective(label: str) -> bool:
    """Whether the label is a kind of defect."""
    return label not in (GOOD, UNKNOWN)


def placed(key: str, role: Role, label: str, below: int) -> PlacedFile:
    """The file at a place whose label's folder is made of the first ``below`` parts of the key."""
    # Not with pathlib, which takes "a//b.png" for "a/b.png": a bucket may hold both.
    parts = posixpath.splitext(key)[0].split("/")[below:]
    return PlacedFile(key, role, label, "/".join(parts))
