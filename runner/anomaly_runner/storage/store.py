"""What every storage can do, and which keys are accepted.

Keys come from whoever can write to a bucket, so they are untrusted: one that would leave the folder it is written to,
on any operating system, is refused before it touches the disk.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from anomaly_runner.errors import DataInvalid

_MAX_NAME_BYTES = 255
"""What file systems allow for the name of one file or folder."""


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a store.

    Attributes:
        key: path below the store's root, with forward slashes.
        size: bytes.
        etag: changes whenever the content does.
    """

    key: str
    size: int
    etag: str


class ObjectSource(Protocol):
    """What objects can be downloaded from."""

    @property
    def local_root(self) -> Path | None:
        """The root on this machine's file system; None where it is elsewhere."""

    def download(self, info: ObjectInfo, destination: Path) -> None:
        """Copy one object to a file, whole or not at all.

        Raises:
            DataInvalid: its key leads out of the folder, or there is no such object.
            StorageDenied: the storage refused the credentials.
            StorageUnavailable: the storage does not answer, or the object changed meanwhile.
        """


class Store(ObjectSource, Protocol):
    """A folder of objects; keys are relative to its root and use forward slashes.

    All methods raise as ``download`` does.
    """

    @property
    def uri(self) -> str:
        """The root, as people write it."""

    def address(self, key: str) -> str:
        """A name of the object that is the same for every run and machine that sees this storage."""

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """List the objects whose keys begin with the prefix, sorted by key. Keys may be unsafe (``is_safe_key``)."""

    def read(self, key: str) -> bytes | None:
        """Read a small object; None if there is none."""

    def upload(self, source: Path, key: str) -> None:
        """Write a file to a key, whole or not at all."""

    def delete(self, key: str) -> None:
        """Remove an object, if there is one."""

    def subfolder(self, prefix: str) -> "Store":
        """The store of what is below a prefix; the same store for an empty one."""


def is_safe_key(key: str) -> bool:
    """Whether a key stays below the folder it is written to (no absolute, parent, empty or backslash parts)."""
    hostile = "\\" in key or "\0" in key or ":" in key.split("/", maxsplit=1)[0]
    return not hostile and all(part not in ("", ".", "..") for part in key.split("/"))


def check_key(key: str, uri: str) -> str:
    """Return the key if it is safe.

    Raises:
        DataInvalid: it would be written outside its folder.
    """
    if not is_safe_key(key):
        raise DataInvalid(f"refused the key {key!r} in {uri}: it leads out of the folder")
    return key


def has_valid_name_lengths(key: str) -> bool:
    """Whether file systems allow names as long as the key's parts."""
    return all(len(os.fsencode(part)) <= _MAX_NAME_BYTES for part in key.split("/"))


def partial_file(file: Path) -> Path:
    """The temporary name of a file that is not complete: hidden beside it, and short however long its own name is."""
    return file.with_name(f".{hashlib.sha256(os.fsencode(file.name)).hexdigest()[:32]}.part")


def join_uri(root: str, key: str) -> str:
    """Root and key as one URI or path."""
    return f"{root.rstrip('/')}/{key}" if key else root.rstrip("/")
