"""Keep downloaded files for the next run, in a folder that several runs may use at the same time.

An entry is named by a hash of the object's address, ETag and size, so that a changed object has another entry and no
entry is stale. Entries are complete, because they are created by rename; if two runs save the same object, either entry
is right. A run links an entry into its own folder (or copies it to another file system), so that it keeps the file even
if the entry is evicted.

ETags that are plain MD5 digests are checked whenever an entry is used; for other objects (multipart uploads, encrypted
ones) only the size is checked. A failure of the cache costs a download and a warning, but never fails the run; one that
answers too slowly is not asked again.
"""

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TypeVar

from anomaly_runner.storage.store import ObjectInfo, ObjectSource, Store, replacing

_FOLDER = "objects"
_MIN_FREE_SHARE = 0.15
"""Share of the disk that the cache leaves free: below this the kubelet removes images, and at 0.10 it evicts pods."""
_EXTRA_FREED_SHARE = 0.03
"""Additional share of the disk that an eviction frees, because each needs a long scan for the oldest entries."""
_ABANDONED_SECONDS = 3600.0
"""Age from which a temporary file is regarded as left by a dead process."""
_SLOW_SECONDS = 10.0
"""Time that any use of the cache may take, beside that of the bytes."""
_SLOW_BYTES_A_SECOND = 5e6
"""Pace below which the cache is slower than most storages that it stands in front of."""
_MD5 = re.compile(r"[0-9a-f]{32}")
Found = TypeVar("Found")


@dataclass(frozen=True)
class CacheEntry:
    """Name of a cached file, and the size and digest that verify it.

    Attributes:
        name: of the file in the cache.
        size: bytes; None if unknown.
        digest: hexadecimal; None if unknown.
        algorithm: hashlib's name of the digest's algorithm.
    """

    name: str
    size: int | None
    digest: str | None
    algorithm: str = "md5"

    @classmethod
    def of_object(cls, address: str, info: ObjectInfo) -> "CacheEntry":
        """The entry of an object at ``address`` (``Store.address``)."""
        digest = info.etag if _MD5.fullmatch(info.etag) else None
        return cls(_hash(f"{address}\n{info.etag}\n{info.size}"), info.size, digest)

    @classmethod
    def of_content(cls, algorithm: str, digest: str) -> "CacheEntry":
        """The entry of a file that is identified by its digest, not by its address."""
        return cls(_hash(f"{algorithm}\n{digest}"), None, digest, algorithm)

    @classmethod
    def of_name(cls, name: str) -> "CacheEntry":
        """The entry of what is derived from other files, named by all that decides its content."""
        return cls(_hash(name), None, None)

    def by_size(self) -> "CacheEntry":
        """The entry of the same object without its digest: an encrypted object's ETag only looks like an MD5 digest."""
        return CacheEntry(f"{self.name}-size", self.size, None)

    def matches(self, file: Path) -> bool:
        """Whether a file has the entry's size and digest, if these are known."""
        if self.size not in (None, file.stat().st_size):
            return False
        return self.digest is None or self.digest == _digest(file, self.algorithm)


