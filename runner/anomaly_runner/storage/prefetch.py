"""Objects on their way to this machine: pulled in parallel, used as soon as each is there.

A pull never makes its consumer wait for more than the object it asks for, so training starts on the first
images while the last ones are still on their way. Objects already here with the same size and ETag (the
index file says so) are not pulled again.
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
from anomaly_runner.storage.store import ObjectInfo, Source

logger = logging.getLogger(__name__)

_INDEX = ".etags.jsonl"
_POLL_SECONDS = 0.5


class Prefetcher:
    """Objects of one store as files below ``root``. ``path`` waits for one, ``close`` gives up on the rest."""

    def __init__(self, root: Path, check: Callable[[], None]) -> None:
        self.root = root
        self._check = check
        self._pending: dict[str, Future[None]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._index: _Index | None = None

    def path(self, key: str) -> Path:
        """Where the object is on this machine, once it is there.

        Raises:
            RunFailed: what its pull failed with.
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

    def start(self, source: Source, objects: Sequence[ObjectInfo]) -> None:
        """Begin to pull objects in their order."""
        index = self._index = _Index(self.root / _INDEX)
        missing = [info for info in objects if not index.has(info, self.root)]
        count = _Count(missing)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="pull")
        for info in missing:
            self._pending[info.key] = self._pool.submit(self._download, source, info, index, count)

    def _download(self, source: Source, info: ObjectInfo, index: "_Index", count: "_Count") -> None:
        try:
            source.download(info, self.root / info.key)
        except OSError as error:
            raise StorageUnavailable(f"cannot write {self.root / info.key}: {error}") from error
        index.add(info)
        count.add(info)

    def close(self) -> None:
        """Drop what has not begun; wait for what has."""
        if self._pool and self._index:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._index.close()


class _Count:
    """Logs how far a pull is, at each tenth of its bytes: nobody waits for it, so no stage shows it."""

    def __init__(self, objects: Sequence[ObjectInfo]) -> None:
        self._files = len(objects)
        self._bytes = sum(info.size for info in objects)
        self._lock = threading.Lock()
        self._files_done = self._bytes_done = 0

    def add(self, info: ObjectInfo) -> None:
        with self._lock:
            tenth = self._tenth()
            self._files_done += 1
            self._bytes_done += info.size
            news = self._tenth() > tenth or self._files_done == self._files
        if news:
            logger.info(
                "pulled", extra={"files": self._files_done, "of": self._files, "megabytes": self._bytes_done >> 20}
            )

    def _tenth(self) -> int:
        return 10 * self._bytes_done // max(1, self._bytes)


class _Index:
    """Which objects are here already: one JSON line each, appended as they arrive."""

    def __init__(self, file: Path) -> None:
        self._lock = threading.Lock()
        file.parent.mkdir(parents=True, exist_ok=True)
        self._known = _read_index(file)
        self._file = file.open("a", encoding="utf-8", buffering=1)  # by lines: an index that broke off is still true

    def has(self, info: ObjectInfo, root: Path) -> bool:
        path = root / info.key
        same = self._known.get(info.key) == (info.size, info.etag)
        return same and path.is_file() and path.stat().st_size == info.size

    def add(self, info: ObjectInfo) -> None:
        line = json.dumps([info.key, info.size, info.etag])
        with self._lock:
            self._file.write(line + "\n")

    def close(self) -> None:
        self._file.close()


def _read_index(file: Path) -> dict[str, tuple[int, str]]:
    if not file.is_file():
        return {}
    whole = [line for line in file.read_text(encoding="utf-8").split("\n")[:-1] if line]
    return {key: (size, etag) for key, size, etag in map(json.loads, whole)}


def start_prefetch(
    source: Source, objects: Sequence[ObjectInfo], folder: Path, check: Callable[[], None]
) -> Prefetcher:
    """Begin to bring objects to this machine; a store that is on it is used in place.

    ``check`` is called while waiting, and raises to break the wait.
    """
    if source.local_root is not None:
        return Prefetcher(source.local_root, check)
    prefetcher = Prefetcher(folder, check)
    prefetcher.start(source, objects)
    return prefetcher


def download_all(source: Source, objects: Sequence[ObjectInfo], folder: Path, check: Callable[[], None]) -> Path:
    """Bring objects to this machine and wait for all of them; answers the folder that holds them.

    Raises:
        StorageDenied: one cannot be read, of a volume: its files belong to others, and libraries would say otherwise.
    """
    prefetcher = start_prefetch(source, objects, folder, check)
    try:
        for info in objects:
            if not os.access(prefetcher.path(info.key), os.R_OK):
                raise StorageDenied(f"no permission to read {prefetcher.path(info.key)}: make it readable for all")
    finally:
        prefetcher.close()
    return source.local_root or folder
