"""Optional values that a test expects to be set."""

from typing import TypeVar

Value = TypeVar("Value")


def not_none(value: Value | None) -> Value:
    """Return the value; the test fails if it is None."""
    assert value is not None
    return value
