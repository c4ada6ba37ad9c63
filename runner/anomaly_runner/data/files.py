"""Read the files of a dataset, after their download."""

import errno
import stat
from pathlib import Path

from anomaly_runner.data.images import UnreadableImageError
from anomaly_runner.errors import StorageDenied, StorageUnavailable
from anomaly_runner.storage import Prefetcher


def read_file(prefetcher: Prefetcher, key: str) -> bytes:
    """Read one image file, after waiting for its download.

    Raises:
        UnreadableImageError: it is not a regular file, or empty, or a symbolic link that leads out of the dataset.
        StorageDenied: no permission to read it.
        StorageUnavailable: the file system failed.
        RunFailed: its download failed.
    """
    path = prefetcher.path(key)
    try:
        if not _is_file(path):  # reading a pipe would never end
            raise UnreadableImageError("not a file")
        if not _is_inside(path, prefetcher.root):
            raise UnreadableImageError("a symbolic link that leads out of the dataset")
        data = path.read_bytes()
    except PermissionError as error:
        raise StorageDenied(f"no permission for {path}") from error
    except OSError as error:
        raise StorageUnavailable(f"cannot read {path}: {error.strerror}") from error
    if not data:
        raise UnreadableImageError("an empty file")
    return data


def _is_file(path: Path) -> bool:
    """Whether it is a file; unlike ``Path.is_file`` since Python 3.14, raises failures of the file system."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return False


def _is_inside(path: Path, root: Path) -> bool:
    return not path.is_symlink() or path.resolve().is_relative_to(root.resolve())
