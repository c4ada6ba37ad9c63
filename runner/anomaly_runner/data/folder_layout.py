"""Build the ``DatasetIndex`` of a folder from its object keys: the paths alone define splits, labels and masks.

Layout: Bergmann et al., "MVTec AD", CVPR 2019, with ``test/unknown`` for images that are scored but count in no metric,
and ``val/`` for images that thresholds are found on. Masks are paired with their images by name. This module opens no
file; missing splits are drawn in ``splits``.
"""

import posixpath
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Literal

from anomaly_api.dataset import DatasetLimits
from anomaly_api.run import UnreadableImage
from anomaly_runner.data.images import EXTENSIONS
from anomaly_runner.data.samples import GOOD, UNKNOWN, DatasetIndex, Sample
from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage.store import ObjectInfo, has_valid_name_lengths, is_safe_key

_LAYOUT_FOLDERS = ("train", "val", "test", "ground_truth")
"""Folders whose names are not labels."""
_USED_INSTEAD = {"train": "training uses train/good alone", "val": "thresholds are found on val/good and val/DEFECT"}
"""Reasons for ignoring images in other folders of a split, by split."""

LabelAndName = tuple[str, str]
"""Label of an image, and its path below the label's folder without the extension; both pair it with its mask."""


@dataclass
class _LayoutFiles:
    """Image files by their role in the layout.

    ``masks``: keys of masks by label and name of their images. ``ignored``: folders whose images are not used.
    """

    train: list[Sample] = field(default_factory=list)
    validation: list[Sample] = field(default_factory=list)
    test: list[Sample] = field(default_factory=list)
    masks: dict[LabelAndName, str] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)


def index_experiment(
    objects: Iterable[ObjectInfo], uri: str, mask_suffix: str, with_masks: bool, *, max_bytes: int | None = None
) -> DatasetIndex:
    """Find the training, validation and test images of an experiment in its folders.

    Args:
        objects: all objects below ``uri``.
        uri: the dataset's root, for messages.
        mask_suffix: suffix of a mask's name, after the name of its image.
        with_masks: whether to pair images with masks (segmentation).
        max_bytes: size of the largest possible image file; larger files are refused without a download.

    Raises:
        DataInvalid: there are fewer than two training images, or no test images.
    """
    keys, rejected = _image_keys(objects, max_bytes, _is_in_experiment_layout)
    found = _sort_into_layout(keys, mask_suffix)
    if not found.train:
        raise DataInvalid(_nothing_found(uri, "train/good", keys, bool(keys or rejected)))
    if len(found.train) == 1:
        raise DataInvalid(f"only one training image below {uri}/train/good; at least two are needed")
    if not found.test:
        raise DataInvalid(f"no test images: expected some below {uri}/test/good and {uri}/test/DEFECT")
    # Validation images may share masks with test images, so both are paired in one call.
    paired, missing, unmasked = _pair_with_masks([*found.validation, *found.test], found.masks, with_masks)
    count = len(found.validation)
    return DatasetIndex(
        train=tuple(found.train),
        validation=paired[:count],
        test=paired[count:],
        unreadable=rejected,
        missing_masks=missing,
        warnings=(*_ignored_warnings(found.ignored), *unmasked),
    )


