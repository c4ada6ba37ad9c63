"""A store on a file system: a mounted volume, or the folder that replaces a bucket in runs without a cluster."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from anomaly_runner.errors import StorageDenied, StorageUnavailable
from anomaly_runner.storage.store import ObjectInfo, check_key, partial_file


@dataclass(frozen=True)
class FolderStore:
    """A store whose objects are the files below ``root``. Symbolic links to folders are not followed.

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
        found = (self._info(path) for path in _files(start))
        return sorted((info for info in found if info.key.startswith(prefix)), key=lambda info: info.key)

    def _info(self, path: Path) -> ObjectInfo:
        stat = path.lstat()
        return ObjectInfo(path.relative_to(self.root).as_posix(), stat.st_size, f"{stat.st_mtime_ns}-{stat.st_size}")

    def download(self, info: ObjectInfo, destination: Path) -> None:
        """Copy one file."""
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _translated_errors(self.uri):
            _copy_atomically(self.root / check_key(info.key, self.uri), destination)

    def read(self, key: str) -> bytes | None:
        """Read a file; None if there is none."""
        path = self.root / check_key(key, self.uri)
        with _translated_errors(self.uri):
            return path.read_bytes() if path.is_file() else None

    def upload(self, source: Path, key: str) -> None:
        """Copy a file into the folder through a temporary file, so that no reader sees a partial file."""
        target = self.root / check_key(key, self.uri)
        with _translated_errors(self.uri):
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy_atomically(source, target)

    def delete(self, key: str) -> None:
        """Remove a file if it exists."""
        with _translated_errors(self.uri):
            (self.root / check_key(key, self.uri)).unlink(missing_ok=True)

    def subfolder(self, prefix: str) -> "FolderStore":
        """The store of the sub-folder ``prefix``."""
        return FolderStore(self.root / prefix) if prefix else self


def _files(start: Path) -> list[Path]:
    found: list[Path] = []
    for folder, names, files in os.walk(start):
        names[:] = [name for name in names if not name.startswith(".") and not Path(folder, name).is_symlink()]
        found.extend(Path(folder, name) for name in files if not name.startswith("."))
    return found


def _copy_atomically(source: Path, target: Path) -> None:
    temporary = partial_file(target).with_suffix(f".{os.getpid()}")
    shutil.copyfile(source, temporary)
    temporary.replace(target)


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
