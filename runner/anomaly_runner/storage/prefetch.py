"""Download objects in the background and in parallel; each can be used as soon as it is downloaded.

A consumer waits only for the object that it asks for, so that training starts on the first images while the last ones
are still being downloaded. Objects that are on this machine already, with the same size and ETag in an index file
beside them, are not downloaded again.
"""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath

from anomaly_runner.errors import StorageDenied, StorageUnavailable
from anomaly_runner.storage.folder import check_unchanged, path_of
from anomaly_runner.storage.s3 import THREADS
from anomaly_runner.storage.store import ObjectInfo, ObjectSource

logger = logging.getLogger(__name__)

_INDEX_FILE = ".etags.jsonl"
_POLL_SECONDS = 0.5
"""Time between two checks of a waiting consumer whether the run was asked to stop."""


class Prefetcher:
    """The files of one source's objects below a folder, which are being downloaded or are all there already.

    Args:
        root: the folder.
        check: called while waiting; may raise to end the wait.
        file_of: path of an object's file below the folder, by its key.
        pinned: objects whose files are used in place, and have to be what was listed.
    """

    def __init__(
        self,
        root: Path,
        check: Callable[[], None],
        file_of: Callable[[str], str] = path_of,
        pinned: Iterable[ObjectInfo] = (),
    ) -> None:
        self.root = root
        self.file_of = file_of
        self._check = check
        self._pinned = {info.key: info for info in pinned}
        self._pending: dict[str, Future[None]] = {}
        self._open = ExitStack()

    def path(self, key: str) -> Path:
        """Wait until an object is downloaded, and return its file.

        Raises:
            RunFailed: the download failed, or ``check`` raised it.
            DataChanged: the file is pinned, and not what was listed.
        """
        pending, file = self._pending.get(key), self.root / self.file_of(key)
        if pending is not None:
            self._wait(pending)
        if key in self._pinned:
            check_unchanged(self._pinned[key], file)
        return file

    def _wait(self, pending: Future[None]) -> None:
        while True:
            self._check()
            try:
                pending.result(timeout=_POLL_SECONDS)
            except FutureTimeoutError:
                continue
            return

    def start(self, source: ObjectSource, objects: Sequence[ObjectInfo]) -> None:
        """Start downloading objects, in their order."""
        index = _EtagIndex(self.root / _INDEX_FILE)
        self._open.callback(index.close)
        missing = [info for info in objects if not index.has(info, self.root / self.file_of(info.key))]
        counter = _DownloadCounter(missing)
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="prefetch")
        self._open.callback(pool.shutdown, cancel_futures=True)
        for info in missing:
            self._pending[info.key] = pool.submit(self._download, source, info, index, counter)

    def _download(
        self, source: ObjectSource, info: ObjectInfo, index: "_EtagIndex", counter: "_DownloadCounter"
    ) -> None:
        try:
            source.download(info, self.root / self.file_of(info.key))
        except OSError as error:
            raise StorageUnavailable(f"cannot write {info.key} below {self.root}: {error}") from error
        index.add(info)
        counter.add(info)

    def close(self) -> None:
        """Cancel downloads that have not started, and wait for the others."""
        self._open.close()


class _DownloadCounter:
    """Logs the progress of the downloads at each tenth of their bytes, because no stage shows it."""

    def __init__(self, objects: Sequence[ObjectInfo]) -> None:
        self._files = len(objects)
        self._bytes = sum(info.size for info in objects)
        self._lock = threading.Lock()
        self._files_done = self._bytes_done = 0

    def add(self, info: ObjectInfo) -> None:
        """Count an object that was downloaded."""
        with self._lock:
            tenth = self._tenths_done()
            self._files_done += 1
            self._bytes_done += info.size
            news = self._tenths_done() > tenth or self._files_done == self._files
        if news:
            logger.info(
                "pulled", extra={"files": self._files_done, "of": self._files, "megabytes": self._bytes_done >> 20}
            )

    def _tenths_done(self) -> int:
        return 10 * self._bytes_done // max(1, self._bytes)


