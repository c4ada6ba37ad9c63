"""Build the ``DatasetIndex`` of a table of images: its rows, not the folders, define splits, labels and masks."""

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import chain, islice
from sys import intern

from anomaly_api.run import UnreadableImage
from anomaly_runner.data.images import is_image_name
from anomaly_runner.data.layouts.labels import looks_good, looks_unknown, twin_warnings
from anomaly_runner.data.layouts.mask_pairs import missing_warning
from anomaly_runner.data.layouts.placed import Role, is_defective, is_unused
from anomaly_runner.data.layouts.rows import ImageRows, Row
from anomaly_runner.data.layouts.usable import usable_images
from anomaly_runner.data.samples import GOOD, UNKNOWN, DatasetIndex, Sample
from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage.store import ObjectInfo, is_safe_key

_SPLITS: dict[str, Role | None] = {
    "": None,
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""What the words in the column of splits mean, in small letters."""
_LOOKED_UP = 20
"""How many entries of a list are looked for in order to find the folder of its images."""
_NAMED = 3
"""How many wrong rows a message names."""


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """How a table is read.

    Attributes:
        name: its path, for messages.
        title: what the layout is called.
        uri: the root of the keys, which paths in the table may begin with.
        good_label: that of images without a defect.
        with_masks: whether masks are used (segmentation).
        max_bytes: size of the largest possible image file; larger files are refused without a download.
    """

    name: str
    title: str
    uri: str
    good_label: str
    with_masks: bool
    max_bytes: int | None = None


@dataclass(slots=True)
class _Image:
    """An image of the table; ``where`` is its first row."""

    where: int
    label: str
    role: Role | None
    masks: tuple[str, ...] = ()


@dataclass
class _Found:
    """What the rows say: images by key, the rows that are wrong, and the images that are not there by path."""

    images: dict[str, _Image] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    absent: dict[str, UnreadableImage] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)


def index_table(table: ImageRows, objects: Sequence[ObjectInfo], options: TableOptions) -> DatasetIndex:
    """Find the images that a table names.

    An image that is not there counts as unreadable. Several rows of an image add their masks.

    Raises:
        DataInvalid: rows are wrong, which are named, or there are too few images to learn from.
    """
    files = [info for info in objects if is_image_name(info.key)]
    found = _collect(table, _Keys(frozenset(info.key for info in files)), options)
    if found.wrong:
        more = f" and {len(found.wrong) - _NAMED} more" if len(found.wrong) > _NAMED else ""
        raise DataInvalid(f"{options.name} has wrong rows: {'; '.join(found.wrong[:_NAMED])}{more}")
    named = set(found.images).union(*(image.masks for image in found.images.values()))
    usable, refused = usable_images((info for info in files if info.key in named), options.max_bytes, lambda _: True)
    dataset = _split(found, set(usable), options)
    unreadable = (*refused, *found.absent.values())
    if len(dataset.train) < 2:
        raise DataInvalid(_too_few(found, options, len(dataset.train), unreadable))
    return DatasetIndex(
        train=dataset.train,
        validation=dataset.validation,
        test=dataset.test,
        unreadable=unreadable,
        missing_masks=dataset.missing_masks,
        warnings=(*dataset.warnings, *twin_warnings(found.labels)),
        layout=options.title,
    )


@dataclass(frozen=True)
class _Keys:
    """The keys of all images."""

    exact: frozenset[str]

    @cached_property
    def by_composed(self) -> dict[str, str]:
        """Keys by themselves with accents as parts of their letters (NFC), where that is the form of one key alone."""
        forms = {key: unicodedata.normalize("NFC", key) for key in self.exact}
        count = Counter(forms.values())
        return {form: key for key, form in forms.items() if count[form] == 1}


def _collect(table: ImageRows, keys: _Keys, options: TableOptions) -> _Found:
    found = _Found()
    good = {options.good_label, *table.good_labels}
    for row in table.rows:
        problem = _add(row, found, keys, good, options)
        if problem:
            found.wrong.append(f"{table.unit} {row.where}: {' '.join(problem.split())}")
    return found


def _add(row: Row, found: _Found, keys: _Keys, good: Collection[str], options: TableOptions) -> str:
    """Add a row to what was found; returns what is wrong with it, or an empty text."""
    role, label = row.split.lower(), intern(GOOD if row.label in good else row.label or UNKNOWN)
    problem = _row_problem(row, role, label)
    if problem:
        return problem
    image = _existing(row.path, keys, options.uri)
    if image is None:
        problem = f"{options.name} names it, and it is not there"
        found.absent[row.path] = UnreadableImage(path=row.path, problem=problem)
        return ""
    mask = _existing(row.mask, keys, options.uri) if row.mask and options.with_masks else ""
    if mask is None:
        return f"there is no mask {row.mask}"
    known = found.images.setdefault(image, _Image(row.where, label, _SPLITS[role]))
    if (known.label, known.role) != (label, _SPLITS[role]):
        return f"{row.path} has another label or split in {known.where}"
    known.masks = (*known.masks, mask) if mask and mask not in known.masks else known.masks
    found.labels[label] += 1
    return ""


def _row_problem(row: Row, split: str, label: str) -> str:
    """What is wrong with a row by itself; empty if nothing is."""
    if not row.path:
        return "no path"
    if not is_image_name(row.path):
        return f"{row.path} is no image"
    if split not in _SPLITS:
        return f"the split {row.split} is not train, val or test"
    return _label_problem(label)


@lru_cache(maxsize=1024)
def _label_problem(label: str) -> str:
    """What is wrong with a label; empty if nothing is. A table has few labels and may have millions of rows."""
    if looks_good(label):
        return f"the label {label} would count as a kind of defect; set dataset.table.goodLabel if it means good"
    if looks_unknown(label):
        return f"the label {label} would count as a kind of defect; leave it empty if it is not known"
    if "/" in label or not is_safe_key(label):
        return f"the label {label} cannot be the name of a folder"
    return ""


def _existing(path: str, keys: _Keys, uri: str) -> str | None:
    """The key that a path in the table means, None if there is no such image.

    Paths may begin with ``./`` or with the root's URI, and may have the separators of Windows. Accents may be written
    in another way than in the key (Unicode's NFC, and NFD of macOS) where only one image has such a name.
    """
    if path in keys.exact:
        return path
    root = f"{uri.rstrip('/')}/"
    candidates = (path.removeprefix(root), path.replace("\\", "/").removeprefix("./"))
    for candidate in candidates:
        if candidate in keys.exact:
            return candidate
    composed = (unicodedata.normalize("NFC", candidate) for candidate in candidates)
    return next((keys.by_composed[form] for form in composed if form in keys.by_composed), None)


def _split(found: _Found, usable: Collection[str], options: TableOptions) -> DatasetIndex:
    """The images by split. Without a split, good images are to learn from, others to test on."""
    samples: dict[Role, list[Sample]] = {"train": [], "val": [], "test": []}
    ignored = 0
    for key in sorted(found.images):
        image = found.images[key]
        role = image.role or ("train" if image.label == GOOD else "test")
        if key not in usable:
            continue
        if is_unused(role, image.label):
            ignored += 1
        else:
            samples[role].append(Sample(key, image.label, image.masks if is_defective(image.label) else ()))
    warnings = [f"{ignored} images of {options.name} are not used: learning uses good ones, validation labelled ones"]
    scored = (*samples["val"], *samples["test"])
    missing = tuple(sample.key for sample in scored if sample.defect and not sample.masks)
    masked = any(sample.masks for sample in scored)
    return DatasetIndex(
        train=tuple(samples["train"]),
        validation=tuple(samples["val"]),
        test=tuple(samples["test"]),
        missing_masks=missing if masked else (),
        warnings=(*(warnings if ignored else ()), *_mask_warning(missing, masked, options)),
    )


def _mask_warning(missing: Sequence[str], masked: bool, options: TableOptions) -> tuple[str, ...]:
    if not missing or not options.with_masks:
        return ()
    if not masked:
        return (f"{options.name} names no masks: pixel metrics are left out",)
    return missing_warning(missing)


def _too_few(found: _Found, options: TableOptions, count: int, unreadable: Sequence[UnreadableImage]) -> str:
    labels = ", ".join(label for label, _ in found.labels.most_common(8)) or "none"
    absent = f"; {len(unreadable)} cannot be used, such as {unreadable[0].path}" if unreadable else ""
    return (
        f"{options.name} has {count} images to learn from, of two that are needed: rows with the label "
        f"{options.good_label} (dataset.table.goodLabel); there are the labels {labels}{absent}"
    )


def inside_folder(table: ImageRows, objects: Iterable[ObjectInfo], name: str) -> ImageRows:
    """The table with its paths below the folder that has its images; lists of Real-IAD do not say which one that is.

    Raises:
        DataInvalid: no folder has the first images, or several have.
    """
    first = list(islice(table.rows, _LOOKED_UP))
    folders = _folders_of(first, table.prefix, [info.key for info in objects])
    if len(folders) != 1:
        found = f"more than one folder has its images: {', '.join(folders)}" if folders else "no folder has its images"
        entry = f", such as {table.prefix}{first[0].path}" if first else ": it has no entries"
        raise DataInvalid(f"{name}: {found}{entry}")
    return table._replace(rows=(_moved(row, folders[0]) for row in chain(first, table.rows)))


def _folders_of(rows: Sequence[Row], prefix: str, keys: Sequence[str]) -> list[str]:
    """The folders, each with a slash at its end, below which any of the rows has its image; that of the keys by itself
    if one has it there: masks in another folder may have the names of images.
    """
    paths = tuple(f"/{prefix}{row.path}" for row in rows)
    tails = paths if any(f"/{key}".endswith(paths) for key in keys) else tuple(f"/{row.path}" for row in rows)
    found = {f"/{key}".removesuffix(tail) for key in keys for tail in tails if f"/{key}".endswith(tail)}
    shown = prefix if tails is paths else ""
    folders = sorted(f"{folder}/{shown}".lstrip("/") for folder in found)
    return [shown] if shown in folders else folders


def _moved(row: Row, folder: str) -> Row:
    return row._replace(path=folder + row.path, mask=folder + row.mask if row.mask else "")
