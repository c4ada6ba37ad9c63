"""A search space: parameters of a spec, their domains, and the conditions under which they exist.

Names follow Optuna and Vizier. The conditions form a forest: each parameter depends on at most one earlier one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from anomaly_api.sweep_space import after_steps, canonical

Value: TypeAlias = Any
"""A value as YAML has it: of a parameter, which may be a list or a mapping."""


class SpaceError(ValueError):
    """A space, or a point of it, that cannot be; the message says why."""


@dataclass(frozen=True)
class Choices:
    """A list of values of any type, without an order.

    Raises:
        SpaceError: there is none, or one of them twice.
    """

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise SpaceError("no choices")
        if len({canonical(value) for value in self.values}) < len(self.values):
            raise SpaceError("a choice is listed twice")

    @property
    def size(self) -> int:
        """How many values there are."""
        return len(self.values)

    def index(self, value: Value) -> int | None:
        """Return the place of a value in the list; None if it is not there."""
        return self._places.get(canonical(value))

    def at(self, index: int) -> Value:
        """Return the value at a place."""
        return self.values[index]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {canonical(value): place for place, value in enumerate(self.values)}


@dataclass(frozen=True)
class FloatRange:
    """Real numbers from low to high, both included; in steps from low on if `step` is given.

    Raises:
        SpaceError: the bounds contradict each other.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.log, self.step)

    @property
    def size(self) -> int | None:
        """How many values there are; None without steps."""
        if self.step is None:
            return 1 if self.low == self.high else None
        return math.floor((self.high - self.low) / self.step + 1e-8) + 1

    def index(self, value: Value) -> int | None:
        """Return a value's number of steps from low; None if it is not one of them."""
        if not _is_number(value) or self.size is None:
            return None
        place = 0 if self.step is None else round((value - self.low) / self.step)
        return place if 0 <= place < self.size and math.isclose(value, self.at(place), abs_tol=1e-12) else None

    def at(self, index: int) -> float:
        """Return the value after a number of steps, as people write it: 0.3 is two steps of 0.1 from 0.1."""
        return after_steps(self.low, self.step or 0.0, index)


@dataclass(frozen=True)
class IntRange:
    """Whole numbers from low to high, both included, in steps from low on.

    Raises:
        SpaceError: the bounds contradict each other.
    """

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.log, None if self.step == 1 else self.step)

    @property
    def size(self) -> int:
        """How many values there are."""
        return (self.high - self.low) // self.step + 1

    def index(self, value: Value) -> int | None:
        """Return a value's number of steps from low; None if it is not one of them."""
        if not _is_number(value) or int(value) != value:
            return None
        place, rest = divmod(int(value) - self.low, self.step)
        return place if rest == 0 and 0 <= place < self.size else None

    def at(self, index: int) -> int:
        """Return the value after a number of steps."""
        return self.low + index * self.step


Key: TypeAlias = tuple[float | None, ...]
Domain: TypeAlias = Choices | FloatRange | IntRange


@dataclass(frozen=True)
class Condition:
    """A parameter exists only where an earlier one has one of these values."""

    path: str
    values: tuple[Value, ...]

    def holds(self, value: Value) -> bool:
        """Whether the earlier parameter's value is one of them."""
        return canonical(value) in self._canonical

    @cached_property
    def _canonical(self) -> frozenset[str]:
        return frozenset(canonical(own) for own in self.values)


@dataclass(frozen=True)
class Parameter:
    """One dimension: a field of the spec and the values it may have."""

    path: str
    domain: Domain
    condition: Condition | None = None

    def contains(self, value: Value) -> bool:
        """Whether the domain has this value."""
        if self.domain.size is not None:
            return self.domain.index(value) is not None
        assert isinstance(self.domain, FloatRange)
        return _is_number(value) and self.domain.low <= value <= self.domain.high


@dataclass(frozen=True)
class Space:
    """The parameters in their order.

    Raises:
        SpaceError: a path occurs twice, or a condition names no earlier parameter or a value it cannot have.
    """

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        earlier: dict[str, Parameter] = {}
        for parameter in self.parameters:
            if parameter.path in earlier:
                raise SpaceError(f"{parameter.path} occurs twice")
            if parameter.condition:
                _check_condition(parameter.path, parameter.condition, earlier)
            earlier[parameter.path] = parameter

    @property
    def conditional(self) -> bool:
        """Whether some parameter exists only under a condition."""
        return any(parameter.condition for parameter in self.parameters)

    def restrict(self, values: Mapping[str, Value]) -> dict[str, Value] | None:
        """Return the values of the parameters that exist under them; None if one is missing or outside its domain."""
        point: dict[str, Value] = {}
        for parameter in self.parameters:
            if not is_active(parameter, point):
                continue
            if parameter.path not in values or not parameter.contains(values[parameter.path]):
                return None
            point[parameter.path] = values[parameter.path]
        return point

    def key(self, values: Mapping[str, Value]) -> Key | None:
        """Return what two points share only if they are the same; None for one that the space does not hold.

        A coordinate a parameter: its place in its domain, or its value; None where it does not exist.
        """
        point = self.restrict(values)
        if point is None:
            return None
        return tuple(
            None if parameter.path not in point else _coordinate(parameter.domain, point[parameter.path])
            for parameter in self.parameters
        )


def is_active(parameter: Parameter, point: Mapping[str, Value]) -> bool:
    """Whether a parameter exists, given the values of the earlier ones that do."""
    condition = parameter.condition
    return condition is None or (condition.path in point and condition.holds(point[condition.path]))


def _coordinate(domain: Domain, value: Value) -> float:
    place = domain.index(value)
    return float(value) if place is None else place


def _is_number(value: Value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_range(low: float, high: float, log: bool, step: float | None) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise SpaceError(f"low {low} is above high {high}, or not finite")
    if log and low <= 0:
        raise SpaceError(f"log needs low above 0, not {low}")
    if step is not None and (step <= 0 or log):
        raise SpaceError("log with a step" if log else f"the step {step} is not above 0")


def _check_condition(path: str, condition: Condition, earlier: Mapping[str, Parameter]) -> None:
    parent = earlier.get(condition.path)
    if parent is None:
        raise SpaceError(f"{path} depends on {condition.path}, which is no earlier parameter")
    for value in condition.values:
        if not parent.contains(value):
            raise SpaceError(f"{path} depends on {condition.path} being {canonical(value)}, which it never is")
