"""Find the images of an experiment in what its source lists: by a table, by a published list, or by folders."""

import posixpath
from collections.abc import Sequence
from pathlib import PurePosixPath

from anomaly_api.dataset import Dataset, TableColumns
from anomaly_runner.data.folder_layout import choose_layout, index_experiment
from anomaly_runner.data.images import max_file_bytes
from anomaly_runner.data.layouts.folders import VISA
from anomaly_runner.data.layouts.rows import ImageRows, read_rows
from anomaly_runner.data.layouts.table import TableOptions, index_table, inside_folder
from anomaly_runner.data.notices import name_first
from anomaly_runner.data.samples import DatasetIndex
from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage import ObjectInfo, Store

_VISA_SPLIT = "split_csv/1cls.csv"
"""The published split of VisA, beside the folders of its objects: to learn from normal images alone."""
_VISA_GOOD = "normal"


def index_images(
    data: Dataset, store: Store, source: Store | None, objects: Sequence[ObjectInfo], with_masks: bool
) -> DatasetIndex:
    """Find the training, validation and test images of an experiment.

    Args:
        data: the experiment's dataset.
        store: the folder of the images.
        source: the folder that ``data.category`` is below; None for a builtin dataset.
        objects: all files of ``store``.
        with_masks: whether to pair images with masks (segmentation).

    Raises:
        DataInvalid: as ``folder_layout.index_experiment`` and ``layouts.table.index_table``.
        StorageDenied: the storage refused the credentials.
        StorageUnavailable: the storage does not answer.
    """
    images = [info for info in objects if info.key != data.valid_area_mask]  # an image that belongs to no split
    if data.table is not None:
        return _index_list(data, data.table.path, store, images, with_masks)
    if data.layout == "realIad":
        return _index_list(data, _real_iad_list(data.category, store, objects), store, images, with_masks)
    layout = choose_layout(images, None if data.layout == "auto" else data.layout)
    if layout is VISA and source is not None and data.category is not None:
        split = source.read(posixpath.join(posixpath.dirname(data.category), _VISA_SPLIT))
        if split is not None:
            table = _visa_rows(split, f"{posixpath.basename(data.category)}/")
            told = _options(data, store, with_masks, name=_VISA_SPLIT, title=VISA.title, good=_VISA_GOOD)
            return index_table(table, images, told)
    max_bytes = max_file_bytes(data.limits.max_image_pixels)
    return index_experiment(images, store.uri, data.mask_suffix, with_masks, layout=layout.name, max_bytes=max_bytes)


def _index_list(data: Dataset, name: str, store: Store, images: Sequence[ObjectInfo], with_masks: bool) -> DatasetIndex:
    content = store.read(name)
    if content is None:
        raise DataInvalid(f"dataset.table.path {name} is missing in {store.uri}")
    real_iad = PurePosixPath(name).suffix.lower() == ".json"
    columns = data.table.columns if data.table else TableColumns()
    category = PurePosixPath(data.category).name if data.category else None
    table = read_rows(content, name, columns, category)
    if real_iad:
        table = inside_folder(table, images, name)
    good = data.table.good_label if data.table else "OK"
    title = "Real-IAD" if real_iad else name
    return index_table(table, images, _options(data, store, with_masks, name=name, title=title, good=good))


def _options(data: Dataset, store: Store, with_masks: bool, *, name: str, title: str, good: str) -> TableOptions:
    return TableOptions(
        name=name,
        title=title,
        uri=store.uri,
        good_label=good,
        with_masks=with_masks,
        max_bytes=max_file_bytes(data.limits.max_image_pixels),
    )


def _real_iad_list(category: str | None, store: Store, objects: Sequence[ObjectInfo]) -> str:
    """The key of the JSON list of a category, or of the only one.

    Raises:
        DataInvalid: there is none, or more than one.
    """
    wanted = f"{PurePosixPath(category).name}.json" if category else "*.json"
    found = [info.key for info in objects if PurePosixPath(info.key).match(wanted)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataInvalid(f"there is no list {wanted} below {store.uri}: layout realIad needs one")
    raise DataInvalid(
        f"several lists {wanted} are below {store.uri}: {name_first(found)}; name one in dataset.table.path"
    )


def _visa_rows(content: bytes, folder: str) -> ImageRows:
    """The rows of one object, with paths below its folder."""
    table = read_rows(content, _VISA_SPLIT, TableColumns(path="image"))
    return table._replace(
        rows=(
            row._replace(path=row.path.removeprefix(folder), mask=row.mask.removeprefix(folder))
            for row in table.rows
            if row.path.startswith(folder)
        )
    )
