"""Small substitutes for public datasets, and a catalogue with their digests."""

import gzip
import hashlib
import struct
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anomaly_runner.data.builtin import PUBLISHED
from anomaly_runner.data.builtin.remote_files import DatasetCatalog, MnistFiles, RemoteFile
from hack.demo.digits import digit_images

NAMES = [file.name for file in vars(PUBLISHED.mnist).values()]
DIGITS = range(10)
TRAIN, TEST = range(20), range(20, 35)
"""Indices of the pictures of the two sets, among the packaged digits of each class."""


def idx_file(values: NDArray[np.uint8]) -> bytes:
    """Return values in MNIST's published format (IDX, gzip)."""
    head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return gzip.compress(head + values.tobytes(), mtime=0)


def digit_set(places: range) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return real digits (N, 28, 28) in shuffled order, and their labels (N,)."""
    images = np.concatenate([digit_images(digit)[places.start : places.stop] for digit in DIGITS])
    labels = np.repeat(np.arange(10, dtype=np.uint8), len(places))
    order = np.random.default_rng(0).permutation(len(labels))
    return images[order], labels[order]


def mnist_files() -> dict[str, bytes]:
    """Return the four files of MNIST, with fewer pictures."""
    contents = [idx_file(values) for places in (TRAIN, TEST) for values in digit_set(places)]
    return dict(zip(NAMES, contents, strict=True))


def remote_file(name: str, content: bytes, algorithm: Literal["md5", "sha256"] = "sha256") -> RemoteFile:
    """Return a published file that only mirrors serve."""
    return RemoteFile(
        base="http://nowhere.invalid/",
        name=name,
        size=len(content),
        algorithm=algorithm,
        digest=hashlib.new(algorithm, content).hexdigest(),
    )


def catalog(digits: dict[str, bytes], tar: bytes = b"") -> DatasetCatalog:
    """Return the catalogue of these files."""
    return DatasetCatalog(
        MnistFiles(*(remote_file(name, digits[name], "md5") for name in NAMES)), remote_file("mvtec.tar.xz", tar)
    )
