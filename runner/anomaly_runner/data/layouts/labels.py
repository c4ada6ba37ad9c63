"""Labels that are not what they look like, and would count as kinds of defect: a misspelt good, masks, and twins."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from anomaly_runner.data.layouts.placed import PlacedFile
from anomaly_runner.data.samples import GOOD, UNKNOWN
from anomaly_runner.errors import DataInvalid

_WORDS = """
good goods ok okay normal normals nominal pass passed accept accepted acceptable negative healthy clean intact none
flawless faultless faultfree nofault nofaults undamaged uncracked nocrack nocracks perfect
nodefect nodefects withoutdefect withoutdefects defectfree nondefective noanomaly noanomalies nonanomalous
io gut gutteil gutteile fehlerfrei bon bonne conforme bueno buena buenos sindefecto sindefectos buono buoni bom
semdefeito 良品 好品 正常 合格 合格品 无缺陷 無缺陷 양품 정상 годен годные норма
"""
_GOOD_WORDS = frozenset(_WORDS.split())
"""Words for images without defects, in several languages, as ``bare`` has them; ``io`` is the German "in Ordnung"."""
_NEUTRAL = """
front back top bottom left right side view part parts piece pieces item items image images img imgs picture pictures
sample samples product products class only
"""
_NEUTRAL_WORDS = frozenset(_NEUTRAL.split())
"""Words in a label that say nothing of defects, as in ``ok_front`` and ``good parts``; neither do numbers."""
_UNKNOWN_WORDS = frozenset(("unknown", "unlabeled", "unlabelled", "undefined", "nan", "na", "null"))
"""Words for an unknown label, as ``bare`` has them: also what programs write for a missing value."""
_MASKS = frozenset(("gt", "gts", "groundtruth", "groundtruths", "mask", "masks"))
"""Names of folders of masks, as ``bare`` has them."""
MASK_ENDING = re.compile(r"[ _.-](?:masks?|gt|label|seg)$", re.IGNORECASE)
"""What usually follows the name of an image, or of a kind of defect, in that of its masks."""
_WORD = re.compile(r"[^\W\d_]+")
_BINARY = ("0", "1")
"""Names of the only two folders of images to test on, where the first one probably means good."""


def looks_good(label: str) -> bool:
    """Whether a label other than ``GOOD`` probably means images without a defect."""
    return label != GOOD and not _GOOD_WORDS.isdisjoint((bare(label), _gist(label)))


def looks_unknown(label: str) -> bool:
    """Whether a label other than ``UNKNOWN`` probably means that the label is not known."""
    return label != UNKNOWN and bare(label) in _UNKNOWN_WORDS


def looks_like_masks(folder: str) -> bool:
    """Whether a folder probably has masks."""
    return bare(folder) in _MASKS


def check_labels(images: Iterable[PlacedFile], uri: str) -> None:
    """Check that no label is a misspelt ``GOOD`` or ``UNKNOWN``, or the name of a folder of masks.

    Args:
        images: images whose folder's name is their label.
        uri: the dataset's root, for the message.

    Raises:
        DataInvalid: there is such a label; it would count as a kind of defect.
    """
    places = sorted({(image.folder, image.label) for image in images})
    labels = {label for _, label in places}
    binary = tuple(sorted(labels)) == _BINARY
    for folder, label in places:
        if looks_like_masks(label) or MASK_ENDING.sub("", label) in labels - {label}:
            raise DataInvalid(masks_among_images(f"{uri}/{folder}"))
        wanted = GOOD if binary and label == _BINARY[0] else _meant(label)
        if wanted:
            raise DataInvalid(
                f"the images below {uri}/{folder} would count as defective, of the kind {label}: rename the folder to "
                f"{wanted} if that is meant, else to a name that does not look like it"
            )


def _meant(label: str) -> str | None:
    """The label with a meaning that this one seems to be; None if it is that one or looks like none."""
    if looks_good(label):
        return GOOD
    return UNKNOWN if looks_unknown(label) else None


def masks_among_images(folder: str) -> str:
    """The message about masks in a folder whose files count as images."""
    return (
        f"the files below {folder} would count as images: if they are masks, move them to ground_truth/LABEL, else "
        "rename the folder"
    )


def twin_warnings(labels: Iterable[str]) -> tuple[str, ...]:
    """Warnings about labels that differ only in case or in separators, which are counted apart."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for label in sorted(set(labels)):
        alike[bare(label) or label].append(label)
    return tuple(
        f"the labels {' and '.join(twins)} are counted as different kinds of defect"
        for twins in alike.values()
        if len(twins) > 1
    )


def bare(name: str) -> str:
    """A name in small letters and digits: those that are alike to people have the same."""
    return "".join(sign for sign in _folded(name) if sign.isalnum())


def _gist(label: str) -> str:
    """The words of a label without those that say nothing of defects, and without numbers."""
    return "".join(word for word in _WORD.findall(_folded(label)) if word not in _NEUTRAL_WORDS)


def _folded(label: str) -> str:
    return unicodedata.normalize("NFC", label).casefold()
