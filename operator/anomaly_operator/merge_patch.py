"""JSON merge patches (RFC 7396): the smallest that turns one object into another. Pure."""

from typing import Any


def merge_patch(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What to PATCH so that ``old`` becomes ``new``; empty when they are the same."""
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        if name not in old:
            patch[name] = value
        elif isinstance(value, dict) and isinstance(old[name], dict):
            if inner := merge_patch(old[name], value):
                patch[name] = inner
        elif value != old[name]:
            patch[name] = value
    return patch
