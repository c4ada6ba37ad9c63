"""Stages fetch and dataset: list the images, so that missing data fails in seconds, and later prefetch the files.

An experiment's images are listed after its model is checked, and downloaded only after all other checks.
"""

import logging
from dataclasses import dataclass, replace

from anomaly_api.dataset import Dataset, InputData
from anomaly_api.experiment import ExperimentSpec
from anomaly_api.inference import InferenceSpec
from anomaly_api.run import ModelManifest
from anomaly_api.status import Stage
from anomaly_api.storage import LocationRole
from anomaly_runner.context import Context
from anomaly_runner.data.builtin import PUBLISHED, DatasetCatalog, files_of, prepare
from anomaly_runner.data.folder_layout import index_inference
from anomaly_runner.data.fraction import take_fraction
from anomaly_runner.data.images import max_file_bytes
from anomaly_runner.data.listing import index_images
from anomaly_runner.data.samples import DatasetIndex
from anomaly_runner.data.splits import complete_splits
from anomaly_runner.data.summary import describe
from anomaly_runner.data.valid_area import ValidArea
from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage import (
    FileCache,
    FolderStore,
    ObjectInfo,
    Prefetcher,
    Store,
    start_prefetch,
    with_cache,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ListedDataset:
    """A dataset that is listed but not downloaded yet.

    Attributes:
        dataset: images by split.
        store: source of the files.
        objects: the files, in the order of use.
        valid_area: area of the pixels that count; None for whole images.
        cache: keeps the files for the next run; None for no cache.
    """

    dataset: DatasetIndex
    store: Store
    objects: tuple[ObjectInfo, ...]
    valid_area: ValidArea | None = None
    cache: FileCache | None = None


def list_experiment(spec: ExperimentSpec, context: Context, catalog: DatasetCatalog = PUBLISHED) -> ListedDataset:
    """List the images of an experiment; a builtin dataset is downloaded from the files in ``catalog`` first.

    Raises:
        DataInvalid: the folder does not have the expected layout, or the mask of the valid area cannot be used.
        StorageDenied: the storage refused the credentials.
        StorageUnavailable: the storage does not answer.
        Stopped: the run was asked to stop.
    """
    cache = _cache(spec.dataset, context)
    store = _open_store(spec.dataset, LocationRole.DATASET, context, catalog, cache)
    with context.stage(Stage.FETCH):
        objects = store.list()
    with context.stage(Stage.DATASET):
        with_masks = spec.dataset.task == "segmentation" and bool(spec.evaluation.metrics.pixel)
        found = index_images(spec.dataset, store, context.stores.get(LocationRole.DATASET), objects, with_masks)
        whole = complete_splits(found, spec.dataset.splits, spec.dataset.seed)
        dataset = take_fraction(whole, spec.dataset.fraction, spec.dataset.seed)
        valid_area = _valid_area(spec, store, context)
        return replace(_listed(dataset, store, objects, context), valid_area=valid_area, cache=cache)


def list_inference(
    spec: InferenceSpec, manifest: ModelManifest, context: Context, catalog: DatasetCatalog = PUBLISHED
) -> ListedDataset:
    """List the images of an inference; for a builtin dataset these are its test images.

    Raises:
        RunFailed: as ``list_experiment``.
    """
    cache = _cache(spec.input, context)
    store = _open_store(spec.input, LocationRole.INPUT, context, catalog, cache)
    if spec.input.source.builtin is not None and spec.input.layout == "flat":
        store = store.subfolder("test")
    with context.stage(Stage.FETCH):
        objects = store.list()
    with context.stage(Stage.DATASET):
        segmentation = manifest.task == "segmentation"
        max_bytes = max_file_bytes(spec.input.limits.max_image_pixels)
        dataset = index_inference(
            objects, store.uri, spec.input.layout, spec.input.mask_suffix, segmentation, max_bytes=max_bytes
        )
        return replace(_listed(dataset, store, objects, context), cache=cache)


def prefetch_images(listed: ListedDataset, context: Context) -> Prefetcher:
    """Start downloading the files of a dataset, in the order of use; a consumer waits only for the file it reads."""
    return start_prefetch(
        with_cache(listed.store, listed.cache), listed.objects, context.work / "dataset", context.stop.check
    )


def _valid_area(spec: ExperimentSpec, store: Store, context: Context) -> ValidArea | None:
    """Read the mask of the valid area, if there is one.

    Raises:
        DataInvalid: the mask is missing or unreadable, or leaves no pixel.
    """
    name = spec.dataset.valid_area_mask
    if name is None:
        return None
    content = store.read(name)
    if content is None:
        raise DataInvalid(f"validAreaMask {name} is missing in {store.uri}")
    area = ValidArea.read(content, name, spec.dataset.limits.max_image_pixels)
    if area.lossy:
        context.record.warn(f"validAreaMask {name} is stored with loss (as JPEG): half of white or more counts")
    # Scale it once, so that an unusable mask fails before any image is downloaded.
    area.at(spec.transforms.input_size.height, spec.transforms.input_size.width, spec.dataset.crop_area)
    return area


def _cache(data: Dataset | InputData, context: Context) -> FileCache | None:
    """The cache that the resource asks for, if there is a folder for it."""
    if data.cache is None:
        return None
    store = context.stores.get(LocationRole.CACHE)
    if store is None or store.local_root is None:
        context.record.warn("there is no node cache here: every run pulls its files anew")
        return None
    return FileCache(store.local_root, context.record.warn)


def _open_store(
    data: Dataset | InputData, role: LocationRole, context: Context, catalog: DatasetCatalog, cache: FileCache | None
) -> Store:
    """The store of the images; a builtin dataset is downloaded and laid out first.

    Raises:
        RunFailed: as ``builtin.prepare``.
    """
    spec = data.source.builtin
    if spec is None:
        return context.stores[role].subfolder(_folder(data))
    meter = _MegabyteMeter(context)
    total = sum(file.size for file in files_of(spec, catalog)) >> 20
    with context.stage(Stage.FETCH, total, "MB"):
        folder = prepare(
            spec,
            data.category,
            context.work / "builtin",
            advance=meter.advance,
            check=context.stop.check,
            catalog=catalog,
            cache=cache,
        )
    return FolderStore(folder)


def _folder(data: Dataset | InputData) -> str:
    """The folder of the images below the source; in the layout of Real-IAD the category is no folder of the source."""
    if isinstance(data, Dataset) and data.layout == "realIad":
        return ""
    return data.category or ""


class _MegabyteMeter:
    """Advances progress by whole megabytes (2**20 bytes) as bytes arrive."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._bytes = 0

    def advance(self, count: int) -> None:
        """Add ``count`` bytes.

        Raises:
            Stopped: the run was asked to stop.
        """
        before = self._bytes >> 20
        self._bytes += count
        self._context.advance((self._bytes >> 20) - before)


def _listed(dataset: DatasetIndex, store: Store, objects: list[ObjectInfo], context: Context) -> ListedDataset:
    logger.info("%s", describe(dataset))
    context.record.warn(*dataset.warnings)
    by_key = {info.key: info for info in objects}
    used = tuple(by_key[key] for key in dict.fromkeys(dataset.file_keys()))
    return ListedDataset(dataset=dataset, store=store, objects=used)
