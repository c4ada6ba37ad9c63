"""Spaces: what they hold, what they refuse, how many points they have."""

import itertools
import math
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
        (FloatRange(0.1, 0.5, step=0.1), [0.1, 0.30000000000000004, 0.3, 0.5], [0.15, 0.6, 0.0]),
        (FloatRange(0.1, 0.5, step=0.1), [0.2], [None, "0.3", True, float("nan"), float("inf")]),
        (FloatRange(-0.2, 0.2, step=0.1), [0, 5e-17, -0.1], [1e-9]),
        (FloatRange(2.0, 2.0), [2], [2.1, 1.9, "2"]),
        (FloatRange(0.1, 0.75, step=0.2), [0.1, 0.7], [0.75, 0.9]),
        (IntRange(1, 10, step=3), [1, 4, 7, 10, 4.0], [2, 13, -2, 4.5, True, "4", None]),
        (IntRange(3, 3), [3], [2, 4]),
    ],
)
def test_domains_hold_their_values(domain: Domain, inside: list[Any], outside: list[Any]) -> None:
    parameter = Parameter("p", domain)
    assert all(parameter.contains(value) for value in inside)
    assert not any(parameter.contains(value) for value in outside)


CHOICE, NUMBER = Parameter("a", Choices((1, 2))), Parameter("a", IntRange(0, 9))
DEPENDENT = Parameter("b", IntRange(0, 9), Condition("a", (1,)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Choices(()), "^no choices$"),
        (lambda: Choices((1, 1.0)), "^a choice is listed twice$"),
        (lambda: IntRange(0, 9, log=True), "^log needs low above 0, not 0$"),
        (lambda: FloatRange(2, 1), "above"),
        (lambda: FloatRange(0, 1, log=True), "log needs"),
        (lambda: FloatRange(1, 2, log=True, step=0.1), "^log with a step"),
        (lambda: FloatRange(1, 2, step=-0.1), "the step -0.1 is not above 0"),
        (lambda: FloatRange(0, float("inf")), "finite"),
        (lambda: IntRange(0, 9, step=0), "step"),
        (lambda: Space((Parameter("a", IntRange(0, 1)), Parameter("a", IntRange(0, 1)))), "a occurs twice"),
        (
            lambda: Space((Parameter("a", IntRange(0, 1), Condition("b", (1,))), Parameter("b", IntRange(0, 1)))),
            "no earlier parameter",
        ),
        (
            lambda: Space((Parameter("b", IntRange(0, 1)), Parameter("a", IntRange(0, 1), Condition("b", (2,))))),
            "a depends on b being 2, which it never is",
        ),
        (lambda: sweep_of(PLANE, algorithm=Algorithm("grid")), "^grid needs a step for every range of real numbers$"),
        (
            lambda: sweep_of(FINITE, algorithm=Algorithm("cmaes")),
            "^cmaes needs numbers .*: no choices and no conditions$",
        ),
        (lambda: sweep_of(Space((CHOICE,)), algorithm=Algorithm("cmaes")), "no choices"),
        (lambda: sweep_of(Space((NUMBER, DEPENDENT)), algorithm=Algorithm("cmaes")), "no conditions"),
        (
            lambda: sweep_of(PLANE, algorithm=Algorithm("cmaes"), objectives=(Objective("a"), Objective("b"))),
            "^cmaes needs a single objective$",
        ),
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
    expected: list[dict[str, Any]] = [
        *({"model": "patchcore", "layers": layer, "size": size} for layer, size in itertools.product(layers, sizes)),
        *({"model": "padim", "features": n, "size": size} for n, size in itertools.product((50, 100, 150), sizes)),
        *({"model": "stfpm", "layers": layer, "size": size} for layer, size in itertools.product(layers, sizes)),
    ]
    assert points.count(FINITE) == len(expected)
    assert [points.point_at(FINITE, index) for index in range(len(expected))] == expected
    assert [points.place_of(FINITE, point) for point in expected] == list(range(len(expected)))
    with pytest.raises(IndexError):
        points.point_at(FINITE, len(expected))


@pytest.mark.parametrize(("space", "index"), [(FINITE, -1), (FINITE, 14), (PLANE, 0)])
def test_there_is_no_point_beyond_a_grid(space: Space, index: int) -> None:
    with pytest.raises(IndexError, match=f"no point {index} of"):
        points.point_at(space, index)


FLOATS = FloatRange(-5.0, 5.0)
STEPPED = FloatRange(0.1, 0.75, step=0.2)
LOG = FloatRange(0.01, 1.0, log=True)
INTS = IntRange(0, 9, step=3)
LOG_INTS = IntRange(1, 51, log=True)
LETTERS = Choices(("a", "b", "c", "d"))


@pytest.mark.parametrize(
    ("domain", "value", "coordinate"),
    [
        (FLOATS, 2.5, 0.75),
        (STEPPED, 0.3, 0.375),  # the second of 0.1, 0.3, 0.5, 0.7
        (LOG, 0.1, 0.5),
        (INTS, 6, 0.625),  # the third of 0, 3, 6, 9
        (LOG_INTS, 3, math.log(3 / 0.5) / math.log(51.5 / 0.5)),  # from 0.5 to 51.5
        (LETTERS, "c", 0.625),
        (FloatRange(2.0, 2.0, log=True), 2.0, 0.5),
        (IntRange(3, 3, log=True), 3, 0.5),
        (Choices(("a",)), "a", 0.5),
    ],
)
def test_each_value_has_its_place_in_the_unit_interval(domain: Domain, value: Any, coordinate: float) -> None:
    assert points.to_unit(domain, value) == pytest.approx(coordinate, abs=1e-12)
    back = points.from_unit(Space((Parameter("p", domain),)), [coordinate])["p"]
    assert back == (pytest.approx(value) if isinstance(value, float) else value)


@pytest.mark.parametrize(
    ("domain", "lowest", "highest"),
    [
        (FLOATS, -5.0, 5.0),
        (STEPPED, 0.1, 0.7),
        (LOG, 0.01, 1.0),
        (INTS, 0, 9),
        (LOG_INTS, 1, 51),
        (LETTERS, "a", "d"),
    ],
)
def test_the_ends_of_the_unit_interval_are_within_the_domain(domain: Domain, lowest: Any, highest: Any) -> None:
    """Where the interval has half a step more at each end: 0.5 is 0, and 51.5 is 52, if rounded."""
    space = Space((Parameter("p", domain),))
    found = [points.from_unit(space, [end])["p"] for end in (0.0, 1.0)]
    assert found == [pytest.approx(end) if isinstance(end, float) else end for end in (lowest, highest)]


def test_given_values_are_kept_where_they_exist() -> None:
    given = {"features": 150, "size": {"height": 384}}
    assert points.from_unit(FINITE, [0.5, 0.0, 0.0, 0.0], given) == {"model": "padim"} | given
    assert points.from_unit(FINITE, [0.0, 0.9, 0.0, 0.0], given) == {
        "model": "patchcore",
        "layers": ["a", "b"],
        "size": {"height": 384},
    }


def test_two_points_share_a_key_only_if_they_are_the_same() -> None:
    padim = {"model": "padim", "features": 100.0, "size": {"height": 384}}
    assert FINITE.key(padim) == FINITE.key(padim | {"layers": ["a"], "features": 100}) == (1, None, 1, 1)
    assert FINITE.key({"model": "padim", "features": 100}) is None
    assert PLANE.key({"x": 0.5, "y": 0}) == (0.5, 0.0)


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
