"""The protocol of stores, and the check of keys.

Anyone who can write to a bucket chooses its keys, so they are untrusted: a key that would leave its target folder is
refused before a file is written. Every other name that Linux and S3 allow is a key: "C:/x.png" and "a\\b.png" lead
nowhere on Linux, where alone this program runs.
"""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from anomaly_runner.errors import DataChanged, DataInvalid


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a store.

    Attributes:
        key: path below the store's root, with forward slashes.
        size: bytes.
        etag: version of the content, which changes with it; empty where the server tells none, so that a broken
            download begins anew and nothing is kept for the next run.
        pinned: whether an earlier step has listed it, so that no other version will do.
    """

    key: str
    size: int
    etag: str
    pinned: bool = False


class ObjectSource(Protocol):
    """A source of objects that can be downloaded."""

    @property
    def local_root(self) -> Path | None:
        """The root on this machine's file system; None if it is elsewhere."""

    def download(self, info: ObjectInfo, destination: Path) -> None:
        """Copy one object to a file, completely or not at all.

        Raises:
            DataInvalid: the key leads out of the folder, or there is no such object.
            StorageDenied: the storage refused the credentials.
            StorageUnavailable: the storage does not answer, or the object changed while it was read.
            DataChanged: a pinned object was replaced or deleted since it was listed.
        """


class Store(ObjectSource, Protocol):
    """A folder of objects; keys are relative to its root and use forward slashes.

    All methods raise as ``download`` does.
    """

    @property
    def uri(self) -> str:
        """URI or path of the root, for people."""

    def address(self, key: str) -> str:
        """Name of the object that is the same for all runs and machines that use this storage."""

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """List the objects whose keys begin with the prefix, sorted by key. Keys may be unsafe (``is_safe_key``)."""

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """List the names of the folders directly below the root that begin with the prefix, sorted.

        What they hold is not listed, however much it is. Hidden ones are left out.
        """

    def read(self, key: str) -> bytes | None:
        """Read a small object; None if there is none."""

    def upload(self, source: Path, key: str) -> None:
        """Write a file to a key, completely or not at all."""

    def delete(self, key: str) -> None:
        """Remove an object if it exists."""

    def subfolder(self, prefix: str) -> "Store":
        """The store of the objects below a prefix; the same store for an empty prefix."""


def is_safe_key(key: str) -> bool:
    """Whether a key stays below its target folder: not empty or absolute, no ``.``, ``..`` or NUL, and no folder."""
    return key[:1] not in ("", "/") and key[-1:] != "/" and "\0" not in key and not {".", ".."} & set(key.split("/"))


def check_key(key: str, uri: str) -> str:
    """Return the key if it is safe.

    Raises:
        DataInvalid: a file with this key would be outside of its folder.
    """
    if not is_safe_key(key):
        raise DataInvalid(f"refused the key {key!r} in {uri}: it leads out of the folder")
    return key


def is_version(told: str | None, etag: str) -> bool:
    """Whether an answer is of a version, by the ETag that it came with; true where either is unknown."""
    return not etag or not told or told.strip('"') == etag


def data_changed(uri: str) -> DataChanged:
    """The failure of a pinned object that is not what was listed."""
    return DataChanged(
        f"{uri} was replaced or deleted since the step check listed it: the next pod lists all files anew"
    )


def partial_file(file: Path) -> Path:
    """Path of the temporary file of an incomplete file: hidden, in the same folder, and short even for a long name."""
    return file.with_name(f".{hashlib.sha256(os.fsencode(file.name)).hexdigest()[:32]}.part")


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield the path of a temporary file that becomes the file, by rename: whole or not at all.

    It is hidden, in the same folder, and nobody else's: process ids repeat from pod to pod.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{uuid.uuid4().hex}")
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)  # still there if the copy failed, for example on a full disk


def join_uri(root: str, key: str) -> str:
    """Join a root and a key to one URI or path."""
    return f"{root.rstrip('/')}/{key}" if key else root.rstrip("/")
