"""Labels that are not what they look like: a misspelt good, which would count as a kind of defect, and twins."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from anomaly_runner.data.layouts.placed import PlacedFile
from anomaly_runner.data.samples import GOOD, UNKNOWN
from anomaly_runner.errors import DataInvalid

_WORDS = """
good goods ok okay normal normals pass passed negative healthy flawless undamaged
nodefect nodefects withoutdefect withoutdefects defectfree nondefective noanomaly noanomalies nonanomalous
io gut gutteil gutteile fehlerfrei bon bonne conforme bueno buena buenos sindefecto sindefectos buono buoni bom
semdefeito 良品 好品 正常 合格 合格品 无缺陷 無缺陷 양품 정상 годен годные норма
"""
_GOOD_WORDS = frozenset(_WORDS.split())
"""Words for images without defects, in several languages, as ``_bare`` has them; ``io`` is the German "in Ordnung"."""
_BINARY = ("0", "1")
"""Names of the only two folders of images to test on, where the first one probably means good."""


def looks_good(label: str) -> bool:
    """Whether a label other than ``GOOD`` probably means images without a defect."""
    return label != GOOD and _bare(label) in _GOOD_WORDS


def check_labels(images: Iterable[PlacedFile], uri: str) -> None:
    """Check that no label is a misspelt ``GOOD`` or ``UNKNOWN``.

    Args:
        images: images whose folder's name is their label.
        uri: the dataset's root, for the message.

    Raises:
        DataInvalid: there is such a label; it would count as a kind of defect.
    """
    places = sorted({(image.folder, image.label) for image in images})
    binary = tuple(sorted({label for _, label in places})) == _BINARY
    for folder, label in places:
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
    return UNKNOWN if label != UNKNOWN and _bare(label) == UNKNOWN else None


def twin_warnings(labels: Iterable[str]) -> tuple[str, ...]:
    """Warnings about labels that differ only in case or in separators, which are counted apart."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for label in sorted(set(labels)):
        alike[_bare(label) or label].append(label)
    return tuple(
        f"the labels {' and '.join(twins)} are counted as different kinds of defect"
        for twins in alike.values()
        if len(twins) > 1
    )


def _bare(label: str) -> str:
    return "".join(sign for sign in unicodedata.normalize("NFC", label).casefold() if sign.isalnum())