class FileCache:
    """Cached files below a folder. Safe to use from many threads and processes; its methods never raise OSError.

    Args:
        root: the folder.
        warn: called once, with a message, when the cache becomes unusable.
    """

    def __init__(self, root: Path, warn: Callable[[str], None]) -> None:
        self._root = root / _FOLDER
        self._warn = warn
        self._lock = threading.Lock()
        self._disabled = False
        self._slow = False

    def restore(self, entry: CacheEntry, destination: Path) -> bool:
        """Link or copy an entry to a file of the run; false if there is no entry or it is damaged, and then removed."""
        kept = (entry, entry.by_size())
        return self._read(entry, lambda: any(self._restore(one, destination) for one in kept)) is True

    def _restore(self, entry: CacheEntry, destination: Path) -> bool:
        kept = self._path(entry)
        try:
            _link_or_copy(kept, destination)
        except FileNotFoundError:  # never saved, or evicted
            return False
        if entry.matches(destination):
            _mark_used(kept)
            return True
        kept.unlink(missing_ok=True)
        return False

    def save(self, entry: CacheEntry, source: Path) -> None:
        """Link or copy a file of the run into the cache, if there is room."""

        def link() -> None:
            kept = entry if entry.matches(source) else entry.by_size()
            if kept.matches(source) and self._make_room(source.stat().st_size):
                _link_or_copy(source, self._path(kept))

        self._write(entry, link)

    def load(self, entry: CacheEntry) -> bytes | None:
        """Return the content of a small entry, which may be damaged; None if there is none."""

        def load() -> bytes:
            kept = self._path(entry)
            content = kept.read_bytes()
            _mark_used(kept)
            return content

        return self._read(entry, load)

    def store(self, entry: CacheEntry, content: bytes) -> None:
        """Make or replace a small entry, if there is room."""

        def write() -> None:
            if self._make_room(len(content)):
                with replacing(self._path(entry)) as temporary:
                    temporary.write_bytes(content)

        self._write(entry, write)

    def _read(self, entry: CacheEntry, work: Callable[[], Found | None]) -> Found | None:
        if self._slow:
            return None
        try:
            with self._timed(entry):
                return work()
        except FileNotFoundError:  # never saved, or evicted
            return None
        except OSError as error:
            self._disable(f"cannot be read ({error.strerror})")
            return None

    def _write(self, entry: CacheEntry, work: Callable[[], None]) -> None:
        if self._disabled:
            return
        try:
            with self._timed(entry):
                work()
        except FileNotFoundError:
            return  # another run took the temporary file for abandoned and removed it: the file is not saved
        except OSError as error:
            self._disable(f"cannot be written ({error.strerror})")

    @contextmanager
    def _timed(self, entry: CacheEntry) -> Iterator[None]:
        """Have the cache not used any more if what is done with an entry takes too long."""
        began, size = monotonic(), 0
        try:
            yield
        finally:
            seconds = monotonic() - began
            if seconds > _SLOW_SECONDS:
                with suppress(OSError):  # there is no such entry
                    size = self._path(entry).stat().st_size
            if seconds > _SLOW_SECONDS + size / _SLOW_BYTES_A_SECOND:
                self._slow = True
                self._disable(f"is slow ({seconds:.0f} s for {size / 1e6:.1f} MB)")

    def _path(self, entry: CacheEntry) -> Path:
        return self._root / entry.name[:2] / entry.name

    def _disable(self, why: str) -> None:
        with self._lock:
            if not self._disabled:
                self._disabled = True
                self._warn(f"the data cache {why}: files are pulled instead")

    def _make_room(self, size: int) -> bool:
        """Evict entries until ``size`` bytes fit and the disk keeps its free share; returns whether that succeeded."""
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
    """Remove the least recently used entries until ``wanted`` bytes are freed; returns the number of freed bytes."""
    freed = 0
    for _, size, file in sorted(_entries(root)):
        if freed >= wanted:
            break
        file.unlink(missing_ok=True)
        freed += size
    return freed


def _entries(root: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield (time of last use, bytes, path) of entries and abandoned temporary files, which have time 0."""
    abandoned = datetime.now(UTC).timestamp() - _ABANDONED_SECONDS
    for folder in os.scandir(root):
        for file in os.scandir(folder):
            with suppress(FileNotFoundError):  # another run may evict at the same time
                stat = file.stat()
                if not file.name.startswith("."):
                    yield stat.st_mtime, stat.st_size, Path(file.path)
                elif stat.st_ctime < abandoned:  # not mtime, which a temporary link shares with an old file
                    yield 0.0, stat.st_size, Path(file.path)


def _link_or_copy(source: Path, destination: Path) -> None:
    """Link the source to the destination, or copy it to another file system; atomic, by rename."""
    with replacing(destination) as temporary:
        _link(source, temporary)


def _mark_used(kept: Path) -> None:
    """Note the time of last use, by which entries are evicted; where that fails, the run has what it needs."""
    with suppress(OSError):
        os.utime(kept)


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
    """A source that takes objects from the cache, and downloads those that it lacks from the store."""

    store: Store
    cache: FileCache

    @property
    def local_root(self) -> Path | None:
        """The root of the store behind the cache."""
        return self.store.local_root

    def download(self, info: ObjectInfo, destination: Path) -> None:
        """Copy one object to a file, from the cache or from the store; raises as the store does."""
        if not info.etag:  # a changed object could not be told from the kept one
            self.store.download(info, destination)
            return
        entry = CacheEntry.of_object(self.store.address(info.key), info)
        if not self.cache.restore(entry, destination):
            self.store.download(info, destination)
            self.cache.save(entry, destination)


def with_cache(store: Store, cache: FileCache | None) -> ObjectSource:
    """Put a cache in front of a store; returns the store itself without a cache."""
    return CachedSource(store, cache) if cache else store
