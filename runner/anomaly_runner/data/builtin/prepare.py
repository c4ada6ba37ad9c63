"""Prepare the folder of a public dataset: download its files, check them, and write their images."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from anomaly_api.dataset import BuiltinDataset
from anomaly_runner.data.builtin import mnist, mvtec
from anomaly_runner.data.builtin.download import download
from anomaly_runner.data.builtin.remote_files import DatasetCatalog, RemoteFile
from anomaly_runner.errors import InvalidConfig, StorageUnavailable
from anomaly_runner.storage import FileCache
from anomaly_runner.storage.object_cache import CacheEntry


def files_of(spec: BuiltinDataset, catalog: DatasetCatalog) -> Sequence[RemoteFile]:
    """The files to download for a dataset, with the digests that the manifest gives.

    Raises:
        InvalidConfig: the manifest gives the digest of a file that the dataset does not have.
    """
    published = (catalog.mvtec,) if spec.name == "mvtec" else tuple(vars(catalog.mnist).values())
    digests, names = spec.digests or {}, [file.name for file in published]
    if unknown := digests.keys() - set(names):
        raise InvalidConfig(
            f"source.builtin.digests: {spec.name} has no file {', '.join(sorted(unknown))}; "
            f"its files are {', '.join(names)}"
        )
    return [file.with_digest(digests[file.name]) if file.name in digests else file for file in published]


def prepare(
    spec: BuiltinDataset,
    category: str | None,
    folder: Path,
    *,
    advance: Callable[[int], None],
    check: Callable[[], None],
    catalog: DatasetCatalog,
    cache: FileCache | None = None,
) -> Path:
    """Download a dataset, write its images, and return the folder that holds train/ and test/.

    Args:
        spec: the dataset.
        category: of MVTec AD; None for other datasets.
        folder: scratch folder.
        advance: called with the number of bytes of each downloaded chunk; may raise to stop.
        check: called while unpacking; may raise to stop.
        catalog: the published files.
        cache: keeps the downloaded files for the next run; None for no cache.

    Raises:
        DataInvalid: a file is missing or is not the expected one, or the dataset has no such category.
        InvalidConfig: as ``files_of``.
        StorageUnavailable: a server does not answer, or the folder cannot be written.
    """
    files = [
        _download_or_restore(file, spec.mirror, folder / "files", advance, cache) for file in files_of(spec, catalog)
    ]
    images = folder / "images"
    shutil.rmtree(images, ignore_errors=True)  # left over from an incomplete attempt
    try:
        return _lay_out(spec, category, files, images, check)
    except OSError as error:
        raise StorageUnavailable(f"cannot write below {images}: {error.strerror}") from error


def _download_or_restore(
    file: RemoteFile, mirror: str | None, folder: Path, advance: Callable[[int], None], cache: FileCache | None
) -> Path:
    entry = CacheEntry.of_content(file.algorithm, file.digest)
    if cache is None or cache.restore(entry, folder / file.name):
        return download(file, mirror, folder, advance)
    found = download(file, mirror, folder, advance)
    cache.save(entry, found)
    return found


def _lay_out(
    spec: BuiltinDataset, category: str | None, files: Sequence[Path], here: Path, check: Callable[[], None]
) -> Path:
    if spec.good_label is not None:  # required for mnist, and set for no other dataset
        mnist.write_folders((files[0], files[1]), (files[2], files[3]), spec.good_label, spec.limit, here)
        return here
    if category is None:
        raise InvalidConfig(f"the builtin dataset {spec.name} needs a category")
    mvtec.extract(files[0], category, here, check)
    if spec.limit is not None:
        mvtec.keep_first(here / category, spec.limit)
    return here / category
