"""Where a score lies among those of good images that the model has not learnt from: a number that people understand.

Raw scores of two models cannot be compared, shares can: "higher than 99 % of the good images" means the same for each.
"""

import numpy as np
from numpy.typing import NDArray

from anomaly_api.run import GoodScores
from anomaly_runner.evaluation.curves import Scores

_WHOLE = 1024
"""Distinct scores up to which a table has all of them; it is then exact."""
_HIGHEST = 256
"""Of more scores, as many of the highest stay: there decisions are made, and there the table remains exact."""
_SHARES = 384
"""Below these, the table is exact to one in so many."""


def summarise_good(scores: Scores) -> GoodScores | None:
    """Make the table of good scores that travels with a model; None if there are none.

    Args:
        scores: (N,) image scores of good images that the model has not learnt from, ascending.
    """
    if not len(scores):
        return None
    distinct, lower = np.unique(scores, return_index=True)
    kept = _kept(lower)
    return GoodScores(
        images=len(scores),
        scores=tuple(map(float, distinct[kept])),
        lower=tuple(map(int, lower[kept])),
    )


def _kept(lower: NDArray[np.intp]) -> NDArray[np.intp]:
    """Indices of the distinct scores that the table has, by the number of images that score lower (ascending).

    Of more scores than it takes, these are the highest, and at equal shares of the images the score that lies there
    with the next higher one: however many images share a score, what is left out between two of the table is small.
    """
    count = len(lower)
    if count <= _WHOLE:
        return np.arange(count)
    spread = np.linspace(0, lower[-_HIGHEST], _SHARES)
    there = np.searchsorted(lower, spread, "right") - 1
    return np.unique(np.concatenate((there, there + 1, np.arange(count - _HIGHEST, count))))


def share_of_good_below(good: GoodScores, scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Share of the good images that score lower than each score (N,), 0..1.

    Of a score that lies between two of the table, it is that of the higher one: too high by 1 / 384 at most, where the
    table leaves scores out.
    """
    lower = np.append(good.lower, good.images)
    place = np.searchsorted(np.asarray(good.scores), scores.astype(np.float64), "left")
    share: NDArray[np.float64] = lower[place] / good.images
    return share
