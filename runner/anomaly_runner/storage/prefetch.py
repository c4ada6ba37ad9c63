"""Download objects in the background, in parallel; each can be used as soon as it has arrived.

A consumer waits for no more than the object it asks for, so training starts on the first images while the last ones
are still on their way. Objects that are here already with the same size and ETag (an index file beside them says so)
are not downloaded again.
"""

import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path

from anomaly_runner.errors import StorageDenied, StorageUnavailable
from anomaly_runner.storage.s3 import THREADS
from anomaly_runner.storage.store import ObjectInfo, ObjectSource

logger = logging.getLogger(__name__)

_INDEX_FILE = ".etags.jsonl"
_POLL_SECONDS = 0.5
"""How often a waiting consumer looks whether the run was asked to stop."""


class Prefetcher:
    """Objects of one source as files below a folder; also stands for a folder in which they all are already.

    Args:
        root: the folder.
        check: called while waiting; raises to break the wait.
    """

    def __init__(self, root: Path, check: Callable[[], None]) -> None:
        self.root = root
        self._check = check
        self._pending: dict[str, Future[None]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._index: _EtagIndex | None = None

    def path(self, key: str) -> Path:
        """Wait for an object to arrive; returns its file.

        Raises:
            RunFailed: what its download failed with, or what ``check`` raised.
        """
        pending = self._pending.get(key)
        if pending is not None:
            self._wait(pending)
        return self.root / key

    def _wait(self, pending: Future[None]) -> None:
        while True:
            self._check()
            try:
                pending.result(timeout=_POLL_SECONDS)
            except FutureTimeoutError:
                continue
            return

    def start(self, source: ObjectSource, objects: Sequence[ObjectInfo]) -> None:
        """Begin to download objects, in their order."""
        index = self._index = _EtagIndex(self.root / _INDEX_FILE)
        missing = [info for info in objects if not index.has(info, self.root)]
        counter = _DownloadCounter(missing)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="prefetch")
        for info in missing:
            self._pending[info.key] = self._pool.submit(self._download, source, info, index, counter)

    def _download(
        self, source: ObjectSource, info: ObjectInfo, index: "_EtagIndex", counter: "_DownloadCounter"
    ) -> None:
        try:
            source.download(info, self.root / info.key)
        except OSError as error:
            raise StorageUnavailable(f"cannot write {self.root / info.key}: {error}") from error
        index.add(info)
        counter.add(info)

    def close(self) -> None:
        """Drop downloads that have not begun; wait for those that have."""
        if self._pool and self._index:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._index.close()


class _DownloadCounter:
    """Logs how far the downloads are, at each tenth of their bytes: nobody waits for them, so no stage shows it."""

    def __init__(self, objects: Sequence[ObjectInfo]) -> None:
        self._files = len(objects)
        self._bytes = sum(info.size for info in objects)
        self._lock = threading.Lock()
        self._files_done = self._bytes_done = 0

    def add(self, info: ObjectInfo) -> None:
        """Count one object that has arrived."""
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
    """Which objects are here already: key, size and ETag, one JSON line each, appended as they arrive."""

    def __init__(self, file: Path) -> None:
        self._lock = threading.Lock()
        file.parent.mkdir(parents=True, exist_ok=True)
        self._known = _read_index(file)
        # Buffered by lines: where the process dies, every complete line is of an object that has arrived.
        self._file = file.open("a", encoding="utf-8", buffering=1)

    def has(self, info: ObjectInfo, root: Path) -> bool:
        """Whether the object is a file below ``root``, with the same size and ETag."""
        path = root / info.key
        same = self._known.get(info.key) == (info.size, info.etag)
        return same and path.is_file() and path.stat().st_size == info.size

    def add(self, info: ObjectInfo) -> None:
        """Note an object that has arrived."""
        line = json.dumps([info.key, info.size, info.etag])
        with self._lock:
            self._file.write(line + "\n")

    def close(self) -> None:
        """Close the index file."""
        self._file.close()


def _read_index(file: Path) -> dict[str, tuple[int, str]]:
    """Size and ETag by key; a last line without its end is of a process that died, and ignored."""
    if not file.is_file():
        return {}
    complete = [line for line in file.read_text(encoding="utf-8").split("\n")[:-1] if line]
    return {key: (size, etag) for key, size, etag in map(json.loads, complete)}


def start_prefetch(
    source: ObjectSource, objects: Sequence[ObjectInfo], folder: Path, check: Callable[[], None]
) -> Prefetcher:
    """Begin to download objects into a folder; a source that is on this machine is used in place.

    Args:
        source: where the objects are.
        objects: what to download, most urgent first.
        folder: where it goes.
        check: called while a consumer waits; raises to break the wait.
    """
    if source.local_root is not None:
        return Prefetcher(source.local_root, check)
    prefetcher = Prefetcher(folder, check)
    prefetcher.start(source, objects)
    return prefetcher


def download_all(source: ObjectSource, objects: Sequence[ObjectInfo], folder: Path, check: Callable[[], None]) -> Path:
    """Download objects and wait for all of them; returns the folder that holds them.

    Arguments are those of ``start_prefetch``.

    Raises:
        StorageDenied: a file of a volume may not be read, or the storage refused the credentials.
        RunFailed: as ``Prefetcher.path``.
    """
    prefetcher = start_prefetch(source, objects, folder, check)
    try:
        for info in objects:
            # Checked here because libraries that are given an unreadable file say that there is no such file.
            if not os.access(prefetcher.path(info.key), os.R_OK):
                raise StorageDenied(f"no permission to read {prefetcher.path(info.key)}: make it readable for all")
    finally:
        prefetcher.close()
    return source.local_root or folder
