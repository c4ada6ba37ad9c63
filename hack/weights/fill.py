"""Download what a model loads into a cache: hub repositories, torchvision's files, anomalib's archives.

Everything is downloaded to a hidden folder of the cache first, and moved to its place when it is complete: the cache
never holds partial files, and an interrupted download resumes where it stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from anomaly_runner.data.builtin.download import download
from anomaly_runner.data.builtin.remote_files import RemoteFile
from anomaly_runner.errors import WeightsNotFound
from anomaly_runner.models.weights import Wanted
from hack.weights.cache import is_there
from hack.weights.hub import bring_repository
from hack.weights.published import Archive, archive_for
from hack.weights.unpack import unpack

TORCHVISION = "https://download.pytorch.org/models/"
STAGING = ".partial"

Advance = Callable[[int], None]


def fill(wanted: Wanted, cache: Path, mirror: str | None, advance: Advance) -> None:
    """Download one item into the cache.

    Args:
        wanted: the item.
        cache: the weights cache.
        mirror: base URL that replaces all publishers, the hub too.
        advance: called with the number of bytes that have arrived.

    Raises:
        DataInvalid: the download does not match its published digest.
        StorageUnavailable, OSError: the publisher cannot be reached.
        WeightsNotFound: the item is not published, or the download lacks it.
    """
    staging = cache / STAGING / wanted.name.replace("/", "--")
    staging.mkdir(parents=True, exist_ok=True)
    if wanted.kind == "hub":
        bring_repository(wanted, cache, staging, mirror, advance)
    elif wanted.name.startswith("torch/"):
        _from_torchvision(cache / wanted.name, staging, mirror, advance)
    else:
        _from_archive(_published(wanted), cache, staging, mirror, advance)
    shutil.rmtree(staging)
    with suppress(OSError):  # another interrupted download is still in it
        staging.parent.rmdir()
    if not is_there(wanted, cache):
        raise WeightsNotFound(f"{wanted.name} is published without the weights that are wanted here")


def _from_torchvision(target: Path, staging: Path, mirror: str | None, advance: Advance) -> None:
    """Download a file of torchvision, whose name ends with the first digits of its SHA-256."""
    prefix = target.stem.rpartition("-")[2]
    file = download(
        RemoteFile(base=TORCHVISION, name=target.name, size=1 << 30, algorithm="sha256", digest=prefix),
        mirror,
        staging,
        advance,
    )
    _move(file, target)


def _published(wanted: Wanted) -> Archive:
    archive = archive_for(wanted.name)
    if archive is None:
        raise WeightsNotFound(f"nobody publishes {wanted.name}")
    return archive


def _from_archive(archive: Archive, cache: Path, staging: Path, mirror: str | None, advance: Advance) -> None:
    unpacked, target = staging / "unpacked", cache / archive.target
    file = download(archive.file, mirror, staging, advance)
    shutil.rmtree(unpacked, ignore_errors=True)
    unpack(file, archive.inside, unpacked)
    if not target.exists():
        _move(unpacked, target)
        return
    for path in (path for path in unpacked.rglob("*") if path.is_file()):
        _move(path, target / path.relative_to(unpacked))


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
