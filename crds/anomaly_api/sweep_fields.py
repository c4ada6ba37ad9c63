"""The fields of an experiment's spec by path, from its types."""

from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.sweep_space import SEARCHABLE

_ALIKE = 0.6
"""Similarity (difflib's ratio) from which a path is offered for an unknown one."""


def unknown_field(path: str) -> str | None:
    """Return why a path leads to no field of the spec, with the nearest ones that exist; None if it leads to one."""
    kind: Any = ExperimentSpec
    for step in path.split("."):
        if get_origin(kind) is dict:
            kind = _bare(get_args(kind)[1])  # any key may follow
            continue
        if step not in (fields := _fields(kind)):
            return f"{path} is no field of the spec{offer(path, searchable_paths())}"
        kind = fields[step]
    return None


def offer(path: str, known: tuple[str, ...]) -> str:
    """Return a question that names the known paths most like an unknown one; nothing if none is."""
    near = get_close_matches(path, known, n=3, cutoff=_ALIKE)
    return f"; did you mean {' or '.join(near)}?" if near else ""


@cache
def searchable_paths() -> tuple[str, ...]:
    """Return the path of every field that a sweep may set."""
    return tuple(path for path in _paths(ExperimentSpec, "") if path.startswith(SEARCHABLE))


def _paths(kind: Any, prefix: str) -> Iterator[str]:
    for name, inner in _fields(kind).items():
        yield f"{prefix}{name}"
        yield from _paths(inner, f"{prefix}{name}.")


def _fields(kind: Any) -> dict[str, Any]:
    """Return the types of an object's fields by their names in manifests; nothing for what is no object."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return {}
    return {field.alias or name: _bare(field.annotation) for name, field in kind.model_fields.items()}


def _bare(annotation: Any) -> Any:
    """Return a type without its bounds, and without None."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    options = [option for option in get_args(annotation) if option is not NoneType]
    return _bare(options[0]) if NoneType in get_args(annotation) and len(options) == 1 else annotation
