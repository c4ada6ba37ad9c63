"""Digests of files, which show that a downloaded file is the one that was published."""

import hashlib
from pathlib import Path


def digest(file: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
