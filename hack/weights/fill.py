"""Bringing what a model loads into a cache: the hub, torchvision's files, anomalib's archives."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from anomaly_runner.builtin.catalog import RemoteFile
from anomaly_runner.builtin.download import download
from anomaly_runner.storage.base import is_safe
from anomaly_runner.weights import Wanted
from hack.weights.published import Archive, archive_for

TORCHVISION = "https://download.pytorch.org/models/"
_HUB_FILES = ("*.safetensors", "*.json")
_LARGEST = 8 << 30
"""Bytes of an unpacked archive at most."""

Step = Callable[[int], None]


def is_there(wanted: Wanted, cache: Path) -> bool:
    """Whether a cache holds something already."""
    if wanted.kind == "hub":
        repository = cache / "hub" / f"models--{wanted.name.replace('/', '--')}"
        revision = repository / "refs" / "main"
        name = revision.read_text().strip() if revision.is_file() else ""
        return bool(name) and any((repository / "snapshots" / name).glob("*.safetensors"))
    path = cache / wanted.name
    return path.is_file() if wanted.kind == "file" else any(path.rglob("*.*"))


def fill(wanted: Wanted, cache: Path, mirror: str | None, step: Step) -> None:
    """Bring one thing.

    Args:
        wanted: what.
        cache: where to.
        mirror: base URL that stands for all publishers, the hub too.
        step: called with the bytes that have come.

    Raises:
        DataInvalid, StorageUnavailable: it is not what was published, or cannot be reached.
    """
    if wanted.kind == "hub":
        _from_hub(wanted.name, cache, mirror)
    elif wanted.name.startswith("torch/"):
        _from_torchvision(cache / wanted.name, mirror, step)
    elif archive := archive_for(wanted.name):
        _unpack(archive, cache, mirror, step)
    else:
        raise ValueError(f"nobody publishes {wanted.name}")


def _from_hub(repository: str, cache: Path, mirror: str | None) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(repository, cache_dir=cache / "hub", allow_patterns=list(_HUB_FILES), endpoint=mirror)


def _from_torchvision(target: Path, mirror: str | None, step: Step) -> None:
    """torchvision's file names end with the first digits of their SHA-256."""
    prefix = target.stem.rpartition("-")[2]
    target.parent.mkdir(parents=True, exist_ok=True)
    file = RemoteFile(TORCHVISION, target.name, 1 << 30, "sha256", prefix)
    download(file, mirror, target.parent, step)


def _unpack(archive: Archive, cache: Path, mirror: str | None, step: Step) -> None:
    target = cache / archive.target
    with tempfile.TemporaryDirectory(dir=cache) as name:
        file = download(archive.file, mirror, Path(name), step)
        for path, source in _members(file):
            if not archive.inside or path.startswith(f"{archive.inside}/"):
                _write(source, target / path.removeprefix(f"{archive.inside}/" if archive.inside else ""))


def _members(file: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Plain files of an archive, by their safe path; links, devices and ways out are left alone."""
    total = 0
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            for entry in packed.infolist():
                total = _counted(total, entry.file_size)
                if not entry.is_dir() and is_safe(entry.filename):
                    with packed.open(entry) as source:
                        yield entry.filename, source
        return
    with tarfile.open(file, "r|*") as tar:
        for member in tar:
            total = _counted(total, member.size)
            source_file = tar.extractfile(member) if member.isfile() and is_safe(member.name) else None
            if source_file is not None:
                yield PurePosixPath(member.name).as_posix(), source_file


def _counted(total: int, size: int) -> int:
    if total + size > _LARGEST:
        raise ValueError(f"the archive takes more than {_LARGEST} bytes unpacked")
    return total + size


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
