"""Split large images into tiles: the backbone computes features of each tile, and these are joined.

Like anomalib's ``Tiler``, with two differences. A last tile that would extend beyond the border is moved back inside;
anomalib pads the image with black instead, and scores the padding. And means over overlaps are computed for one side
after the other by joining slices, so that exported graphs contain no loops, scatters or batch sizes.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from anomaly_api.model import Tiling
from anomaly_runner.errors import InvalidConfig
from anomaly_runner.models.compiled import is_exporting
from anomaly_runner.models.threads import MICRO_BATCH

_TILES_ON_GPU = 64
"""Number of tiles in a batch on a GPU: enough to keep it busy, and independent of the images' size."""


class Tiles:
    """The tiles of images of one size; anomalib's models call ``tile`` and ``untile`` of their ``tiler``.

    Args:
        size: rows and columns of the images.
        tiling: side and stride of the tiles in pixels; None for a single tile, the whole image.

    Raises:
        InvalidConfig: the tiles are larger than the images.
    """

    def __init__(self, size: tuple[int, int], tiling: Tiling | None) -> None:
        if tiling is not None and tiling.tile_size > min(size):
            raise InvalidConfig(f"model.tiling.tileSize is {tiling.tile_size}, but images are {size[0]} x {size[1]}")
        self._size = size
        self.side = (tiling.tile_size, tiling.tile_size) if tiling else size
        stride = tiling.stride if tiling else max(size)
        self._rows, self._columns = (_starts(*lengths, stride) for lengths in zip(size, self.side, strict=True))

    @property
    def count(self) -> int:
        """Number of tiles of an image."""
        return len(self._rows) * len(self._columns)

    def check_aligned(self, reductions: Sequence[int]) -> None:
        """Check that tiles begin and end at whole positions of feature maps.

        Args:
            reductions: stride of each feature map in pixels.

        Raises:
            InvalidConfig: they do not; the message names the required factor.
        """
        factor = max(reductions)
        if self.count > 1 and any(length % factor for length in (*self.side, *self._rows, *self._columns)):
            raise InvalidConfig(
                f"model.tiling: inputSize, tileSize and stride have to be multiples of {factor}, the "
                "pixels that one feature of these layers stands for"
            )

    def patches(self, of_tile: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of joined feature maps, from those of a tile's feature map."""
        whole = (side * of // tile for side, of, tile in zip(self._size, of_tile, self.side, strict=True))
        rows, columns = whole
        return rows, columns

    def tile(self, images: Tensor) -> Tensor:
        """Tiles (B x count, C, h, w) of images (B, C, H, W): image by image, row by row."""
        if self.count == 1:
            return images
        height, width = self.side
        cut = [
            images[..., row : row + height, column : column + width] for row in self._rows for column in self._columns
        ]
        return torch.stack(cut, 1).flatten(0, 1)

    def untile(self, features: Tensor) -> Tensor:
        """Join feature maps of tiles (B x count, C, h / r, w / r) to (B, C, H / r, W / r), with means over overlaps.

        ``r`` is the stride of the feature maps.
        """
        if self.count == 1:
            return features
        channels, height, width = (int(length) for length in features.shape[1:])
        apart = features.reshape(-1, self.count, channels, height, width).unbind(1)
        columns = [column * width // self.side[1] for column in self._columns]
        rows = [row * height // self.side[0] for row in self._rows]
        across = len(columns)
        bands = [_joined(apart[start : start + across], columns, -1) for start in range(0, self.count, across)]
        return _joined(bands, rows, -2)

    def embed(self, images: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """Joined feature maps (B, C, H / r, W / r) of images (B, C, H, W).

        Args:
            images: as in ``tile``.
            embed: computes features (n, C, h / r, w / r) of tiles (n, C, h, w).
        """
        tiles = self.tile(images)
        at_once = MICRO_BATCH if images.device.type == "cpu" else _TILES_ON_GPU
        # exported graphs have no loops, so all tiles are one part there
        parts = [tiles] if is_exporting() or self.count == 1 else torch.split(tiles, at_once)
        return self.untile(torch.cat([embed(part) for part in parts]) if len(parts) > 1 else embed(tiles))


def _starts(length: int, side: int, stride: int) -> list[int]:
    """First pixels of the tiles along a side: one at every stride, and one tile that ends with the side."""
    last = length - side
    return [*range(0, last, stride), last]


def _joined(parts: Sequence[Tensor], starts: Sequence[int], dim: int) -> Tensor:
    """Join parts along dimension ``dim``, each placed at its start, with the mean where they overlap."""
    length = int(parts[0].shape[dim])
    bounds = sorted({*starts, *(start + length for start in starts)})
    pieces = []
    # between two neighbouring bounds the set of parts is the same, so each piece is a slice or a mean of slices
    for low, high in pairwise(bounds):
        there = [
            part.narrow(dim, low - start, high - low)
            for part, start in zip(parts, starts, strict=True)
            if start <= low < start + length
        ]
        pieces.append(there[0] if len(there) == 1 else sum(there[1:], there[0]) / len(there))
    return torch.cat(pieces, dim)
