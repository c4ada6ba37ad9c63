"""Build the ``DatasetIndex`` of a folder from its object keys: the paths alone define splits, labels and masks.

The layouts are in ``layouts``. Besides their folders, ``test/unknown`` has images that are scored but count in no
metric, and ``val/`` images that thresholds are found on. This module opens no file; missing splits are drawn in
``splits``.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from anomaly_api.dataset import DatasetLimits, FolderLayoutName
from anomaly_api.run import UnreadableImage
from anomaly_runner.data.images import is_clutter, is_image_name
from anomaly_runner.data.layouts.doubtful import check_no_masks, same_name_warning
from anomaly_runner.data.layouts.folders import (
    FOLDER_LAYOUTS,
    MVTEC,
    MVTEC_LOCO,
    FolderLayout,
    recognise,
    top_folder,
)
from anomaly_runner.data.layouts.labels import check_labels, looks_good, twin_warnings
from anomaly_runner.data.layouts.mask_pairs import PairedImages, pair_masks
from anomaly_runner.data.layouts.placed import PlacedFile, Role, is_unused, placed
from anomaly_runner.data.layouts.usable import printable_key, usable_images
from anomaly_runner.data.notices import name_first
from anomaly_runner.data.samples import UNKNOWN, DatasetIndex
from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage.store import ObjectInfo

_LAYOUT_FOLDERS = ("train", "val", "validation", "test", "ground_truth")
"""Folders whose names are not labels."""
_NOT_ASKED_FOR = ("train", "val", "validation")
"""Folders of a dataset that an inference on its test images has no use for."""
_USED_INSTEAD: dict[Role, str] = {
    "train": "training uses good images alone",
    "val": "thresholds are found on good images and kinds of defects",
}
"""Reasons for ignoring images with some labels, by what the files are for."""
_NAMED_FOLDERS = 4
"""How many folders a message names."""


@dataclass(frozen=True, kw_only=True)
class _LayoutFiles:
    """Image files by their role in a layout.

    ``ignored``: folders of images with a label that their role has no use for. ``lost``: number of images in each
    folder that means nothing in the layout.
    """

    train: tuple[PlacedFile, ...]
    validation: tuple[PlacedFile, ...]
    test: tuple[PlacedFile, ...]
    masks: tuple[PlacedFile, ...]
    ignored: dict[str, Role]
    lost: Counter[str]


def index_experiment(
    objects: Iterable[ObjectInfo],
    uri: str,
    mask_suffix: str,
    with_masks: bool,
    *,
    layout: FolderLayoutName | None = None,
    max_bytes: int | None = None,
) -> DatasetIndex:
    """Find the training, validation and test images of an experiment in its folders.

    Args:
        objects: all objects below ``uri``.
        uri: the dataset's root, for messages.
        mask_suffix: suffix of a mask's name, after the name of its image.
        with_masks: whether to pair images with masks (segmentation).
        layout: the layout of the folders; None to recognise it.
        max_bytes: size of the largest possible image file; larger files are refused without a download.

    Raises:
        DataInvalid: there are fewer than two training images, or no test images but others in folders that mean
            nothing, or the images of a folder would count as a kind of defect although its name means good, or masks
            would count as images.
    """
    objects = tuple(objects)
    images = [info for info in objects if is_image_name(info.key)]
    chosen = choose_layout(images, layout)
    is_used = partial(_is_in_layout, layout=chosen)
    keys, rejected = usable_images(images, max_bytes, is_used)
    found = _sort_into_layout(keys, chosen)
    _check_found(found, chosen, uri, keys, bool(keys or rejected))
    # Validation images may share masks with test images, so both are paired in one call.
    images_with_masks = (*found.validation, *found.test)
    suffix = _suffix(chosen, images_with_masks, found.masks, mask_suffix)
    paired = _pair(images_with_masks, found.masks if with_masks else None, suffix, found.train)
    images_of_all = (*found.train, *images_with_masks)
    check_no_masks(images_of_all, _masked(paired), suffix, uri)
    count = len(found.validation)
    return DatasetIndex(
        train=tuple(image.sample() for image in found.train),
        validation=paired.samples[:count],
        test=paired.samples[count:],
        unreadable=rejected,
        missing_masks=paired.missing_masks,
        warnings=(
            *_ignored_warnings(found.ignored),
            *_lost_warning(found.lost),
            *_no_image_warning(objects, is_used),
            *twin_warnings(image.label for image in images_with_masks),
            *same_name_warning(images_of_all),
            *paired.warnings,
        ),
        layout=chosen.title,
    )


def choose_layout(objects: Iterable[ObjectInfo], name: FolderLayoutName | None = None) -> FolderLayout:
    """The layout of folders that is named, or else recognised by the image files among the objects."""
    if name is not None:
        return FOLDER_LAYOUTS[name]
    return recognise({top_folder(info.key) for info in objects if is_image_name(info.key)})


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
        layout: flat: all images, with unknown labels. labelled: the test images of a published layout; otherwise the
            name of the top folder is the label, or of the folder below test/ if there is one.
        mask_suffix: suffix of a mask's name, after the name of its image.
        with_masks: whether to pair images with masks (segmentation).
        max_bytes: size of the largest possible image file; larger files are refused without a download.

    Raises:
        DataInvalid: there are no images, or in the labelled layout none inside a folder, or those of a folder would
            count as a kind of defect although its name means good, or masks as images.
    """
    objects = tuple(objects)
    images = [info for info in objects if is_image_name(info.key)]
    if layout == "flat":
        keys, rejected = usable_images(images, max_bytes, lambda _: True)
        _check_any(keys, uri, "images")
        return DatasetIndex(
            test=tuple(placed(key, "test", UNKNOWN, 0).sample() for key in keys),
            unreadable=rejected,
            warnings=_no_image_warning(objects, lambda _: True),
        )
    chosen = choose_layout(images)
    locate = _locate_labelled(images, chosen)
    keys, rejected = usable_images(images, max_bytes, lambda key: locate(key) is not None)
    files = [file for key in keys if (file := locate(key))]
    test = [file for file in files if file.role == "test"]
    _check_any(test, uri, "LABEL/* or test/LABEL/*")
    check_labels(test, uri)
    masks = [file for file in files if file.role == "mask"]
    unknown = (key for key in keys if chosen.locate(key) is None and locate(key) is None)
    lost = Counter(top_folder(key) for key in unknown if key.split("/")[0] not in _NOT_ASKED_FOR)
    suffix = _suffix(chosen, test, masks, mask_suffix)
    paired = _pair(test, masks if with_masks else None, suffix)
    check_no_masks(test, _masked(paired), suffix, uri)
    return DatasetIndex(
        test=paired.samples,
        unreadable=rejected,
        missing_masks=paired.missing_masks,
        warnings=(
            *_lost_warning(lost),
            *same_name_warning(test),
            *paired.warnings,
            *_no_image_warning(objects, lambda key: locate(key) is not None),
        ),
    )


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


