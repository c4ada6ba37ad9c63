"""The tag of an image: a digest of everything it is made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from hack.images.catalog import ROOT, Image

TAG_LENGTH = 16


def content_tag(image: Image, *others: str) -> str:
    """Return a digest of the image's Containerfile and inputs, and of `others`, such as the base image."""
    digest = hashlib.sha256()
    for other in others:
        digest.update(f"{other}\0".encode())
    for name in (image.containerfile, *image.inputs):
        for file in _files(ROOT / name):
            digest.update(f"{file.relative_to(ROOT)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:TAG_LENGTH]


def _files(path: Path) -> Iterator[Path]:
    """Yield a file itself, or the files below a folder in a fixed order, without compiled bytecode."""
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file
