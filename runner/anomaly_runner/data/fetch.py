"""Stages fetch and dataset: what there is, then the files themselves. Fails in seconds where data is missing.

Listing an experiment's images comes once its model has been found in order, pulling them after everything else has.
"""

from dataclasses import dataclass, replace

from anomaly_api.dataset import Dataset, InputData
from anomaly_api.experiment import ExperimentSpec
from anomaly_api.inference import InferenceSpec
from anomaly_api.run import ModelManifest
from anomaly_api.status import Stage
from anomaly_api.storage import LocationRole
from anomaly_runner.context import Context
from anomaly_runner.data.builtin import PUBLISHED, DatasetCatalog, files_of, prepare
from anomaly_runner.data.folder_layout import index_experiment, index_inference
from anomaly_runner.data.images import largest_file
from anomaly_runner.data.samples import DatasetIndex
from anomaly_runner.data.splits import complete_splits
from anomaly_runner.data.valid_area import ValidArea
from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage import FileCache, FolderStore, ObjectInfo, Prefetcher, Store, start_prefetch, with_cache


@dataclass(frozen=True)
class ListedDataset:
    """A dataset known by its keys, and the objects that its files are."""

    dataset: DatasetIndex
    store: Store
    objects: tuple[ObjectInfo, ...]
    valid_area: ValidArea | None = None
    cache: FileCache | None = None


def list_experiment(spec: ExperimentSpec, context: Context, catalog: DatasetCatalog = PUBLISHED) -> ListedDataset:
    """The images of an experiment; those of a builtin dataset are fetched as ``catalog`` says.

    Raises:
        DataInvalid: not the layout that was expected.
        StorageDenied, StorageUnavailable: they cannot be listed.
    """
    cache = _cache(spec.dataset, context)
    store = _store(spec.dataset, LocationRole.DATASET, context, catalog, cache)
    with context.stage(Stage.FETCH):
        objects = store.list()
    with context.stage(Stage.DATASET):
        with_masks = spec.dataset.task == "segmentation" and bool(spec.evaluation.metrics.pixel)
        largest = largest_file(spec.dataset.limits.max_image_pixels)
        found = index_experiment(objects, store.uri, spec.dataset.mask_suffix, with_masks, max_bytes=largest)
        dataset = complete_splits(found, spec.dataset.splits, spec.dataset.seed)
        valid_area = _valid_area(spec, store)
        return replace(_listed(dataset, store, objects, context), valid_area=valid_area, cache=cache)


def _valid_area(spec: ExperimentSpec, store: Store) -> ValidArea | None:
    name = spec.dataset.valid_area_mask
    if name is None:
        return None
    content = store.read(name)
    if content is None:
        raise DataInvalid(f"validAreaMask {name} is missing in {store.uri}")
    area = ValidArea.read(content, name, spec.dataset.limits.max_image_pixels)
    area.at(spec.transforms.input_size.height, spec.transforms.input_size.width, spec.dataset.crop_area)  # or raises
    return area


def list_inference(
    spec: InferenceSpec, manifest: ModelManifest, context: Context, catalog: DatasetCatalog = PUBLISHED
) -> ListedDataset:
    """The images of an inference, of a builtin dataset its test images; raises as ``list_experiment``."""
    cache = _cache(spec.input, context)
    store = _store(spec.input, LocationRole.INPUT, context, catalog, cache)
    if spec.input.source.builtin is not None and spec.input.layout == "flat":
        store = store.subfolder("test")
    with context.stage(Stage.FETCH):
        objects = store.list()
    with context.stage(Stage.DATASET):
        segmentation = manifest.task == "segmentation"
        largest = largest_file(spec.input.limits.max_image_pixels)
        dataset = index_inference(
            objects, store.uri, spec.input.layout, spec.input.mask_suffix, segmentation, max_bytes=largest
        )
        return replace(_listed(dataset, store, objects, context), cache=cache)


def _cache(data: Dataset | InputData, context: Context) -> FileCache | None:
    """The cache that the resource asks for, if there is a folder for it."""
    if data.cache is None:
        return None
    store = context.stores.get(LocationRole.CACHE)
    if store is None or store.local_root is None:
        context.record.warn("there is no node cache here: every run pulls its files anew")
        return None
    return FileCache(store.local_root, context.record.warn)


def _store(
    data: Dataset | InputData, role: LocationRole, context: Context, catalog: DatasetCatalog, cache: FileCache | None
) -> Store:
    """The folder of the images; a builtin dataset is brought here first."""
    spec = data.source.builtin
    if spec is None:
        return context.stores[role].subfolder(data.category or "")
    meter = _Megabytes(context)
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


class _Megabytes:
    """Tells progress in whole megabytes of bytes as they come."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._bytes = 0

    def advance(self, count: int) -> None:
        before = self._bytes >> 20
        self._bytes += count
        self._context.advance((self._bytes >> 20) - before)


def _listed(dataset: DatasetIndex, store: Store, objects: list[ObjectInfo], context: Context) -> ListedDataset:
    context.record.warn(*dataset.warnings)
    by_key = {info.key: info for info in objects}
    return ListedDataset(dataset, store, tuple(by_key[key] for key in dict.fromkeys(dataset.file_keys())))


def prefetch_images(listed: ListedDataset, context: Context) -> Prefetcher:
    """Begin to bring the files here, those that are needed first at first; nobody has to wait for all of them."""
    return start_prefetch(
        with_cache(listed.store, listed.cache), listed.objects, context.work / "dataset", context.stop.check
    )
