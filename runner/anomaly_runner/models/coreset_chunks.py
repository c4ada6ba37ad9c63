"""A coreset of coresets: the patches of a training set, reduced chunk by chunk in bounded memory.

Each chunk is reduced to a coreset that is larger than its share, and those are reduced once more together. That is the
composition of Malkomes et al., "Fast Distributed k-Center Clustering with Outliers on Massive Data", NIPS 2015: no
training patch is farther from the result than the sum of both reductions' radii. A training set that fits into one
chunk is reduced once, which is the coreset of the paper.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anomaly_runner.models.coreset import compared_numbers
from anomaly_runner.system.machine import give_back_freed_memory

OVERSAMPLING = 2
"""A chunk keeps this many times its share of patches, because another chunk may have needed them more."""
MOST_ROWS, FEWEST_ROWS = 1 << 18, 1 << 14
"""Patches in a chunk: the time for one patch grows with their number, and what is lost with their smallness."""
_NUMBERS = 8
"""Numbers of 4 bytes for each patch while a coreset is picked: distance, square, bound of errors, temporaries."""
_SHARE_OF_FREE = 0.8
"""Of the memory there is, what chunks may fill: estimates are of what is needed at least."""


@dataclass(frozen=True)
class CoresetSize:
    """What a coreset is made of.

    Attributes:
        rows: number of training patches.
        channels: numbers of a patch.
        ratio: share of the patches in the coreset, 0..1.
    """

    rows: int
    channels: int
    ratio: float

    @property
    def picked(self) -> int:
        """Patches of the coreset."""
        return int(self.rows * self.ratio)

    @property
    def kept(self) -> int:
        """Patches of all chunks' coresets."""
        return math.ceil(self.rows * self.kept_share)

    @property
    def kept_share(self) -> float:
        """Share of a chunk's patches in its coreset."""
        return min(1.0, OVERSAMPLING * self.ratio)

    def exact_bytes(self) -> int:
        """Bytes at the peak where all patches are reduced at the same time."""
        return _reduction_bytes(self.rows, self.picked, self.channels)

    def chunked_bytes(self, chunk: int) -> int:
        """Bytes at the peak with chunks of this many patches: a chunk beside all that is kept, or the joined result."""
        chunk = min(chunk, self.rows)
        reduction = _reduction_bytes(chunk, math.ceil(chunk * self.kept_share), self.channels)
        return max(4 * self.kept * self.channels + reduction, 2 * 4 * self.picked * self.channels)

    def largest_chunk(self, free: int) -> int:
        """Patches in the chunks that fit into this many bytes: a power of two, at least ``FEWEST_ROWS``.

        Which patches are kept depends on it, and a machine never has the same memory free twice.
        """
        fixed = self.chunked_bytes(0)
        for_row = (self.chunked_bytes(FEWEST_ROWS) - fixed) / min(FEWEST_ROWS, self.rows)
        fitting = int((_SHARE_OF_FREE * free - fixed) / for_row)
        return max(FEWEST_ROWS, min(MOST_ROWS, 1 << max(fitting, 1).bit_length() - 1))


def _reduction_bytes(rows: int, picked: int, channels: int) -> int:
    """Bytes while ``rows`` patches are reduced: all of them twice (in parts and joined), their projection if there is
    one, ``_NUMBERS`` for each, and the picked patches and their projection."""
    compared = compared_numbers(rows, channels)
    copies = compared if compared < channels else 0
    return 4 * (rows * (2 * channels + copies + _NUMBERS) + picked * (copies + channels))


class ChunkedCoreset:
    """Collects patches and reduces them whenever a chunk is full.

    Args:
        pick: returns a coreset (count, D) of patches (N, D).
        ratio: share of all patches in the coreset, 0..1.
        chunk: most patches that are reduced at the same time.
    """

    def __init__(self, pick: Callable[[Tensor, int], Tensor], ratio: float, chunk: int) -> None:
        self._pick, self._ratio, self._chunk = pick, ratio, chunk
        self._seen: list[Tensor] = []
        self._kept: list[Tensor] = []
        self._rows_reduced = 0

    @property
    def rows(self) -> int:
        """Number of patches seen so far."""
        return self._rows_reduced + _rows(self._seen)

    def add(self, parts: Iterable[Tensor]) -> None:
        """Take patches, in parts of (n, D)."""
        for part in parts:
            if self._seen and _rows(self._seen) + len(part) > self._chunk:
                self._reduce_chunk()
            self._seen.append(part)

    def finish(self) -> Tensor:
        """Return the coreset (int(rows x ratio), D), and forget all patches; empty if there were too few."""
        count = int(self.rows * self._ratio)
        if not self._kept:
            return self._reduced(self._seen, count)
        self._reduce_chunk()
        self._rows_reduced = 0
        return self._join(count)

    def _reduce_chunk(self) -> None:
        rows = _rows(self._seen)
        self._rows_reduced += rows
        self._kept.append(self._reduced(self._seen, math.ceil(rows * min(1.0, OVERSAMPLING * self._ratio))))

    def _join(self, count: int) -> Tensor:
        """Reduce the chunks' coresets to ``count`` patches: together, or in groups of no more than a chunk's size."""
        total, before, found = _rows(self._kept), 0, []
        while self._kept:
            group = _take(self._kept, math.ceil(total / math.ceil(total / self._chunk)))
            after = before + _rows(group)
            found.append(self._reduced(group, count * after // total - count * before // total))
            before = after
        return torch.cat(found)

    def _reduced(self, parts: list[Tensor], count: int) -> Tensor:
        """A coreset of patches in parts, which are forgotten."""
        patches = torch.cat(parts)
        parts.clear()
        give_back_freed_memory()
        return self._pick(patches, count) if 0 < count < len(patches) else patches[:count]


def _rows(parts: Sequence[Tensor]) -> int:
    return sum(len(part) for part in parts)


def _take(parts: list[Tensor], rows: int) -> list[Tensor]:
    """Take the first parts with at most this many rows out of the list, and at least one part."""
    taken = [parts.pop(0)]
    while parts and _rows(taken) + len(parts[0]) <= rows:
        taken.append(parts.pop(0))
    return taken
