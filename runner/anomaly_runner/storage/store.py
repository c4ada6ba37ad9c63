"""What every storage can do, and which keys are let through.

Keys come from whoever can write to a bucket, so they are hostile: one that would leave the folder it is
written to, on any operating system, is refused before it touches the disk.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from anomaly_runner.errors import DataInvalid

_LONGEST_NAME = 255
"""Bytes that file systems allow for the name of a file or a folder."""


@dataclass(frozen=True)
class ObjectInfo:
    """One object below a store's root. ``etag`` changes whenever the content does."""

    key: str
    size: int
    etag: str


class Source(Protocol):
    """What objects can be pulled from."""

    @property
    def local_root(self) -> Path | None:
        """The root on this machine's file system, if that is where it is."""

    def download(self, info: ObjectInfo, destination: Path) -> None:
        """Copy one object to a file, whole or not at all."""


class Store(Source, Protocol):
    """A folder of objects; keys are relative to its root and use forward slashes."""

    @property
    def uri(self) -> str:
        """The root, as people write it."""

    def address(self, key: str) -> str:
        """What an object is called by every run, on every machine that sees the same storage."""

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """Every object whose key begins with the prefix, sorted by key. Keys may be hostile (``is_safe_key``)."""

    def read(self, key: str) -> bytes | None:
        """Content of a small object; None if there is none."""

    def upload(self, source: Path, key: str) -> None:
        """Write a file to a key, whole or not at all."""

    def delete(self, key: str) -> None:
        """Remove an object, if there is one."""

    def subfolder(self, prefix: str) -> "Store":
        """The sub-folder as a store of its own."""


def is_safe_key(key: str) -> bool:
    """Whether a key stays below the folder it is written to (no absolute, parent, empty or backslash parts)."""
    hostile = "\\" in key or "\0" in key or ":" in key.split("/", maxsplit=1)[0]
    return not hostile and all(part not in ("", ".", "..") for part in key.split("/"))


def check_key(key: str, uri: str) -> str:
    """The key, if it is safe.

    Raises:
        DataInvalid: it would be written outside its folder.
    """
    if not is_safe_key(key):
        raise DataInvalid(f"refused the key {key!r} in {uri}: it leads out of the folder")
    return key


def has_valid_name_lengths(key: str) -> bool:
    """Whether file systems allow names as long as the key's parts."""
    return all(len(os.fsencode(part)) <= _LONGEST_NAME for part in key.split("/"))


def partial_file(file: Path) -> Path:
    """What a file is called until it is whole: hidden beside it, and short however long its own name is."""
    return file.with_name(f".{hashlib.sha256(os.fsencode(file.name)).hexdigest()[:32]}.part")


def join_uri(root: str, key: str) -> str:
    """Root and key as one URI or path."""
    return f"{root.rstrip('/')}/{key}" if key else root.rstrip("/")
