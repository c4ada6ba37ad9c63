"""What a run has noticed about files that it uses nevertheless, in one warning for each kind."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

_NAMED = 3
"""Number of files that a message names."""


def name_first(names: Sequence[str], most: int = _NAMED) -> str:
    """The first names, for a message, with dots where there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


class Notice(StrEnum):
    """A kind of notice; its value is what the warning says after the number of files."""

    MORE_FRAMES = "images have several frames, of which the first is used"
    LOSSY_MASK = "masks are stored with loss (as JPEG): defective is what has half of white or more"
    SCALED_MASK = "masks have another size than their images, with the same aspect ratio, and were scaled"
    UPRIGHT_MASK = "masks have no EXIF orientation, but their images have: they are taken as drawn on upright images"
    TURNED_MASK = "masks have an EXIF orientation, but their images have none: they are turned as it says"
    MORE_FRAMES_MASK = "masks have several frames, of which the first is used"
    INVERTED_MASK = "masks mark their whole border and not all inside: if black is what is defective, invert them"
    BLACK_MASK = "masks of defective images mark nothing"
    CROPPED_MASK = "masks mark defects outside of cropArea alone: no pixel counts as defective, but the image does"
    NO_BLACK_MASK = "masks have several values but no black, so that they mark all: what is not defective has to be 0"
    SHADED_MASK = "masks have many greys, as of smooth edges or an earlier JPEG: all that is not black is defective"


@dataclass
class Notices:
    """The files of each kind of notice, in the order in which they were read."""

    files: dict[Notice, dict[str, None]] = field(default_factory=dict)

    def add(self, key: str, notices: Iterable[Notice]) -> None:
        """Record notices about a file; only once, even if it is read several times."""
        for notice in notices:
            self.files.setdefault(notice, {})[key] = None

    def extend(self, notices: Iterable[tuple[str, Notice]]) -> None:
        """Record notices about several files, each with the file's key."""
        for key, notice in notices:
            self.add(key, (notice,))

    def warnings(self) -> tuple[str, ...]:
        """One message for each kind, with the names of the first files."""
        return tuple(f"{len(keys)} {notice.value}: {name_first(list(keys))}" for notice, keys in self.files.items())