def _is_in_layout(key: str, layout: FolderLayout) -> bool:
    """Whether the layout uses the key; true also for a key that leads out of the folder, so that it is reported."""
    file = layout.locate(key)
    if file is None:
        return key.split("/", maxsplit=1)[0] in ("", "..")
    return not is_unused(file.role, file.label)


def _sort_into_layout(keys: Iterable[str], layout: FolderLayout) -> _LayoutFiles:
    by_role: dict[Role, list[PlacedFile]] = {"train": [], "val": [], "test": [], "mask": []}
    ignored: dict[str, Role] = {}
    lost: Counter[str] = Counter()
    for key in keys:
        file = layout.locate(key)
        if file is None:
            lost[top_folder(key)] += 1
        elif is_unused(file.role, file.label):
            ignored[top_folder(key)] = file.role
        else:
            by_role[file.role].append(file)
    return _LayoutFiles(
        train=tuple(by_role["train"]),
        validation=tuple(by_role["val"]),
        test=tuple(by_role["test"]),
        masks=tuple(by_role["mask"]),
        ignored=ignored,
        lost=lost,
    )


def _check_found(found: _LayoutFiles, layout: FolderLayout, uri: str, keys: Sequence[str], anything: bool) -> None:
    """Check that there are images to learn from, with labels that mean what they seem to.

    Nothing but good images to learn from is enough, since some of them can be held out; but where the others lie in
    folders that mean nothing, the folders to test on may just have another name.

    Raises:
        DataInvalid: there are not.
    """
    if not found.train:
        raise DataInvalid(_nothing_found(uri, layout, keys, anything))
    check_labels((*found.validation, *found.test), uri)
    if len(found.train) == 1:
        raise DataInvalid(f"only one training image below {uri}/{layout.training}; at least two are needed")
    if not found.test and found.lost:
        raise DataInvalid(f"no test images below {uri}: expected {layout.testing}. {_lost_warning(found.lost)[0]}")


def _check_any(found: Sequence[object], uri: str, wanted: str) -> None:
    """Check that there are images.

    Raises:
        DataInvalid: there are none.
    """
    if not found:
        raise DataInvalid(f"no images below {uri}: expected {wanted}")