def index_inference(
    objects: Iterable[ObjectInfo],
    uri: str,
    layout: Literal["flat", "labelled"],
    mask_suffix: str,
    with_masks: bool,
    *,
    max_bytes: int | None = None,
) -> DatasetIndex:
    """Find the images of an inference, all in the split ``test``.

    Args:
        objects: all objects below ``uri``.
        uri: the folder's root, for messages.
        layout: flat: all images, with unknown labels. labelled: the name of the top folder is the label, or of the
            folder below test/ if there is one.
        mask_suffix: suffix of a mask's name, after the name of its image.
        with_masks: whether to pair images with masks (segmentation).
        max_bytes: size of the largest possible image file; larger files are refused without a download.

    Raises:
        DataInvalid: there are no images, or in the labelled layout none inside a folder.
    """
    if layout == "flat":
        keys, rejected = _image_keys(objects, max_bytes, lambda _: True)
        samples = [Sample(key, UNKNOWN) for key in keys]
    else:
        objects = tuple(objects)
        labelled = partial(_labelled, below_test=any(_is_below_test(info.key) for info in objects))
        keys, rejected = _image_keys(objects, max_bytes, lambda key: _is_mask(key) or labelled(key) is not None)
        samples = [sample for key in keys if (sample := labelled(key))]
    if not samples:
        wanted = "images" if layout == "flat" else "LABEL/* or test/LABEL/*"
        raise DataInvalid(f"no images below {uri}: expected {wanted}")
    masks = _sort_into_layout(keys, mask_suffix).masks
    test, missing, warnings = _pair_with_masks(samples, masks, with_masks)
    return DatasetIndex(test=test, unreadable=rejected, missing_masks=missing, warnings=warnings)


def check_unreadable(unreadable: Sequence[UnreadableImage], limits: DatasetLimits) -> None:
    """Check that the number of unreadable images is within the dataset's limit.

    Raises:
        DataInvalid: there are more; the message names the first three.
    """
    if len(unreadable) <= limits.max_unreadable_images:
        return
    named = "; ".join(f"{image.path}: {image.problem}" for image in unreadable[:3])
    raise DataInvalid(
        f"{len(unreadable)} unreadable images, limits.maxUnreadableImages is {limits.max_unreadable_images}: {named}"
    )


def _image_keys(
    objects: Iterable[ObjectInfo], max_bytes: int | None, is_used: Callable[[str], bool]
) -> tuple[list[str], tuple[UnreadableImage, ...]]:
    """Keys of image files, sorted, and the files that are refused without opening them.

    A refused file is reported only if the run would have used its key, or the path that its key leads to.
    """
    images = {info.key: info for info in objects if info.key.lower().endswith(EXTENSIONS)}
    used = {key for key in images if is_used(key)}
    problems = {key: _problem(info, max_bytes, used) for key, info in images.items()}
    refused = tuple(
        UnreadableImage(path=_printable(key), problem=why)
        for key, why in sorted(problems.items())
        if why and is_used(_resolved(key))
    )
    return sorted(key for key, why in problems.items() if not why), refused


def _resolved(key: str) -> str:
    """The path that a key could lead to on some operating system, with forward slashes."""
    return posixpath.normpath(key.replace("\\", "/"))


def _printable(key: str) -> str:
    """The key with non-UTF-8 bytes as hexadecimal codes, so that it can be written to tables and reports."""
    return key.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _problem(info: ObjectInfo, max_bytes: int | None, used: Set[str]) -> str:
    """The reason for refusing a file without opening it; empty if it is accepted."""
    if _printable(info.key) != info.key:
        return "its name is not UTF-8"
    if not is_safe_key(info.key):
        return "its key leads out of the folder"
    if not has_valid_name_lengths(info.key):
        return "its name is longer than file systems allow"
    # A bucket may hold both "a.png" and "a.png/b.png", but a file system cannot.
    parents = (info.key[:end] for end, sign in enumerate(info.key) if sign == "/")
    if any(parent in used for parent in parents):
        return "its folder has the name of another image"
    if max_bytes is not None and info.size > max_bytes:
        return f"{info.size} bytes are more than an image of maxImagePixels can have"
    return ""


def _is_in_experiment_layout(key: str) -> bool:
    """Whether the layout uses the key; true also for a key that leads out of the folder, so that it is reported."""
    match key.split("/"):
        case ["train", "good", _, *_] | ["val" | "test" | "ground_truth", _, _, *_]:
            return not key.startswith("val/unknown/")
        case [first, *_]:
            return first in ("", "..")
    return False


