"""Defects of a mask that vanish at the model's size, and the size at which they would not.

A defect is a connected region of a mask; it vanishes if no pixel of the model's size falls into it. A square of t
pixels in it is met wherever it lies once pixels are at most t apart, so that the largest such square says which size
keeps it.
"""

from dataclasses import dataclass, field

import numpy as np
from annotated_types import Le
from numpy.typing import NDArray

from anomaly_api.transforms import InputSize

_LARGEST = next(int(str(rule.le)) for rule in InputSize.model_fields["height"].metadata if isinstance(rule, Le))
"""Largest length of an input size."""
_STEP = 32
"""Input sizes are proposed in multiples of this, which most networks ask for."""
Size = tuple[int, int]
"""Rows and columns."""


@dataclass(frozen=True)
class Defects:
    """Number of defects of a mask and of those that vanish; ``needed``: the smallest size that keeps every one."""

    count: int
    lost: int = 0
    needed: Size = (0, 0)


def find_defects(mask: NDArray[np.bool_], size: Size) -> Defects:
    """Count the defects of a mask (h, w), and those that vanish where nearest neighbours scale it to ``size``."""
    from scipy.ndimage import label  # slow to import, and many runs have no masks

    area = _extent(mask)
    if area is None:
        return Defects(0)
    regions, count = label(mask[area], structure=np.ones((3, 3), int))
    rows, columns = (_sampled(mask.shape[axis], size[axis], area[axis]) for axis in (0, 1))
    lost = np.setdiff1d(np.arange(1, count + 1), regions[np.ix_(rows, columns)])
    if not len(lost):
        return Defects(int(count))
    apart = _side_of_squares(regions, lost)
    return Defects(int(count), len(lost), (-(-mask.shape[0] // apart), -(-mask.shape[1] // apart)))


def _extent(mask: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Rows and columns of the smallest rectangle around all set pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _sampled(length: int, target: int, part: slice) -> NDArray[np.intp]:
    """Pixels of ``part`` that are taken from a line of ``length`` pixels when it is scaled to ``target``."""
    taken = ((np.arange(target) + 0.5) * length / target).astype(np.intp)
    inside: NDArray[np.intp] = taken[(taken >= part.start) & (taken < part.stop)] - part.start
    return inside


def _side_of_squares(regions: NDArray[np.int32], chosen: NDArray[np.intp]) -> int:
    """Side of the largest square that fits into every one of the chosen regions; regions are numbered from 1."""
    wanted = np.zeros(int(regions.max()) + 1, np.bool_)
    wanted[chosen] = True
    squares, side = wanted[regions], 1  # set where a square of this side begins
    while True:
        squares = squares[:-1, :-1] & squares[1:, :-1] & squares[:-1, 1:] & squares[1:, 1:]
        kept = np.zeros_like(wanted)
        kept[regions[: squares.shape[0], : squares.shape[1]][squares]] = True
        if not kept[chosen].all():
            return side
        side += 1


@dataclass
class DefectCounts:
    """The defects of a run's masks, by the masks' keys."""

    found: dict[str, Defects] = field(default_factory=dict)

    def warnings(self, size: Size) -> tuple[str, ...]:
        """What to tell about the defects that vanish at ``size``; nothing if none does."""
        lost = sum(defects.lost for defects in self.found.values())
        if not lost:
            return ()
        count = sum(defects.count for defects in self.found.values())
        return (
            f"{lost} defects of {count} vanish at inputSize {size[0]} x {size[1]} (height x width), so that no pixel "
            f"metric sees them; {self._remedy()}",
        )

    def _remedy(self) -> str:
        rows, columns = (
            -(-max(defects.needed[axis] for defects in self.found.values()) // _STEP) * _STEP for axis in (0, 1)
        )
        if max(rows, columns) > _LARGEST:
            return f"to keep them it would be {rows} x {columns}, which is too large: cut the images by cropArea"
        return f"{rows} x {columns} would keep them"
