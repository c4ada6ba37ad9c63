"""A store on a file system: a mounted volume, or the folder that replaces a bucket in runs without a cluster."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from anomaly_runner.errors import StorageDenied, StorageUnavailable
from anomaly_runner.storage.store import ObjectInfo, check_key, data_changed, replacing

_BYTE = re.compile(r"_UDC([89A-F][0-9A-F]|5F)_")
"""A byte of a file's name in a key, where the name is not UTF-8."""
_RECOVERED = "lost+found"
"""Folder of the file system itself, which only root may read; others leave it on a volume."""
_BYTE_BEGINS = re.compile(r"[\udc80-\udcff]|_(?=UDC[0-9A-F]{2})")


def key_of(path: str) -> str:
    """The key of a path below a store's root: the path itself, with bytes that are not UTF-8 as ``_UDCHH_``.

    Keys are text, because tables, reports and MLflow hold nothing else. ``path_of`` returns the path; an underscore
    that begins such a code in the path itself is written as ``_UDC5F_``.
    """
    return _BYTE_BEGINS.sub(lambda found: f"_UDC{ord(found[0]) & 0xFF:02X}_", path)


def path_of(key: str) -> str:
    """The path that ``key_of`` made a key of, as Python has it (non-UTF-8 bytes as surrogates, PEP 383)."""
    return _BYTE.sub(lambda found: "_" if found[1] == "5F" else chr(0xDC00 + int(found[1], 16)), key)


@dataclass(frozen=True)
class FolderStore:
    """A store whose objects are the files below ``root``. Symbolic links to folders are not followed.

    Keys of a listing are those of ``key_of``, and ``download`` takes them; other methods take a path as a key.

    Methods raise StorageDenied if a file may not be read or written, StorageUnavailable if the file system fails, and
    DataInvalid for a key that leads out of the folder.
    """

    root: Path

    @property
    def uri(self) -> str:
        """The folder's path."""
        return str(self.root)

    @property
    def local_root(self) -> Path | None:
        """The folder: files can be read in place."""
        return self.root

    def address(self, key: str) -> str:
        """The file's path."""
        return str(self.root / key)

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """List the files below the prefix, sorted by key; hidden files and folders are left out."""
        start = self.root / prefix.rpartition("/")[0]
        with _translated_errors(self.uri):
            found = [self._info(path) for path in _files(start)]
        return sorted((info for info in found if info.key.startswith(prefix)), key=lambda info: info.key)

    def _info(self, path: Path) -> ObjectInfo:
        key, stat = key_of(path.relative_to(self.root).as_posix()), path.lstat()
        return ObjectInfo(key, stat.st_size, _version(stat))

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """List the names of the folders directly below the root that begin with the prefix, sorted."""
        if not self.root.is_dir():
            return ()
        with _translated_errors(self.uri):
            found = [key_of(entry.name) for entry in os.scandir(self.root) if entry.is_dir()]
        return tuple(sorted(name for name in found if name.startswith(prefix) and not name.startswith(".")))

    def download(self, info: ObjectInfo, destination: Path) -> None:
        """Copy one file."""
        with _translated_errors(self.uri), replacing(destination) as temporary:
            shutil.copyfile(self.root / path_of(check_key(info.key, self.uri)), temporary)

    def read(self, key: str) -> bytes | None:
        """Read a file; None if there is none."""
        path = self.root / check_key(key, self.uri)
        with _translated_errors(self.uri):
            return path.read_bytes() if path.is_file() else None

    def upload(self, source: Path, key: str) -> None:
        """Copy a file into the folder through a temporary file, so that no reader sees a partial file."""
        target = self.root / check_key(key, self.uri)
        with _translated_errors(self.uri), replacing(target) as temporary:
            shutil.copyfile(source, temporary)

    def delete(self, key: str) -> None:
        """Remove a file if it exists."""
        with _translated_errors(self.uri):
            (self.root / check_key(key, self.uri)).unlink(missing_ok=True)

    def subfolder(self, prefix: str) -> "FolderStore":
        """The store of the sub-folder ``prefix``."""
        return FolderStore(self.root / prefix) if prefix else self


def check_unchanged(info: ObjectInfo, file: Path) -> None:
    """Check that a file has the size and the time of its last change that it was listed with.

    Raises:
        DataChanged: it was replaced or deleted.
        StorageDenied, StorageUnavailable: its folder may not be read, or the file system fails.
    """
    with _translated_errors(str(file)):
        try:
            same = _version(file.lstat()) == info.etag
        except (FileNotFoundError, NotADirectoryError):
            same = False
    if not same:
        raise data_changed(str(file))


def _version(stat: os.stat_result) -> str:
    return f"{stat.st_mtime_ns}-{stat.st_size}"


def _files(start: Path) -> list[Path]:
    """The files below a folder; none if it does not exist.

    Raises:
        OSError: a folder may not be read: what it holds would be missing without a word.
    """
    found: list[Path] = []
    for folder, names, files in os.walk(start, onerror=_refuse_to_skip):
        names[:] = [name for name in names if not name.startswith(".") and name != _RECOVERED]
        found.extend(Path(folder, name) for name in files if not name.startswith("."))
    return found


def _refuse_to_skip(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


class _translated_errors:  # noqa: N801 - reads as a statement
    """Convert OSErrors to StorageDenied or StorageUnavailable inside this block."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, PermissionError):
            raise StorageDenied(f"no permission for {error.filename} in {self._uri}") from error
        if isinstance(error, OSError):
            raise StorageUnavailable(f"{self._uri}: {error.strerror or error} ({error.filename})") from error
