"""Safe unpacking of zip and tar archives: only plain files, no links, devices, modes, owners or paths outside."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage.store import is_safe_key

_LARGEST = 8 << 30
"""Most bytes of an unpacked archive."""


def unpack(archive: Path, inside: str, folder: Path) -> None:
    """Write the files below one folder of an archive.

    Args:
        archive: a zip or tar file, compressed in any way.
        inside: the folder in the archive; empty for the whole archive.
        folder: where the files go.

    Raises:
        DataInvalid: the archive is damaged, far too large, or holds no such folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prefix = f"{inside}/" if inside else ""
    try:
        for path, source in _members(archive):
            if path.startswith(prefix):
                _write(source, folder / path.removeprefix(prefix))
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataInvalid(f"{archive.name} cannot be unpacked: {error}") from error
    if not any(folder.iterdir()):
        raise DataInvalid(f"{archive.name} holds nothing below {prefix}")


def _members(file: Path) -> Iterator[tuple[str, IO[bytes]]]:
    return _zipped(file) if zipfile.is_zipfile(file) else _tarred(file)


def _zipped(file: Path) -> Iterator[tuple[str, IO[bytes]]]:
    total = 0
    with zipfile.ZipFile(file) as packed:
        for entry in packed.infolist():
            total = _counted(total, entry.file_size, file)
            if not entry.is_dir() and is_safe_key(entry.filename):
                with packed.open(entry) as source:
                    yield entry.filename, source


def _tarred(file: Path) -> Iterator[tuple[str, IO[bytes]]]:
    total = 0
    with tarfile.open(file, "r|*") as tar:
        for member in tar:
            total = _counted(total, member.size, file)
            source = tar.extractfile(member) if member.isfile() and is_safe_key(member.name) else None
            if source is not None:
                yield PurePosixPath(member.name).as_posix(), source


def _counted(total: int, size: int, file: Path) -> int:
    if total + size > _LARGEST:
        raise DataInvalid(f"{file.name} takes more than {_LARGEST} bytes unpacked")
    return total + size


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
