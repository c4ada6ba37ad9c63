"""Paint synthetic defects on good images: anomalib's patches of Perlin noise (Zavrtanik et al., "DRAEM", ICCV 2021).

A defect depends on the seed and the image's key alone: neither on the order of reading nor on threads.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.dataset import SyntheticDefects
from anomaly_runner.errors import InvalidConfig

_RANDOM = Lock()
"""anomalib draws from torch's one random generator of the process, which the threads of readers share."""
_TRIES = 50
"""Defects that are drawn for an image until one has a pixel in the valid area."""
_LIBRARIES, _BYTES_PER_PIXEL = 180_000_000, 150
"""What the first defect adds to a process's own memory (its ``RssAnon``): anomalib and Lightning, and tensors."""


def painter_memory(size: tuple[int, int]) -> int:
    """Bytes of memory that painting on images of this size (rows, columns) takes at least.

    Measured: 0.19 GB at 256 x 256 and 0.35 GB at 1024 x 1024 for the first defect, 0.20 and 0.55 GB after twenty.
    """
    return _LIBRARIES + _BYTES_PER_PIXEL * size[0] * size[1]


@dataclass(frozen=True)
class SyntheticPainter:
    """Paints defects on images of the model's size; may be called from any thread.

    Attributes:
        spec: opacity of the defects.
        seed: of the run.
        valid: mask (H, W) of the pixels that count, outside of which nothing is painted; None for all.
    """

    spec: SyntheticDefects
    seed: int
    valid: NDArray[np.bool_] | None = None

    def __call__(self, image: Image.Image, key: str) -> tuple[Image.Image, NDArray[np.bool_]]:
        """Paint a defect.

        Args:
            image: good image of the model's size, mode RGB, L, or F with values of 0..1; unchanged.
            key: of the image with the defect.

        Returns:
            The image with the defect, of the same mode, and the pixels (H, W) of the defect.

        Raises:
            InvalidConfig: no defect falls into the valid area.
        """
        with _RANDOM, torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed_of(key))
            for _ in range(_TRIES):
                painted, defect = self._paint(_to_tensor(image))
                counted = defect if self.valid is None else defect & self.valid
                if counted.any():
                    return _to_image(np.where(counted, painted, _to_tensor(image).numpy()), image.mode), counted
        raise InvalidConfig(
            "dataset.splits.syntheticDefects: the valid area (validAreaMask) is too small for a defect to fall into it"
        )

    def _paint(self, pixels: torch.Tensor) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        painted, defect = self._generator(pixels)
        return painted.clamp(0, 1).numpy(), defect[0].numpy() > 0

    @cached_property
    def _generator(self) -> Any:
        """anomalib's generator; importing it takes seconds, and memory as ``painter_memory`` says."""
        from anomalib.data.utils.generators.perlin import PerlinAnomalyGenerator

        opacity = (self.spec.min_opacity, self.spec.max_opacity)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)  # it draws when it is made, too
            return PerlinAnomalyGenerator(probability=1.0, blend_factor=opacity)

    def _seed_of(self, key: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed}:synthetic:{key}".encode()).digest()[:7])


def _to_tensor(image: Image.Image) -> torch.Tensor:
    """The pixels as (3, H, W), float32, 0..1; grey ones three times."""
    white = np.float32(1 if image.mode == "F" else 255)
    pixels = np.atleast_3d(np.asarray(image, np.float32)) / white
    return torch.from_numpy(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).transpose(2, 0, 1)))


def _to_image(pixels: NDArray[np.float32], mode: str) -> Image.Image:
    """The image of pixels (3, H, W), 0..1; a grey one has the mean of the three."""
    if mode == "F":
        return Image.fromarray(pixels.mean(0, dtype=np.float32))
    channels = pixels.transpose(1, 2, 0) if mode == "RGB" else pixels.mean(0)
    return Image.fromarray(np.ascontiguousarray(channels * 255 + 0.5, np.uint8))
