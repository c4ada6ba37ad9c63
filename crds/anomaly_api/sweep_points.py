"""Points of a sweep's space with certain values, for checks: all of them, or a few that differ much."""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from math import prod
from typing import Any

from anomaly_api.sweep_trial import Json
from anomaly_api.sweep_values import Candidate, Dimension

MOST_POINTS = 200

Allowed = Mapping[str, Sequence[Candidate]]
"""By path: the only values that a dimension may have."""


def points(space: Sequence[Dimension], allowed: Allowed) -> Iterator[Json]:
    """Yield points with the allowed values of their dimensions: all of them if they are few, else MOST_POINTS."""
    options = [allowed.get(dimension.path, dimension.candidates) for dimension in space]
    chosen = product(*options) if prod(map(len, options)) <= MOST_POINTS else _some(options)
    for candidates in chosen:
        yield _existing(space, [candidate.value for candidate in candidates])


def _some(options: Sequence[Sequence[Candidate]]) -> Iterator[Sequence[Candidate]]:
    """Yield the first of all options, others beside the first of the rest, then random combinations."""
    yield from islice(_one_apart(options), MOST_POINTS // 2)
    chance = random.Random(0)  # noqa: S311 - the same spec is judged alike each time
    for _ in range(MOST_POINTS // 2):
        yield [chance.choice(option) for option in options]


def _one_apart(options: Sequence[Sequence[Candidate]]) -> Iterator[Sequence[Candidate]]:
    first = [option[0] for option in options]
    yield first
    for place, option in enumerate(options):
        for candidate in option[1:]:
            yield [*first[:place], candidate, *first[place + 1 :]]


def _existing(space: Sequence[Dimension], values: Sequence[Any]) -> Json:
    """Return the values of the dimensions that exist under them."""
    point: Json = {}
    for dimension, value in zip(space, values, strict=True):
        if dimension.exists(point):
            point[dimension.path] = value
    return point
