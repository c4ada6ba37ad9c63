"""Stages fetch and dataset: list the images, so that missing data fails in seconds, and later prefetch the files.

An experiment's images are listed after its model is checked, and downloaded only after all other checks. What an
earlier step of the run has listed is not listed again (``stored_listing``).
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from anomaly_api.dataset import Dataset, InputData
from anomaly_api.experiment import ExperimentSpec
from anomaly_api.inference import InferenceSpec
from anomaly_api.run import ModelManifest
from anomaly_api.status import Listing, Stage
from anomaly_api.storage import LocationRole
from anomaly_runner.context import About, Context
from anomaly_runner.data.builtin import PUBLISHED, DatasetCatalog, files_of, prepare
from anomaly_runner.data.folder_layout import index_inference
from anomaly_runner.data.fraction import take_fraction
from anomaly_runner.data.images import max_file_bytes
from anomaly_runner.data.listing import index_images
from anomaly_runner.data.samples import DatasetIndex
from anomaly_runner.data.splits import complete_splits
from anomaly_runner.data.stored_listing import (
    LISTING,
    FoundImages,
    ListingInvalidError,
    from_parquet,
    selection_digest,
    to_parquet,
)
from anomaly_runner.data.summary import describe
from anomaly_runner.data.synthetic import add_synthetic_defects
from anomaly_runner.data.valid_area import ValidArea
from anomaly_runner.errors import DataInvalid, RunFailed, StorageDenied
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
        selection: digest of what decided about which files these are.
        valid_area: area of the pixels that count; None for whole images.
        cache: keeps the files for the next run; None for no cache.
    """

    dataset: DatasetIndex
    store: Store
    objects: tuple[ObjectInfo, ...]
    selection: str
    valid_area: ValidArea | None = None
    cache: FileCache | None = None


def list_experiment(
    spec: ExperimentSpec, context: Context, catalog: DatasetCatalog = PUBLISHED, known: Listing | None = None
) -> ListedDataset:
    """List the images of an experiment; a builtin dataset is downloaded from the files in ``catalog`` first.

    Args:
        known: what an earlier step of the run has listed, which is read instead if it is still there.

    Raises:
        DataInvalid: the folder does not have the expected layout, or the mask of the valid area cannot be used.
        InvalidConfig: synthetic defects cannot be painted on these images.
        StorageDenied: the storage refused the credentials.
        StorageUnavailable: the storage does not answer.
        Stopped: the run was asked to stop.
    """
    cache = _cache(spec.dataset, context)
    store = _open_store(spec.dataset, LocationRole.DATASET, context, catalog, cache)
    with_masks = spec.dataset.task == "segmentation" and bool(spec.evaluation.metrics.pixel)
    selection = selection_digest("experiment", spec.dataset.model_dump_json(), str(with_masks))
    with context.stage(Stage.FETCH):
        stored = _stored(known, selection, context)
        objects = stored.objects if stored else store.list()
    with context.stage(Stage.DATASET):
        dataset = stored.dataset if stored else _index(spec, store, objects, with_masks, context)
        dataset = add_synthetic_defects(dataset, spec.dataset.splits.synthetic_defects, spec.dataset.seed)
        valid_area = _valid_area(spec, store, context)
        return replace(_listed(dataset, store, objects, selection, context), valid_area=valid_area, cache=cache)


def _index(
    spec: ExperimentSpec, store: Store, objects: Sequence[ObjectInfo], with_masks: bool, context: Context
) -> DatasetIndex:
    found = index_images(spec.dataset, store, context.stores.get(LocationRole.DATASET), objects, with_masks)
    whole = complete_splits(found, spec.dataset.splits, spec.dataset.seed)
    return take_fraction(whole, spec.dataset.fraction, spec.dataset.seed)


def list_inference(
    spec: InferenceSpec,
    manifest: ModelManifest,
    context: Context,
    catalog: DatasetCatalog = PUBLISHED,
    known: Listing | None = None,
) -> ListedDataset:
    """List the images of an inference; for a builtin dataset these are its test images.

    Args:
        known: as for ``list_experiment``.

    Raises:
        RunFailed: as ``list_experiment``.
    """
    cache = _cache(spec.input, context)
    store = _open_store(spec.input, LocationRole.INPUT, context, catalog, cache)
    if spec.input.source.builtin is not None and spec.input.layout == "flat":
        store = store.subfolder("test")
    segmentation = manifest.task == "segmentation"
    selection = selection_digest("inference", spec.input.model_dump_json(), str(segmentation))
    with context.stage(Stage.FETCH):
        stored = _stored(known, selection, context)
        objects = stored.objects if stored else store.list()
    with context.stage(Stage.DATASET):
        max_bytes = max_file_bytes(spec.input.limits.max_image_pixels)
        dataset = (
            stored.dataset
            if stored
            else index_inference(
                objects, store.uri, spec.input.layout, spec.input.mask_suffix, segmentation, max_bytes=max_bytes
            )
        )
        return replace(_listed(dataset, store, objects, selection, context), cache=cache)