def _sort_into_layout(keys: Iterable[str], mask_suffix: str) -> _LayoutFiles:
    found = _LayoutFiles()
    for key in keys:
        match key.split("/"):
            case ["train", "good", _, *_]:
                found.train.append(Sample(key, GOOD))
            case ["train", folder, _, *_]:
                found.ignored.add(f"train/{folder}")
            case ["val", "unknown", _, *_]:
                found.ignored.add("val/unknown")
            case ["val", label, _, *_]:
                found.validation.append(Sample(key, label))
            case ["test", label, _, *_]:
                found.test.append(Sample(key, label))
            case ["ground_truth", label, _, *_]:
                _add_mask(found.masks, key, label, mask_suffix)
    return found


def _add_mask(masks: dict[LabelAndName, str], key: str, label: str, suffix: str) -> None:
    name = _name(key)
    if name.endswith(suffix):
        masks.setdefault((label, name[: len(name) - len(suffix)]), key)


def _name(key: str) -> str:
    """Path below the label's folder, without the extension."""
    path = PurePosixPath(key).with_suffix("")
    skipped = 2 if path.parts[0] in ("test", "val", "ground_truth") else 1
    return PurePosixPath(*path.parts[skipped:]).as_posix()


def _label_and_name(sample: Sample) -> LabelAndName:
    """Label and name of a sample, as its mask has them below ground_truth/."""
    return sample.label, _name(sample.key)


def _pair_with_masks(
    samples: Sequence[Sample], masks: dict[LabelAndName, str], with_masks: bool
) -> tuple[tuple[Sample, ...], tuple[str, ...], tuple[str, ...]]:
    """Pair samples with their masks; returns the samples, keys of defective samples without a mask, and warnings."""
    if not with_masks or not any(sample.defect for sample in samples):
        return tuple(samples), (), ()
    if not masks:
        return tuple(samples), (), ("no masks below ground_truth/: pixel metrics are left out",)
    tested = {_label_and_name(sample) for sample in samples if not sample.key.startswith("val/")}
    paired = tuple(_with_mask(sample, masks, tested) for sample in samples)
    missing = tuple(sample.key for sample in paired if sample.defect and not sample.mask)
    warned = (f"{len(missing)} defective images have no mask and count as wholly defective",) if missing else ()
    return paired, missing, warned


def _with_mask(sample: Sample, masks: dict[LabelAndName, str], tested: Set[LabelAndName]) -> Sample:
    """The sample with its mask, if it is defective and there is one.

    The mask of an image of val/ is below ground_truth/val/. If it is missing there, the mask with the image's label and
    name below ground_truth/ is used, unless a test image has the same label and name: val/ may reuse numbers of test/.
    """
    if not sample.defect:
        return sample
    label, name = place = _label_and_name(sample)
    if not sample.key.startswith("val/"):
        return replace(sample, mask=masks.get(place))
    shared = None if place in tested else masks.get(place)
    return replace(sample, mask=masks.get(("val", f"{label}/{name}"), shared))


def _nothing_found(uri: str, wanted: str, keys: Sequence[str], anything: bool) -> str:
    """The message for a folder without training images; ``anything``: whether it has any image, usable or not."""
    if not anything:
        return f"no images below {uri}: expected {wanted}/*"
    folders = sorted({key.partition("/")[0] for key in keys})
    return f"no images below {uri}/{wanted}; the folder holds {', '.join(folders[:8]) or 'no images'}"


def _ignored_warnings(folders: set[str]) -> tuple[str, ...]:
    return tuple(
        f"images below {folder}/ are ignored: {_USED_INSTEAD[folder.partition('/')[0]]}" for folder in sorted(folders)
    )


def _is_mask(key: str) -> bool:
    return key.startswith("ground_truth/")


def _is_below_test(key: str) -> bool:
    """Whether it is an image of test/LABEL; if there is one, the folder is a dataset of which only test/ is scored."""
    return key.lower().endswith(EXTENSIONS) and _labelled(key, below_test=True) is not None


def _labelled(key: str, below_test: bool) -> Sample | None:
    """The image with its folder's name as label; None if it is not scored."""
    match key.split("/"):
        case ["test", label, _, *_] if below_test:
            return Sample(key, label)
        case [label, _, *_] if not below_test and label not in _LAYOUT_FOLDERS:
            return Sample(key, label)
    return None
