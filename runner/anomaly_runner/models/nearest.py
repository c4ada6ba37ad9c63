"""The row of PatchCore's memory bank that is nearest to a patch.

Distances are computed as ``y^2 - 2xy``: without the patch's own square, which does not change their order, and only
exactly enough to find the row. All of them at once would fill gigabytes; a part stays in a CPU's cache until its least
is found. What is left is the time of one product of matrices, two operations for each number of each pair.
"""

import math

import torch
from torch import Tensor

_PATCHES = 512
"""Number of patches in a part of the distances."""
_ROWS_ON_CPU, _ROWS_ON_GPU = 1 << 10, 1 << 15
"""Number of rows of the memory bank in such a part."""
ROWS_IN_GRAPH, _MOST_PARTS = 1024, 128
"""Rows of the memory bank in each part of an exported graph, unless there would be more parts than this limit."""


def nearest_rows(patches: Tensor, bank: Tensor) -> Tensor:
    """Index (n,) of the row of a memory bank (M, D) nearest to each patch (n, D); the first of equally near ones."""
    return torch.cat([_nearest_to_part(part, bank) for part in torch.split(patches, _PATCHES)])


def _nearest_to_part(patches: Tensor, bank: Tensor) -> Tensor:
    size = _ROWS_ON_GPU if patches.device.type == "cuda" else _ROWS_ON_CPU
    least = patches.new_full((len(patches),), torch.inf)
    index = torch.zeros_like(least, dtype=torch.long)
    for start in range(0, len(bank), size):
        found = _squared_distances(patches, bank[start : start + size]).min(1)
        index = torch.where(found.values < least, found.indices + start, index)
        least = torch.minimum(least, found.values)
    return index


def nearest_in_graph(patches: Tensor, bank: Tensor) -> Tensor:
    """Index (n,) of the row of a memory bank (M, D) nearest to each patch (n, D), computed by parts of the rows.

    For exported graphs, which have no loops: they can be split by rows, whose number is fixed, but not by patches.
    """
    # topk is faster than the minimum and its index
    found = [part.topk(1, 1, largest=False) for part in squared_distances_by_rows(patches, bank)]
    least = torch.cat([part.values for part in found], 1).argmin(1, keepdim=True)
    index = torch.cat([part.indices + number * _rows_at_once(bank) for number, part in enumerate(found)], 1)
    return index.gather(1, least).squeeze(1)


def squared_distances_by_rows(patches: Tensor, bank: Tensor) -> list[Tensor]:
    """Squared distances (n, rows) of patches (n, D) to each part of the rows, minus the patch's own squared norm.

    That norm does not change the order of a patch's distances. Computed in float32 in any precision of the model.
    Without the split, exporters would store the bank's transpose besides the bank.
    """
    parts = torch.split(bank.float(), _rows_at_once(bank))
    return [_squared_distances(patches.float(), rows) for rows in parts]


def _rows_at_once(bank: Tensor) -> int:
    return max(ROWS_IN_GRAPH, math.ceil(len(bank) / _MOST_PARTS))


def _squared_distances(patches: Tensor, rows: Tensor) -> Tensor:
    """Squared distances (n, m) of patches (n, D) to rows (m, D), minus the patch's own squared norm."""
    return torch.addmm(rows.pow(2).sum(1), patches, rows.t(), alpha=-2)
