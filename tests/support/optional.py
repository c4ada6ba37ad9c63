"""Optional values that a test knows to be there."""

from typing import TypeVar

Value = TypeVar("Value")


def not_none(value: Value | None) -> Value:
    """The value itself; the test fails where it is None."""
    assert value is not None
    return value
