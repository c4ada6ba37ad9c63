"""The fields that a sweep sets, with the values at which they are checked."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import starmap
from math import floor, isclose
from typing import Any

from anomaly_api.sweep import Sweep
from anomaly_api.sweep_space import FloatRange, IntRange, SearchParameter, When, after_steps, canonical, normal

_INNER = 0.381966
"""Where in an interval a value without a special role is taken."""
_TOLERANCE = 1e-9
"""Share of a step by which a value may miss it."""


@dataclass(frozen=True)
class Candidate:
    """A value, and where the sweep has it, below its dimension: ``.choices[1]``."""

    value: Any
    place: str = ""

    def __str__(self) -> str:
        return json.dumps(self.value)


@dataclass(frozen=True)
class Dimension:
    """A field that a sweep sets: a parameter, one of the fields of its replicates, or that of its fidelity.

    place: where the sweep has it. candidates: all values of a list; the ends of a range and a value between.
    """

    path: str
    place: str
    candidates: Sequence[Candidate]
    range: FloatRange | IntRange | None = None
    when: When | None = None
    searched: bool = False

    def values(self) -> list[Any]:
        """Return the candidates' values."""
        return [candidate.value for candidate in self.candidates]

    def exists(self, point: Mapping[str, Any]) -> bool:
        """Whether the dimension exists, given the values of the earlier ones that do."""
        if self.when is None:
            return True
        return self.when.path in point and canonical(point[self.when.path]) in self._wanted

    @cached_property
    def _wanted(self) -> frozenset[str]:
        return frozenset(map(canonical, self.when.values)) if self.when else frozenset()

    def holds(self, value: Any) -> bool:
        """Whether this is one of the dimension's values."""
        if self.range is None:
            return canonical(value) in map(canonical, self.values())
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return self.range.low <= value <= self.range.high and _is_on_step(self.range, value)

    def repeated(self) -> Iterator[Candidate]:
        """Yield the values of a list that an earlier one equals."""
        seen = set()
        for candidate in self.candidates if self.range is None else ():
            text = canonical(candidate.value)
            if text in seen:
                yield candidate
            seen.add(text)


def dimensions(sweep: Sweep) -> tuple[Dimension, ...]:
    """Return every field that a sweep sets: parameters first, in their order."""
    found = list(starmap(_of_parameter, enumerate(sweep.parameters)))
    for index, replicated in enumerate(sweep.replicates.paths if sweep.replicates else ()):
        place = f"spec.sweep.replicates.paths[{index}]"
        found.append(Dimension(replicated.path, place, _listed(replicated.values, ".values")))
    if sweep.fidelity:
        values = _listed(normal(sweep.fidelity.values), ".values")
        found.append(Dimension(sweep.fidelity.path, "spec.sweep.fidelity", values))
    return tuple(found)


def _of_parameter(index: int, parameter: SearchParameter) -> Dimension:
    place, interval = f"spec.sweep.parameters[{index}]", parameter.float or parameter.int
    candidates = _listed(parameter.choices or (), ".choices") if interval is None else tuple(_probes(interval))
    return Dimension(parameter.path, place, candidates, interval, parameter.when, searched=True)


def _listed(values: Sequence[Any], place: str) -> tuple[Candidate, ...]:
    return tuple(Candidate(value, f"{place}[{index}]") for index, value in enumerate(values))


def _probes(interval: FloatRange | IntRange) -> Iterator[Candidate]:
    """Yield the ends of a range and a value between: that may lie between those that the field takes."""
    place = ".int" if isinstance(interval, IntRange) else ".float"
    low, step = interval.low, interval.step
    yield Candidate(low, f"{place}.low")
    if step is None:
        yield Candidate(low + _INNER * (interval.high - low), place)
        yield Candidate(interval.high, f"{place}.high")
        return
    steps = floor((interval.high - low) / step + _TOLERANCE)
    if steps > 1:
        yield Candidate(normal(after_steps(low, step, 1)), place)
    yield Candidate(normal(after_steps(low, step, steps)), f"{place}.high")


def _is_on_step(interval: FloatRange | IntRange, value: float) -> bool:
    if isinstance(interval, IntRange):
        return (value - interval.low) % interval.step == 0
    if interval.step is None:
        return True
    steps = (value - interval.low) / interval.step
    return isclose(steps, round(steps), abs_tol=_TOLERANCE)
