"""The protocol of stores, and the check of keys.

Anyone who can write to a bucket chooses its keys, so they are untrusted: a key that would leave its target folder on
any operating system is refused before a file is written.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from anomaly_runner.errors import DataInvalid

_MAX_NAME_BYTES = 255
"""Longest name of a file or folder that file systems allow."""


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a store.

    Attributes:
        key: path below the store's root, with forward slashes.
        size: bytes.
        etag: version of the content, which changes with it.
    """

    key: str
    size: int
    etag: str


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
            StorageUnavailable: the storage does not answer, or the object has changed since it was listed.
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

    def read(self, key: str) -> bytes | None:
        """Read a small object; None if there is none."""

    def upload(self, source: Path, key: str) -> None:
        """Write a file to a key, completely or not at all."""

    def delete(self, key: str) -> None:
        """Remove an object if it exists."""

    def subfolder(self, prefix: str) -> "Store":
        """The store of the objects below a prefix; the same store for an empty prefix."""


def is_safe_key(key: str) -> bool:
    """Whether a key stays below its target folder: no absolute path, drive, ``..``, empty part or backslash."""
    hostile = "\\" in key or "\0" in key or ":" in key.split("/", maxsplit=1)[0]
    return not hostile and all(part not in ("", ".", "..") for part in key.split("/"))


def check_key(key: str, uri: str) -> str:
    """Return the key if it is safe.

    Raises:
        DataInvalid: a file with this key would be outside of its folder.
    """
    if not is_safe_key(key):
        raise DataInvalid(f"refused the key {key!r} in {uri}: it leads out of the folder")
    return key


def has_valid_name_lengths(key: str) -> bool:
    """Whether no part of a key is longer than the names that file systems allow."""
    return all(len(os.fsencode(part)) <= _MAX_NAME_BYTES for part in key.split("/"))


def partial_file(file: Path) -> Path:
    """Path of the temporary file of an incomplete file: hidden, in the same folder, and short even for a long name."""
    return file.with_name(f".{hashlib.sha256(os.fsencode(file.name)).hexdigest()[:32]}.part")


def join_uri(root: str, key: str) -> str:
    """Join a root and a key to one URI or path."""
    return f"{root.rstrip('/')}/{key}" if key else root.rstrip("/")
