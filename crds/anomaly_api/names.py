"""Conversion between names in manifests (camelCase) and in Python (snake_case).

A single word is the same in both, also one with a digit, such as l2bt.
"""

from pydantic.alias_generators import to_camel, to_snake


def camel(field: str) -> str:
    """Return the name in manifests of a Python field."""
    return to_camel(field) if "_" in field else field


def snake(name: str) -> str:
    """Return the Python field that a name in a manifest selects."""
    return name if name.islower() else to_snake(name)
