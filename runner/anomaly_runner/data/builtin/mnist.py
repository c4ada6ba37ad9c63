"""MNIST as an anomaly-detection dataset: one digit is good, each other digit is a kind of defect.

Images of the good digit in the training set become train/good; the test set becomes test/good and test/DIGIT.
"""

import gzip
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly_runner.errors import DataInvalid

_UNSIGNED_BYTE = 8
"""Type code of unsigned bytes in the IDX format."""
_DIGITS = range(10)


def write_folders(
    train: tuple[Path, Path], test: tuple[Path, Path], good_label: int, limit: int | None, folder: Path
) -> None:
    """Write the images as grey PNG files of 28 x 28 pixels, named by their index in the set.

    Args:
        train: files of the training set: images, labels.
        test: files of the test set: images, labels.
        good_label: the digit that is good.
        limit: largest number of images in a folder, of which the first are written; None for all.
        folder: target of train/ and test/.

    Raises:
        DataInvalid: the files are not MNIST's.
    """
    images, labels = _read_set(train)
    _write(images, np.flatnonzero(labels == good_label)[:limit], folder / "train/good")
    images, labels = _read_set(test)
    for digit in _DIGITS:
        name = "good" if digit == good_label else str(digit)
        _write(images, np.flatnonzero(labels == digit)[:limit], folder / "test" / name)


def _read_set(files: tuple[Path, Path]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images, labels = (read_idx(file) for file in files)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataInvalid(
            f"{files[0].name} holds {images.shape}, {files[1].name} {labels.shape}: not MNIST's images and labels"
        )
    return images, labels


def read_idx(file: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes.

    Format: two zero bytes, the type, the number of dimensions, each dimension as a big-endian 32-bit number, then the
    values (LeCun et al., http://yann.lecun.com/exdb/mnist).

    Raises:
        DataInvalid: the file is damaged or of another format.
    """
    try:
        content = gzip.decompress(file.read_bytes())
    except (OSError, EOFError) as error:
        raise DataInvalid(f"{file.name} cannot be unpacked: {error}") from error
    head = 4 + 4 * (content[3] if content[:3] == bytes((0, 0, _UNSIGNED_BYTE)) else 0)
    shape = tuple(np.frombuffer(content[4:head], ">u4").tolist()) if len(content) >= head else ()
    if not shape or len(content) != head + math.prod(shape):
        raise DataInvalid(f"{file.name} is not an IDX file of unsigned bytes")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


def _write(images: NDArray[np.uint8], chosen: NDArray[np.intp], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in chosen:
        Image.fromarray(images[index]).save(folder / f"{index:05d}.png", compress_level=1)
