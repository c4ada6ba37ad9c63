"""Which images there are and what is known of each: the folder layout, read from object keys alone.

Layout: Bergmann et al., "MVTec AD", CVPR 2019, with ``test/unknown`` for images that are scored and never
counted, and ``val/`` for images that thresholds are found on. Masks are paired with their images by name.
Nothing is opened here. What a folder lacks, ``splits.py`` makes.
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
from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage.base import ObjectInfo, has_short_names, is_safe

GOOD = "good"
UNKNOWN = "unknown"
_PARTS = ("train", "val", "test", "ground_truth")
"""Folders of the layout: no labels."""
_USED = {"train": "training uses train/good alone", "val": "thresholds are found on val/good and val/DEFECT"}


@dataclass(frozen=True)
class Sample:
    """One image: its key below the dataset's root, its label (good, unknown, or a kind of defect), its mask."""

    key: str
    label: str
    mask: str | None = None

    @property
    def defect(self) -> bool | None:
        """Whether it is known to be defective; None when its label is unknown."""
        return None if self.label == UNKNOWN else self.label != GOOD


@dataclass(frozen=True)
class Dataset:
    """Images of a run, sorted by path, with what is wrong with the rest."""

    train: tuple[Sample, ...] = ()
    validation: tuple[Sample, ...] = ()
    test: tuple[Sample, ...] = ()
    unreadable: tuple[UnreadableImage, ...] = ()
    missing_masks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def has_masks(self) -> bool:
        """Whether any test image has a mask: pixel metrics need one."""
        return any(sample.mask for sample in self.test)

    def wanted(self) -> list[str]:
        """Keys to bring here, in the order of use: training, validation and test images, then masks."""
        scored = (*self.validation, *self.test)
        return [sample.key for sample in (*self.train, *scored)] + [sample.mask for sample in scored if sample.mask]


@dataclass
class _Sorted:
    """Keys by their place in the layout."""

    train: list[Sample] = field(default_factory=list)
    validation: list[Sample] = field(default_factory=list)
    test: list[Sample] = field(default_factory=list)
    masks: dict[tuple[str, str], str] = field(default_factory=dict)
    strays: set[str] = field(default_factory=set)


def experiment_dataset(
    objects: Iterable[ObjectInfo], uri: str, mask_suffix: str, with_masks: bool, *, max_bytes: int | None = None
) -> Dataset:
    """Training, validation and test images of an experiment, as its folders have them.

    Args:
        objects: everything below ``uri``.
        uri: the dataset's root, for messages.
        mask_suffix: what follows an image's name in its mask's.
        with_masks: whether masks are wanted (segmentation).
        max_bytes: size of the largest file that may be an image; larger ones are not even brought here.

    Raises:
        DataInvalid: no training images, fewer than two, or no test images.
    """
    keys, hostile = _image_keys(objects, max_bytes, _is_of_experiment)
    found = _sort(keys, mask_suffix)
    if not found.train:
        raise DataInvalid(_nothing_found(uri, "train/good", keys, bool(keys or hostile)))
    if len(found.train) == 1:
        raise DataInvalid(f"only one training image below {uri}/train/good; at least two are needed")
    if not found.test:
        raise DataInvalid(f"no test images: expected some below {uri}/test/good and {uri}/test/DEFECT")
    paired, missing, unmasked = _paired([*found.validation, *found.test], found.masks, with_masks)
    count = len(found.validation)
    return Dataset(
        tuple(found.train),
        paired[:count],
        paired[count:],
        unreadable=hostile,
        missing_masks=missing,
        warnings=(*_strays(found.strays), *unmasked),
    )


def _paired(
    samples: Sequence[Sample], masks: dict[tuple[str, str], str], with_masks: bool
) -> tuple[tuple[Sample, ...], tuple[str, ...], tuple[str, ...]]:
    """Samples with their masks, keys of defective ones that have none, and warnings."""
    if not with_masks or not any(sample.defect for sample in samples):
        return tuple(samples), (), ()
    if not masks:
        return tuple(samples), (), ("no masks below ground_truth/: pixel metrics are left out",)
    tested = {_place(sample) for sample in samples if not sample.key.startswith("val/")}
    paired = tuple(_with_mask(sample, masks, tested) for sample in samples)
    missing = tuple(sample.key for sample in paired if sample.defect and not sample.mask)
    warned = (f"{len(missing)} defective images have no mask and count as wholly defective",) if missing else ()
    return paired, missing, warned


def _nothing_found(uri: str, wanted: str, keys: Sequence[str], anything: bool) -> str:
    if not anything:
        return f"no images below {uri}: expected {wanted}/*"
    folders = sorted({key.partition("/")[0] for key in keys})
    return f"no images below {uri}/{wanted}; the folder holds {', '.join(folders[:8]) or 'no images'}"


def _strays(folders: set[str]) -> tuple[str, ...]:
    return tuple(f"images below {folder}/ are ignored: {_USED[folder.partition('/')[0]]}" for folder in sorted(folders))


def _image_keys(
    objects: Iterable[ObjectInfo], max_bytes: int | None, is_used: Callable[[str], bool]
) -> tuple[list[str], tuple[UnreadableImage, ...]]:
    """Keys of image files, sorted, and those that are refused unopened: of the run's, or meant to lead elsewhere."""
    images = {info.key: info for info in objects if info.key.lower().endswith(EXTENSIONS)}
    used = {key for key in images if is_used(key)}
    problems = {key: _problem(info, max_bytes, used) for key, info in images.items()}
    refused = tuple(
        UnreadableImage(path=_escaped(key), problem=why)
        for key, why in sorted(problems.items())
        if why and is_used(_meant(key))
    )
    return sorted(key for key, why in problems.items() if not why), refused


