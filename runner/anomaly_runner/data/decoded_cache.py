"""Keep decoded images at the model's size for the next run, in the folder where downloaded files are kept.

An entry is named by a hash of the file's content and of all that decides what its pixels become, so that no entry is
stale, whatever the storage says of the file. It is an .npz file of plain arrays, read without unpickling; the ZIP
format has a CRC-32 of each array, so that a damaged entry is found and replaced. Grey images keep one channel, 8-bit
images their bytes: a picture of 256 x 256 pixels takes 192 KB. Masks are not kept: they are few, and quickly decoded.
"""

import hashlib
import io
import lzma
import zipfile
import zlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from anomaly_runner.data.images import Decoded
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.storage import CacheEntry, FileCache

_VERSION = 2
"""Version of the entries' form, and of what becomes of a file; in 1 the depth that is set was none of PGM's."""
_MODES = {"RGB": (3, "uint8"), "L": (2, "uint8"), "F": (2, "float32")}
"""Dimensions and type of an image's array, by Pillow's mode."""
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError),
    *(ValueError, KeyError, IndexError, MemoryError, RuntimeError),
)
"""What numpy and zipfile raise on files that are not what was written."""


@dataclass(frozen=True)
class DecodedImages:
    """Decodes files, unless an earlier run has left the result in the cache.

    Attributes:
        cache: the folder.
        preprocessor: says what becomes of a file.
        max_pixels: largest width x height that is decoded.
    """

    cache: FileCache
    preprocessor: Preprocessor
    max_pixels: int

    def read(self, data: bytes, digest: bytes) -> Decoded:
        """Decode a file; the image has the model's size.

        Args:
            data: the file.
            digest: its SHA-256.

        Raises:
            UnreadableImageError: as ``Preprocessor.decode``; such a file is not kept.
        """
        entry = CacheEntry.of_name(f"decoded\n{digest.hex()}\n{self._settings}")
        content = self.cache.load(entry)
        if content is not None:
            found = from_npz(content, self.preprocessor.size)
            if found is not None:
                return found
        whole = self.preprocessor.decode(data, self.max_pixels)
        decoded = replace(whole, image=self.preprocessor.resize(whole.image))
        self.cache.store(entry, to_npz(decoded))
        return decoded

    @cached_property
    def _settings(self) -> str:
        """All that decides what a file's pixels become, besides the file."""
        by = self.preprocessor
        area = hashlib.sha256(by.valid_area.to_png()).hexdigest() if by.valid_area else None
        crop = by.crop.model_dump_json() if by.crop else None
        return f"{_VERSION} {PIL.__version__} {by.size} {crop} {by.bit_depth} {area} {self.max_pixels}"


def to_npz(decoded: Decoded) -> bytes:
    """Write a decoded image as an uncompressed .npz file."""
    content = io.BytesIO()
    facts = np.array([*decoded.whole, decoded.turned, decoded.has_more_frames], np.int64)
    np.savez(content, mode=np.array(decoded.image.mode), facts=facts, pixels=np.asarray(decoded.image))
    return content.getvalue()


def from_npz(content: bytes, size: tuple[int, int]) -> Decoded | None:
    """Read what ``to_npz`` wrote of an image of ``size`` (rows, columns); None if it is anything else."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            mode, facts, pixels = str(arrays["mode"]), arrays["facts"], arrays["pixels"]
    except _DAMAGED:
        return None
    if not _fits(mode, pixels, size) or facts.shape != (4,):
        return None
    width, height, turned, more_frames = (int(fact) for fact in facts)
    return Decoded(Image.fromarray(pixels), (width, height), bool(turned), bool(more_frames))


def _fits(mode: str, pixels: NDArray[np.generic], size: tuple[int, int]) -> bool:
    if mode not in _MODES:
        return False
    dimensions, dtype = _MODES[mode]
    return str(pixels.dtype) == dtype and pixels.shape == (*size, 3)[:dimensions]
