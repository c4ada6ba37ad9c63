"""Keep downloaded files for the next run, in a folder that several runs share at once.

An entry is named by a hash of the object's address, ETag and size, so a changed object is another entry and nothing is
ever stale. Entries appear by rename, whole or not at all; where two runs save the same object, the last one wins and
both are right. A run links an entry into its own folder, or copies it where that is another file system, so it keeps
its files whatever happens to the cache.

ETags that are plain MD5 digests are checked whenever an entry is used; of other objects (multipart uploads, encrypted
ones) the size is. Whatever goes wrong with the cache costs a download and a warning, never the run.
"""

import hashlib
import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from anomaly_runner.storage.store import ObjectInfo, ObjectSource, Store

_FOLDER = "objects"
_MIN_FREE_SHARE = 0.15
"""Share of the disk that the cache leaves free: below, the kubelet removes images, and at 0.10 it evicts pods."""
_EXTRA_FREED_SHARE = 0.03
"""Share of the disk that is freed beyond that when entries are evicted: finding the oldest ones is a long scan."""
_ABANDONED_SECONDS = 3600.0
"""Age at which a temporary file belongs to no process any more."""
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class CacheEntry:
    """What a cached file is called and how it is verified.

    Attributes:
        name: of the file in the cache.
        size: bytes; None where unknown.
        digest: hexadecimal; None where unknown.
        algorithm: of the digest, as hashlib calls it.
    """

    name: str
    size: int | None
    digest: str | None
    algorithm: str = "md5"

    @classmethod
    def of_object(cls, address: str, info: ObjectInfo) -> "CacheEntry":
        """The entry of an object, by its ``Store.address``."""
        digest = info.etag if _MD5.fullmatch(info.etag) else None
        return cls(_hash(f"{address}\n{info.etag}\n{info.size}"), info.size, digest)

    @classmethod
    def of_content(cls, algorithm: str, digest: str) -> "CacheEntry":
        """The entry of a file that is known by its digest, wherever it is downloaded from."""
        return cls(_hash(f"{algorithm}\n{digest}"), None, digest, algorithm)

    def by_size(self) -> "CacheEntry":
        """The entry of the same object without its digest: encrypted objects have ETags that look like an MD5 only."""
        return CacheEntry(f"{self.name}-size", self.size, None)

    def matches(self, file: Path) -> bool:
        """Whether a file has the entry's size and digest, as far as they are known."""
        if self.size not in (None, file.stat().st_size):
            return False
        return self.digest is None or self.digest == _digest(file, self.algorithm)


class FileCache:
    """Cached files below a folder. Safe to use from many threads and processes; its methods never raise OSError.

    Args:
        root: the folder.
        warn: called once, when the cache cannot be used any more.
    """

    def __init__(self, root: Path, warn: Callable[[str], None]) -> None:
        self._root = root / _FOLDER
        self._warn = warn
        self._lock = threading.Lock()
        self._disabled = False

    def restore(self, entry: CacheEntry, destination: Path) -> bool:
        """Make an entry a file of the run; false if there is none, or it is damaged (which removes it)."""
        try:
            return self._restore(entry, destination) or self._restore(entry.by_size(), destination)
        except OSError as error:
            self._disable(f"cannot be read ({error.strerror})")
            return False

    def _restore(self, entry: CacheEntry, destination: Path) -> bool:
        kept = self._path(entry)
        try:
            _link_or_copy(kept, destination)
        except FileNotFoundError:  # never kept, or evicted meanwhile
            return False
        if entry.matches(destination):
            with suppress(OSError):  # evicted meanwhile: this run has its file
                os.utime(kept)  # used last: evicted last
            return True
        kept.unlink(missing_ok=True)
        return False

    def save(self, entry: CacheEntry, source: Path) -> None:
        """Copy or link a file of the run into the cache, if there is room."""
        if self._disabled:
            return
        try:
            kept = entry if entry.matches(source) else entry.by_size()
            if kept.matches(source) and self._make_room(source.stat().st_size):
                _link_or_copy(source, self._path(kept))
        except FileNotFoundError:
            return  # another run removed the temporary file as abandoned: not saved this time
        except OSError as error:
            self._disable(f"cannot be written ({error.strerror})")

    def _path(self, entry: CacheEntry) -> Path:
        return self._root / entry.name[:2] / entry.name

    def _disable(self, why: str) -> None:
        with self._lock:
            if not self._disabled:
                self._disabled = True
                self._warn(f"the data cache {why}: files are pulled instead")

    def _make_room(self, size: int) -> bool:
        """Evict entries until ``size`` bytes fit and the disk keeps its free share; whether they do."""
        self._root.mkdir(parents=True, exist_ok=True)
        with self._lock:
            disk = shutil.disk_usage(self._root)
            missing = int(disk.total * _MIN_FREE_SHARE) + size - disk.free
            if missing > 0:
                missing -= _evict(self._root, missing + int(disk.total * _EXTRA_FREED_SHARE))
        if missing > 0:
            self._disable("is on a full disk")
        return missing <= 0


def _evict(root: Path, wanted: int) -> int:
    """Remove the least recently used entries until ``wanted`` bytes are free; returns how many are."""
    freed = 0
    for _, size, file in sorted(_entries(root)):
        if freed >= wanted:
            break
        file.unlink(missing_ok=True)
        freed += size
    return freed


def _entries(root: Path) -> Iterator[tuple[float, int, Path]]:
    """Entries and abandoned temporary files: time of last use, bytes, path. Abandoned files come first when sorted."""
    abandoned = datetime.now(UTC).timestamp() - _ABANDONED_SECONDS
    for folder in os.scandir(root):
        for file in os.scandir(folder):
            with suppress(FileNotFoundError):  # another run evicts too
                stat = file.stat()
                if not file.name.startswith("."):
                    yield stat.st_mtime, stat.st_size, Path(file.path)
                elif stat.st_ctime < abandoned:  # not mtime: a temporary link to an old file has the file's
                    yield 0.0, stat.st_size, Path(file.path)


def _link_or_copy(source: Path, destination: Path) -> None:
    """Make the destination the same file, or where it is on another file system a copy; by rename."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.with_name(f".{uuid.uuid4().hex}")  # process ids repeat from pod to pod
    try:
        _link(source, temporary)
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)  # left behind where the disk became full


def _link(source: Path, destination: Path) -> None:
    try:
        destination.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, destination)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(file: Path, algorithm: str) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, algorithm).hexdigest()


@dataclass(frozen=True)
class CachedSource:
    """A store whose objects are looked for in the cache before they are downloaded."""

    store: Store
    cache: FileCache

    @property
    def local_root(self) -> Path | None:
        """The root of the store behind the cache."""
        return self.store.local_root

    def download(self, info: ObjectInfo, destination: Path) -> None:
        """Make one object a file, from the cache or from the store; raises as the store does."""
        entry = CacheEntry.of_object(self.store.address(info.key), info)
        if not self.cache.restore(entry, destination):
            self.store.download(info, destination)
            self.cache.save(entry, destination)


def with_cache(store: Store, cache: FileCache | None) -> ObjectSource:
    """Put the cache, if there is one, in front of a store."""
    return CachedSource(store, cache) if cache else store