def _meant(key: str) -> str:
    """Where a key would lead on some operating system, as the layout writes it."""
    return posixpath.normpath(key.replace("\\", "/"))


def _escaped(key: str) -> str:
    """A key that tables and reports can hold: what is no UTF-8 in a file's name as hexadecimal codes."""
    return key.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _problem(info: ObjectInfo, max_bytes: int | None, used: Set[str]) -> str:
    if _escaped(info.key) != info.key:
        return "its name is not UTF-8"
    if not is_safe(info.key):
        return "its key leads out of the folder"
    if not has_short_names(info.key):
        return "its name is longer than file systems allow"
    if any(info.key[:end] in used for end, sign in enumerate(info.key) if sign == "/"):
        return "its folder has the name of another image"
    if max_bytes is not None and info.size > max_bytes:
        return f"{info.size} bytes are more than an image of maxImagePixels can have"
    return ""


def _is_of_experiment(key: str) -> bool:
    """Whether the layout has a place for it, or it leads out of the folder and may be meant for any."""
    match key.split("/"):
        case ["train", "good", _, *_] | ["val" | "test" | "ground_truth", _, _, *_]:
            return not key.startswith("val/unknown/")
        case [first, *_]:
            return first in ("", "..")
    return False


def _sort(keys: Iterable[str], mask_suffix: str) -> _Sorted:
    found = _Sorted()
    for key in keys:
        match key.split("/"):
            case ["train", "good", _, *_]:
                found.train.append(Sample(key, GOOD))
            case ["train", folder, _, *_]:
                found.strays.add(f"train/{folder}")
            case ["val", "unknown", _, *_]:
                found.strays.add("val/unknown")
            case ["val", label, _, *_]:
                found.validation.append(Sample(key, label))
            case ["test", label, _, *_]:
                found.test.append(Sample(key, label))
            case ["ground_truth", label, _, *_]:
                _add_mask(found.masks, key, label, mask_suffix)
    return found


def _add_mask(masks: dict[tuple[str, str], str], key: str, label: str, suffix: str) -> None:
    name = _stem(key)
    if name.endswith(suffix):
        masks.setdefault((label, name[: len(name) - len(suffix)]), key)


def _stem(key: str) -> str:
    """Path below the label's folder, without the extension: what pairs an image with its mask."""
    path = PurePosixPath(key).with_suffix("")
    skipped = 2 if path.parts[0] in ("test", "val", "ground_truth") else 1
    return PurePosixPath(*path.parts[skipped:]).as_posix()


def _place(sample: Sample) -> tuple[str, str]:
    """Its label and name: what it is called below test/, val/ and ground_truth/."""
    return sample.label, _stem(sample.key)


def _with_mask(sample: Sample, masks: dict[tuple[str, str], str], tested: Set[tuple[str, str]]) -> Sample:
    """The sample with its mask; one of val/ has its own, or one that is no test image's (numbers begin anew there)."""
    if not sample.defect:
        return sample
    label, name = place = _place(sample)
    if not sample.key.startswith("val/"):
        return replace(sample, mask=masks.get(place))
    shared = None if place in tested else masks.get(place)
    return replace(sample, mask=masks.get(("val", f"{label}/{name}"), shared))


def inference_dataset(
    objects: Iterable[ObjectInfo],
    uri: str,
    layout: Literal["flat", "labelled"],
    mask_suffix: str,
    with_masks: bool,
    *,
    max_bytes: int | None = None,
) -> Dataset:
    """Images of an inference, in ``test``; arguments as for ``experiment_dataset``.

    Raises:
        DataInvalid: none, or for the labelled layout none inside a folder.
    """
    if layout == "flat":
        keys, hostile = _image_keys(objects, max_bytes, lambda _: True)
        samples = [Sample(key, UNKNOWN) for key in keys]
    else:
        objects = tuple(objects)
        labelled = partial(_labelled, below_test=any(_is_tested(info.key) for info in objects))
        keys, hostile = _image_keys(objects, max_bytes, lambda key: _is_mask(key) or labelled(key) is not None)
        samples = [sample for key in keys if (sample := labelled(key))]
    if not samples:
        wanted = "images" if layout == "flat" else "LABEL/* or test/LABEL/*"
        raise DataInvalid(f"no images below {uri}: expected {wanted}")
    test, missing, warnings = _paired(samples, _sort(keys, mask_suffix).masks, with_masks)
    return Dataset(test=test, unreadable=hostile, missing_masks=missing, warnings=warnings)


def _is_mask(key: str) -> bool:
    return key.startswith("ground_truth/")


def _is_tested(key: str) -> bool:
    """Whether it is an image of test/LABEL: then the folder is a dataset, of which only those are scored."""
    return key.lower().endswith(EXTENSIONS) and _labelled(key, below_test=True) is not None


def _labelled(key: str, below_test: bool) -> Sample | None:
    """The image as its folder labels it; None where it is none of those that are scored."""
    match key.split("/"):
        case ["test", label, _, *_] if below_test:
            return Sample(key, label)
        case [label, _, *_] if not below_test and label not in _PARTS:
            return Sample(key, label)
    return None


def check_unreadable(unreadable: Sequence[UnreadableImage], limits: DatasetLimits) -> None:
    """Raise DataInvalid once more images are unreadable than the dataset tolerates, naming the first files."""
    if len(unreadable) <= limits.max_unreadable_images:
        return
    named = "; ".join(f"{image.path}: {image.problem}" for image in unreadable[:3])
    raise DataInvalid(
        f"{len(unreadable)} unreadable images, limits.maxUnreadableImages is {limits.max_unreadable_images}: {named}"
    )