def _pair(
    images: Sequence[PlacedFile], masks: Sequence[PlacedFile] | None, suffix: str, others: Sequence[PlacedFile] = ()
) -> PairedImages:
    """Give images their masks; no image has one if ``masks`` is None."""
    if masks is None:
        return PairedImages(tuple(image.sample() for image in images))
    return pair_masks(images, masks, suffix, others)


def _suffix(layout: FolderLayout, images: Iterable[PlacedFile], masks: Sequence[PlacedFile], mask_suffix: str) -> str:
    """The suffix of masks: none where the layout has none, unless no mask is named as its image and some have it."""
    if not layout.plain_masks:
        return mask_suffix
    names = {(image.label, image.name) for image in images}
    is_plain = any((mask.label, mask.name) in names for mask in masks)
    return mask_suffix if not is_plain and any(mask.name.endswith(mask_suffix) for mask in masks) else ""


def _masked(paired: PairedImages) -> frozenset[str]:
    return frozenset(sample.key for sample in paired.samples if sample.masks)


def _nothing_found(uri: str, layout: FolderLayout, keys: Sequence[str], anything: bool) -> str:
    """The message for a folder without training images; ``anything``: whether it has any image, usable or not."""
    wanted = layout.training
    if not anything:
        return f"no images below {uri}: expected {wanted}/*"
    folders = sorted({top_folder(key) for key in keys})
    meant = [folder for folder in folders if folder.startswith("train/") and looks_good(folder.removeprefix("train/"))]
    if meant:
        return f"no images below {uri}/{wanted}: is {meant[0]} meant? Rename it to {wanted}"
    products = _products(keys)
    if products:
        return f"no images below {uri}/{wanted}: set category to one of its products: {_listed(products)}"
    tops = sorted({key.partition("/")[0] for key in keys})
    return f"no images below {uri}/{wanted}; the folder holds {_listed(tops)}"


def _products(keys: Sequence[str]) -> list[str]:
    """Sub-folders that have images to learn from, as those of a data set of several products."""
    training = tuple(f"{layout.training}/" for layout in FOLDER_LAYOUTS.values())
    return sorted({first for first, _, rest in (key.partition("/") for key in keys) if rest.startswith(training)})


def _listed(names: Sequence[str]) -> str:
    return name_first(names, 8) if names else "no images"


def _ignored_warnings(folders: dict[str, Role]) -> tuple[str, ...]:
    return tuple(
        f"images below {folder}/ are ignored: {_USED_INSTEAD[role]}" for folder, role in sorted(folders.items())
    )


def _lost_warning(lost: Counter[str]) -> tuple[str, ...]:
    """The message about images in folders that mean nothing, most images first."""
    if not lost:
        return ()
    named = name_first([f"{folder or '.'}/ ({count})" for folder, count in lost.most_common()], _NAMED_FOLDERS)
    return (f"{lost.total()} images in folders that mean nothing are not used: {named}",)


def _no_image_warning(objects: Iterable[ObjectInfo], is_used: Callable[[str], bool]) -> tuple[str, ...]:
    """The message about files among the images whose names are not those of images."""
    ignored = sorted(
        printable_key(info.key)
        for info in objects
        if not is_image_name(info.key) and not is_clutter(info.key) and is_used(f"{info.key}.png")
    )
    if not ignored:
        return ()
    return (f"{len(ignored)} files do not have the name of an image and are ignored: {name_first(ignored)}",)


def _locate_labelled(images: Sequence[ObjectInfo], layout: FolderLayout) -> Callable[[str], PlacedFile | None]:
    """The function that finds the place of a file of a labelled folder, None for files that are not scored."""
    if layout in (MVTEC, MVTEC_LOCO):
        return partial(_labelled, below_test=any(_is_below_test(info.key) for info in images))
    return partial(_tested, layout=layout)


def _tested(key: str, layout: FolderLayout) -> PlacedFile | None:
    file = layout.locate(key)
    return file if file and file.role in ("test", "mask") else None


def _is_below_test(key: str) -> bool:
    """Whether it is an image of test/LABEL; if there is one, the folder is a dataset of which only test/ is scored."""
    return key.startswith("test/") and key.count("/") > 1


def _labelled(key: str, below_test: bool) -> PlacedFile | None:
    """The image with its folder's name as label, or a mask; None if it is not scored."""
    match key.split("/"):
        case ["ground_truth", *_]:
            return MVTEC.locate(key)
        case ["test", label, _, *_] if below_test:
            return placed(key, "test", label, 2)
        case [label, _, *_] if not below_test and label not in _LAYOUT_FOLDERS:
            return placed(key, "test", label, 1)
    return None