class _EtagIndex:
    """Key, size and ETag of the downloaded objects, in a file with one JSON line for each."""

    def __init__(self, file: Path) -> None:
        self._lock = threading.Lock()
        file.parent.mkdir(parents=True, exist_ok=True)
        self._known = _read_index(file)
        # Line-buffered: if the process dies, every complete line is about a downloaded object.
        self._file = file.open("a", encoding="utf-8", buffering=1)

    def has(self, info: ObjectInfo, file: Path) -> bool:
        """Whether the object's file is there, with the same size and ETag; false where there is no ETag."""
        same = info.etag != "" and self._known.get(info.key) == (info.size, info.etag)
        return same and file.is_file() and file.stat().st_size == info.size

    def add(self, info: ObjectInfo) -> None:
        """Record an object that was downloaded."""
        line = json.dumps([info.key, info.size, info.etag])
        with self._lock:
            self._file.write(line + "\n")

    def close(self) -> None:
        """Close the index file."""
        self._file.close()


def _read_index(file: Path) -> dict[str, tuple[int, str]]:
    """Size and ETag by key.

    A line that a process which died, or a full disk, has left incomplete is passed over, with what the next one wrote
    behind it: these objects are pulled again.
    """
    known = dict[str, tuple[int, str]]()
    if file.is_file():
        for line in file.read_text(encoding="utf-8").split("\n"):
            with suppress(ValueError):
                key, size, etag = json.loads(line)
                known[key] = (size, etag)
    return known


def hashed_path(key: str) -> str:
    """Path of a downloaded object by a hash of its key, with its extension: every key has one, and no two share it.

    A key itself may be no path: its parts may be longer than names of files, and a bucket may hold "a.png" and
    "a.png/b.png".
    """
    digest = hashlib.sha256(key.encode()).hexdigest()
    extension = PurePosixPath(key).suffix.lower()
    return f"{digest[:2]}/{digest}{extension if extension.isascii() and extension[1:].isalnum() else ''}"[:100]


def start_prefetch(
    source: ObjectSource, objects: Sequence[ObjectInfo], folder: Path, check: Callable[[], None]
) -> Prefetcher:
    """Start downloading objects into a folder, under names of their own; files of this machine are used in place.

    Args:
        source: source of the objects.
        objects: objects to download, in the order in which they are needed.
        folder: target of the files; ``Prefetcher.path`` says where each is.
        check: called while a consumer waits; may raise to end the wait.
    """
    return _prefetcher(source, objects, folder, check, hashed_path)


def _prefetcher(
    source: ObjectSource,
    objects: Sequence[ObjectInfo],
    folder: Path,
    check: Callable[[], None],
    file_of: Callable[[str], str],
) -> Prefetcher:
    if source.local_root is not None:
        return Prefetcher(source.local_root, check, pinned=[info for info in objects if info.pinned])
    prefetcher = Prefetcher(folder, check, file_of)
    prefetcher.start(source, objects)
    return prefetcher


def download_all(source: ObjectSource, objects: Sequence[ObjectInfo], folder: Path, check: Callable[[], None]) -> Path:
    """Download objects to their keys below a folder, wait for all of them, and return the folder that holds them.

    The arguments are those of ``start_prefetch``.

    Raises:
        StorageDenied: a file of a volume may not be read, or the storage refused the credentials.
        RunFailed: as ``Prefetcher.path``.
    """
    prefetcher = _prefetcher(source, objects, folder, check, path_of)
    try:
        for info in objects:
            # Checked here, because libraries report an unreadable file as missing.
            if not os.access(prefetcher.path(info.key), os.R_OK):
                raise StorageDenied(f"no permission to read {prefetcher.path(info.key)}: make it readable for all")
    finally:
        prefetcher.close()
    return source.local_root or folder