def _stored(known: Listing | None, selection: str, context: Context) -> FoundImages | None:
    """What an earlier step has listed; None, with a line in the log, if that cannot be used.

    Raises:
        StorageDenied, StorageUnavailable: the artifacts' folder cannot be read.
    """
    if known is None:
        return None
    artifacts = context.stores[LocationRole.OUTPUT].subfolder(context.run.folder)
    try:
        found = _verified(artifacts.read(known.file), known, selection)
    except ListingInvalidError as error:
        logger.warning("the listing %s of the step check is not used, the files are listed anew: %s", known.file, error)
        return None
    logger.info("the files are those that the step check has listed", extra={"files": len(found.objects)})
    if untold := sum(not info.etag for info in found.objects):
        logger.warning("the storage tells no ETag of %d files: of these only the size shows a change", untold)
    return found


def _verified(content: bytes | None, known: Listing, selection: str) -> FoundImages:
    """The images of a listing.

    Raises:
        ListingInvalidError: it is missing, or not the one that was written.
    """
    if content is None:
        raise ListingInvalidError("it is gone")
    if hashlib.sha256(content).hexdigest() != known.sha256:
        raise ListingInvalidError("its SHA-256 differs")
    return from_parquet(content, selection)


def store_listing(listed: ListedDataset, context: Context) -> Listing:
    """Write the listing of a dataset to the artifacts, for the next step of the run.

    Raises:
        StorageDenied, StorageUnavailable: the artifacts' folder cannot be written.
    """
    content = to_parquet(FoundImages(listed.dataset, listed.objects), listed.selection)
    file = context.work / LISTING
    file.write_bytes(content)
    context.stores[LocationRole.OUTPUT].subfolder(context.run.folder).upload(file, LISTING)
    return Listing(file=LISTING, sha256=hashlib.sha256(content).hexdigest())


def discard_listing(known: Listing, context: Context) -> None:
    """Delete a listing that is out of date, so that the next pod lists anew; a failure to do so is logged."""
    artifacts = context.stores[LocationRole.OUTPUT].subfolder(context.run.folder)
    try:
        artifacts.delete(known.file)
    except StorageDenied:  # a policy may allow to write and not to delete
        _overwrite(artifacts, known, context)
    except RunFailed as error:
        logger.error("the listing %s is out of date and cannot be deleted: %s", known.file, error)


def _overwrite(artifacts: Store, known: Listing, context: Context) -> None:
    """Replace a listing by an empty file, which has another digest; a failure to do so is logged."""
    empty = context.work / "empty"
    empty.write_bytes(b"")
    try:
        artifacts.upload(empty, known.file)
    except RunFailed as error:
        logger.error("the listing %s is out of date and cannot be deleted or replaced: %s", known.file, error)


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
    context.record.warn(*area.warnings(name))
    # Scale it once, so that an unusable mask fails before any image is downloaded.
    area.at(spec.transforms.input_size.height, spec.transforms.input_size.width, spec.dataset.crop_area)
    return area


def _cache(data: Dataset | InputData, context: Context) -> FileCache | None:
    """The cache that the resource asks for, if there is a folder for it."""
    if data.cache is None:
        return None
    store = context.stores.get(LocationRole.CACHE)
    if store is None or store.local_root is None:
        context.record.warn("there is no node cache here: every run pulls its files anew", about=About.EXTRAS)
        return None
    return FileCache(store.local_root, partial(context.record.warn, about=About.EXTRAS))


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


def _listed(
    dataset: DatasetIndex, store: Store, objects: Sequence[ObjectInfo], selection: str, context: Context
) -> ListedDataset:
    logger.info("%s", describe(dataset))
    context.record.warn(*dataset.warnings)
    by_key = {info.key: info for info in objects}
    used = tuple(by_key[key] for key in dict.fromkeys(dataset.file_keys()))
    return ListedDataset(dataset=dataset, store=store, objects=used, selection=selection)
