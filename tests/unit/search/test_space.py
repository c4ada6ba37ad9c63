"""Spaces: what they hold, what they refuse, how many points they have."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_api.sweep_space import canonical
from anomaly_search import points
from anomaly_search.space import (
    Choices,
    Condition,
    Domain,
    FloatRange,
    IntRange,
    Parameter,
    Space,
    SpaceError,
)
from anomaly_search.sweep import Algorithm, Objective
from support.sweeps import CONDITIONAL, FINITE, PLANE, sweep_of


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        ("1", 1, False),
        ({"a": 1, "b": [2.0]}, {"b": [2], "a": 1.0}, True),
        ([1, 2], (1, 2), True),
        ([1, 2], [2, 1], False),
        (None, "null", False),
        (0.1, 0.10000000000000002, False),
    ],
)
def test_values_are_compared_as_json_has_them(one: Any, other: Any, same: bool) -> None:
    assert (canonical(one) == canonical(other)) is same


@pytest.mark.parametrize(
    ("domain", "inside", "outside"),
    [
        (Choices((True, 1, "1", None)), [True, 1, 1.0, "1", None], [False, 2, "true", [1]]),
        (FloatRange(0.5, 2), [0.5, 1, 2.0], [0.49, 2.01, True, "1", float("nan"), None]),
        (FloatRange(0.1, 0.5, step=0.1), [0.1, 0.30000000000000004, 0.3, 0.5], [0.15, 0.6]),
        (FloatRange(0.1, 0.75, step=0.2), [0.1, 0.7], [0.75, 0.9]),
        (IntRange(1, 10, step=3), [1, 4, 7, 10, 4.0], [2, 13, 4.5, True]),
    ],
)
def test_domains_hold_their_values(domain: Domain, inside: list[Any], outside: list[Any]) -> None:
    parameter = Parameter("p", domain)
    assert all(parameter.contains(value) for value in inside)
    assert not any(parameter.contains(value) for value in outside)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Choices(()), "no choices"),
        (lambda: Choices((1, 1.0)), "twice"),
        (lambda: FloatRange(2, 1), "above"),
        (lambda: FloatRange(0, 1, log=True), "log needs"),
        (lambda: FloatRange(1, 2, log=True, step=0.1), "log with a step"),
        (lambda: FloatRange(0, float("inf")), "finite"),
        (lambda: IntRange(0, 9, step=0), "step"),
        (lambda: Space((Parameter("a", IntRange(0, 1)), Parameter("a", IntRange(0, 1)))), "a occurs twice"),
        (
            lambda: Space((Parameter("a", IntRange(0, 1), Condition("b", (1,))), Parameter("b", IntRange(0, 1)))),
            "no earlier parameter",
        ),
        (
            lambda: Space((Parameter("b", IntRange(0, 1)), Parameter("a", IntRange(0, 1), Condition("b", (2,))))),
            "it never is",
        ),
        (lambda: sweep_of(PLANE, algorithm=Algorithm("grid")), "grid needs a step"),
        (lambda: sweep_of(FINITE, algorithm=Algorithm("cmaes")), "no choices"),
        (lambda: sweep_of(PLANE, algorithm=Algorithm("cmaes"), objectives=(Objective("a"), Objective("b"))), "single"),
        (lambda: sweep_of(PLANE, start=({"x": 6.0},)), "start: x has no value 6.0"),
        (lambda: sweep_of(PLANE, start=({"z": 1.0},)), "start: z"),
    ],
)
def test_contradictions_are_refused(make: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        make()


def test_a_grid_has_every_combination_under_its_conditions_once() -> None:
    sizes = ({"height": 256}, {"height": 384})
    layers = (["a"], ["a", "b"])
    expected = [
        *({"model": "patchcore", "layers": layer, "size": size} for layer, size in itertools.product(layers, sizes)),
        *({"model": "padim", "features": n, "size": size} for n, size in itertools.product((50, 100, 150), sizes)),
        *({"model": "stfpm", "layers": layer, "size": size} for layer, size in itertools.product(layers, sizes)),
    ]
    assert points.count(FINITE) == len(expected)
    assert [points.point_at(FINITE, index) for index in range(len(expected))] == expected
    with pytest.raises(IndexError):
        points.point_at(FINITE, len(expected))


def test_huge_spaces_are_counted_and_entered_at_once() -> None:
    space = Space(tuple(Parameter(f"p{place}", IntRange(0, 9)) for place in range(30)))
    assert points.count(space) == 10**30
    assert list(points.point_at(space, 10**30 - 2).values()) == [9] * 29 + [8]


def test_a_space_with_real_numbers_has_no_end() -> None:
    assert points.count(PLANE) is None
    assert points.count(CONDITIONAL) is None


@settings(deadline=None, derandomize=True, database=None, max_examples=50)
@given(st.integers(0, 13))
def test_places_and_points_are_each_others_inverse(index: int) -> None:
    assert points.place_of(FINITE, points.point_at(FINITE, index)) == index


@settings(deadline=None, derandomize=True, database=None, max_examples=100)
@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=5, max_size=5))
def test_points_of_the_unit_cube_are_in_the_space_and_come_back(cube: list[float]) -> None:
    point = points.from_unit(CONDITIONAL, cube)
    assert CONDITIONAL.restrict(point) == point
    for parameter, coordinate in zip(CONDITIONAL.parameters, cube, strict=True):
        if parameter.path in point:
            back = points.to_unit(parameter.domain, point[parameter.path])
            share = (
                1 / parameter.domain.size if parameter.domain.size and not getattr(parameter.domain, "log", 0) else 0
            )
            # On a logarithmic scale, 1 of 1..50 has the widest share: ln(1.5 / 0.5) of ln(50.5 / 0.5).
            assert back == pytest.approx(
                coordinate, abs=max(share / 2, 0.24 if parameter.path == "neighbours" else 1e-9)
            )


def test_what_the_space_does_not_hold_is_left_out() -> None:
    assert FINITE.restrict({"model": "padim", "features": 50, "layers": ["a"], "size": {"height": 256.0}}) == {
        "model": "padim",
        "features": 50,
        "size": {"height": 256.0},
    }
    assert FINITE.restrict({"model": "padim", "size": {"height": 256}}) is None
    assert FINITE.restrict({"model": "padim", "features": 75, "size": {"height": 256}}) is None
