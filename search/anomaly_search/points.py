"""Points of a space: how many there are, the i-th of a grid, and the way from the unit cube and back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from anomaly_search.space import Choices, Domain, FloatRange, Parameter, Space, Value, is_active


def count(space: Space) -> int | None:
    """Return how many points there are, each combination under its conditions once; None if there is no end."""
    return _product(space, _children(space, None))


def point_at(space: Space, index: int) -> dict[str, Value]:
    """Return a point of a finite space by its place in the grid, whose last parameter changes fastest.

    Raises:
        IndexError: there are fewer points.
    """
    total = count(space)
    if total is None or not 0 <= index < total:
        raise IndexError(f"no point {index} of {total}")
    found = dict(_decode(space, _children(space, None), index))
    return {parameter.path: found[parameter.path] for parameter in space.parameters if parameter.path in found}


def place_of(space: Space, point: Mapping[str, Value]) -> int:
    """Return a point's place in the grid; `point_at` backwards. The point has to be of the space."""
    return _encode(space, _children(space, None), point)


def from_unit(
    space: Space, cube: Sequence[float], given: Mapping[str, Value] = MappingProxyType({})
) -> dict[str, Value]:
    """Return the point for one coordinate in [0, 1] a parameter; those of parameters that do not exist go unused.

    `given` parameters keep their values.
    """
    point: dict[str, Value] = {}
    for parameter, coordinate in zip(space.parameters, cube, strict=True):
        if is_active(parameter, point):
            path = parameter.path
            point[path] = given[path] if path in given else _value(parameter.domain, coordinate)
    return point


def to_unit(domain: Domain, value: Value) -> float:
    """Return the coordinate of a value: the middle of its share of the unit interval."""
    if domain.size == 1:
        return 0.5
    if domain.size is None or (not isinstance(domain, Choices) and domain.log):
        assert not isinstance(domain, Choices)
        low, high = _ends(domain)
        return (_scaled(domain, value) - low) / (high - low)
    place = domain.index(value)
    assert place is not None, f"{value} is not in {domain}"
    return (place + 0.5) / domain.size


def _value(domain: Domain, coordinate: float) -> Value:
    if isinstance(domain, Choices) or not domain.log:
        if domain.size is not None:
            return domain.at(min(int(coordinate * domain.size), domain.size - 1))
        assert isinstance(domain, FloatRange)
        return domain.low + coordinate * (domain.high - domain.low)
    low, high = _ends(domain)
    value = math.exp(low + coordinate * (high - low))
    if not isinstance(domain, FloatRange):
        value = round(value)
    return min(max(value, domain.low), domain.high)


def _ends(domain: Domain) -> tuple[float, float]:
    """Return the ends of the interval that coordinates are spread over; whole numbers have half a step more, as in
    Optuna."""
    assert not isinstance(domain, Choices)
    margin = 0.0 if isinstance(domain, FloatRange) else 0.5
    return _scaled(domain, domain.low - margin), _scaled(domain, domain.high + margin)


def _scaled(domain: Domain, value: float) -> float:
    assert not isinstance(domain, Choices)
    return math.log(value) if domain.log else value


def _children(space: Space, parent: Parameter | None, value: Value = None) -> list[Parameter]:
    """Return the parameters that exist because the parent has this value; without a parent, those that always do."""
    if parent is None:
        return [parameter for parameter in space.parameters if parameter.condition is None]
    return [
        parameter
        for parameter in space.parameters
        if parameter.condition and parameter.condition.path == parent.path and parameter.condition.holds(value)
    ]


def _product(space: Space, parameters: Sequence[Parameter]) -> int | None:
    total = 1
    for parameter in parameters:
        size = _size(space, parameter)
        if size is None:
            return None
        total *= size
    return total


def _size(space: Space, parameter: Parameter) -> int | None:
    """Return the number of points of a parameter together with all that depend on it."""
    if parameter.domain.size is None:
        return None
    if not any(other.condition and other.condition.path == parameter.path for other in space.parameters):
        return parameter.domain.size
    total = 0
    for index in range(parameter.domain.size):
        size = _product(space, _children(space, parameter, parameter.domain.at(index)))
        if size is None:
            return None
        total += size
    return total


def _decode(space: Space, parameters: Sequence[Parameter], index: int) -> Iterator[tuple[str, Value]]:
    for place, parameter in enumerate(parameters):
        block = _product(space, parameters[place + 1 :])
        assert block is not None
        own, index = divmod(index, block)
        yield from _decode_one(space, parameter, own)


def _decode_one(space: Space, parameter: Parameter, index: int) -> Iterator[tuple[str, Value]]:
    assert parameter.domain.size is not None
    for place in range(parameter.domain.size):
        value = parameter.domain.at(place)
        children = _children(space, parameter, value)
        block = _product(space, children)
        assert block is not None
        if index < block:
            yield parameter.path, value
            yield from _decode(space, children, index)
            return
        index -= block


def _encode(space: Space, parameters: Sequence[Parameter], point: Mapping[str, Value]) -> int:
    index = 0
    for parameter in parameters:
        size = _size(space, parameter)
        assert size is not None
        index = index * size + _encode_one(space, parameter, point)
    return index


def _encode_one(space: Space, parameter: Parameter, point: Mapping[str, Value]) -> int:
    place = parameter.domain.index(point[parameter.path])
    assert place is not None
    before = 0
    for earlier in range(place):
        block = _product(space, _children(space, parameter, parameter.domain.at(earlier)))
        assert block is not None
        before += block
    return before + _encode(space, _children(space, parameter, point[parameter.path]), point)
