"""Pair masks with images by name: NAME and a suffix, the image's own NAME, or a folder NAME of several masks.

Masks are never paired by their position in a listing, and one that fits no image is named.
"""

import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from anomaly_runner.data.layouts.placed import PlacedFile, is_defective
from anomaly_runner.data.notices import name_first
from anomaly_runner.data.samples import Sample

LabelAndName = tuple[str, str]
"""Label of an image, and its path below the label's folder without the extension; both pair it with its masks."""


@dataclass(frozen=True)
class PairedImages:
    """Images with their masks, in the order in which they were given.

    Attributes:
        samples: the images.
        missing_masks: keys of defective images that have no mask although others have one.
        warnings: messages for the user.
    """

    samples: tuple[Sample, ...]
    missing_masks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def pair_masks(
    images: Sequence[PlacedFile], masks: Sequence[PlacedFile], suffix: str, others: Iterable[PlacedFile] = ()
) -> PairedImages:
    """Give each defective image its masks.

    Names that are the same but for the way in which accents are written (Unicode's NFC, and NFD of macOS) are the same
    where only one image has such a name.

    A mask of the image LABEL/NAME is LABEL/NAME{suffix}; where no mask of LABEL ends in the suffix, it is LABEL/NAME.
    The files in a folder LABEL/NAME/ are masks of that image as well, each of a part of its defects (as in MVTec LOCO).
    The masks of a validation image are those below ``val/``. If it has none there, those with its label and name are
    used, unless a test image has the same label and name: val/ may reuse numbers of test/.

    Args:
        images: validation and test images.
        masks: mask files.
        suffix: what follows the name of the image in that of its mask.
        others: further images that masks may belong to although none is needed.
    """
    if not any(is_defective(image.label) for image in images):
        return PairedImages(tuple(image.sample() for image in images))
    tested = {_label_and_name(image) for image in images if image.role == "test"}
    known = {place for image in (*images, *others) for place in _mask_places(image, tested)}
    found, strays = _group_by_image(masks, known, suffix)
    samples = tuple(image.sample(_masks_of(image, found, tested)) for image in images)
    if not any(sample.masks for sample in samples):
        return PairedImages(samples, warnings=(_no_masks(masks, suffix),))
    missing = tuple(sample.key for sample in samples if sample.defect and not sample.masks)
    warnings = (*missing_warning(missing), *_stray_warning(strays, masks, suffix), *_plain_warning(masks, suffix))
    return PairedImages(samples, missing, warnings)


def _label_and_name(image: PlacedFile) -> LabelAndName:
    return image.label, image.name


def _mask_places(image: PlacedFile, tested: Collection[LabelAndName]) -> tuple[LabelAndName, ...]:
    """Labels and names of the masks that an image may have, the preferred first."""
    place = _label_and_name(image)
    if image.role != "val":
        return (place,)
    own = ("val", f"{image.label}/{image.name}")
    return (own,) if place in tested else (own, place)


def _masks_of(
    image: PlacedFile, found: Mapping[LabelAndName, Sequence[str]], tested: Collection[LabelAndName]
) -> tuple[str, ...]:
    if not is_defective(image.label):
        return ()
    return next((tuple(found[place]) for place in _mask_places(image, tested) if place in found), ())


def _group_by_image(
    masks: Sequence[PlacedFile], known: Collection[LabelAndName], suffix: str
) -> tuple[dict[LabelAndName, list[str]], list[str]]:
    """Keys of masks by the label and name of their image, and the keys of those that fit none."""
    with_suffix = {mask.label for mask in masks if mask.name.endswith(suffix)}
    alike = _by_composed_name(known)
    found: defaultdict[LabelAndName, list[str]] = defaultdict(list)
    strays = []
    for mask in masks:
        image = _image_of(mask, known, alike, suffix if mask.label in with_suffix else "")
        if image is None:
            strays.append(mask.key)
        else:
            found[image].append(mask.key)
    return dict(found), strays


def _image_of(
    mask: PlacedFile, known: Collection[LabelAndName], alike: Mapping[LabelAndName, LabelAndName], suffix: str
) -> LabelAndName | None:
    own = [mask.name[: len(mask.name) - len(suffix)]] if mask.name.endswith(suffix) else []
    places = [(mask.label, name) for name in (*own, posixpath.dirname(mask.name))]
    exact = (place for place in places if place in known)
    return next(chain(exact, (alike[_composed(place)] for place in places if _composed(place) in alike)), None)


def _by_composed_name(known: Iterable[LabelAndName]) -> dict[LabelAndName, LabelAndName]:
    """The labels and names of images by ``_composed``, where it is that of one image alone."""
    found: defaultdict[LabelAndName, set[LabelAndName]] = defaultdict(set)
    for place in known:
        found[_composed(place)].add(place)
    return {composed: next(iter(places)) for composed, places in found.items() if len(places) == 1}


def _composed(place: LabelAndName) -> LabelAndName:
    """The label and the name with accents as parts of their letters (NFC)."""
    return unicodedata.normalize("NFC", place[0]), unicodedata.normalize("NFC", place[1])


def _no_masks(masks: Sequence[PlacedFile], suffix: str) -> str:
    if not masks:
        return "no masks below ground_truth/: pixel metrics are left out"
    return (
        f"pixel metrics are left out: none of {len(masks)} masks belongs to an image; "
        f"{_wanted(suffix)}; there are {name_first([mask.key for mask in masks])}"
    )


def missing_warning(missing: Sequence[str]) -> tuple[str, ...]:
    """The message about defective images without a mask, if there are any, by their keys."""
    if not missing:
        return ()
    return (f"{len(missing)} defective images have no mask and count as wholly defective",)


def _stray_warning(strays: Sequence[str], masks: Sequence[PlacedFile], suffix: str) -> tuple[str, ...]:
    if not strays:
        return ()
    return (
        f"{len(strays)} of {len(masks)} masks belong to no image; {_wanted(suffix)}; not used: {name_first(strays)}",
    )


def _plain_warning(masks: Sequence[PlacedFile], suffix: str) -> tuple[str, ...]:
    """The message that the suffix is not used, if no mask at all has it."""
    if not suffix or any(mask.name.endswith(suffix) for mask in masks):
        return ()
    return (f"no mask ends in maskSuffix {suffix}: masks named as their images, or in folders so named, are used",)


def _wanted(suffix: str) -> str:
    return f"looked for LABEL/NAME{suffix}.* and LABEL/NAME/*"
