"""Random manifests near the boundary of what a CRD's schema accepts.

A valid sample is changed in a few random places: to values that fit the schema, to its bounds and just beyond, and to
values of other types that a lenient reader would convert.
"""

import copy
import random
from collections.abc import Sequence
from typing import Any

Schema = dict[str, Any]
Manifest = dict[str, Any]

_FOREIGN: tuple[Any, ...] = ("true", "3", "1.5", "yes", "", True, False, 0, 1, 2.5, None, [], {}, ["a"], {"a": 1})
"""Values of every type of JSON, such as lenient readers would take for another type."""
_TEXTS = (
    "a",
    "A b",
    "x" * 300,
    "s3://bucket/folder",
    "s3://Bad_Bucket",
    "http://host:9000",
    "https://",
    "sha256:" + "0" * 64,
    "../up",
    "/root",
    "sub/folder",
    "8Gi",
    "500m",
    "1.5.2",
    "2026-11-28",
)
"""Texts that fit some field's pattern."""
_MAX_CHANGES = 2
_STRANGE = 0.1
"""Share of values whose type is not the schema's."""


def random_manifest(valid: Manifest, schema: Schema, chance: random.Random) -> Manifest:
    """A copy of a valid manifest with one or two random changes of its spec.

    Args:
        valid: the manifest.
        schema: the OpenAPI schema of its spec.
        chance: decides.
    """
    manifest = copy.deepcopy(valid)
    for _ in range(chance.randint(1, _MAX_CHANGES)):
        _change(manifest["spec"], schema, chance)
    return manifest


def _change(owner: dict[str, Any], schema: Schema, chance: random.Random) -> None:
    """Change one field of an object, or of an object within it."""
    fields = schema.get("properties", {})
    if not fields or chance.random() < 0.03:
        owner["notAField"] = chance.choice(_FOREIGN)
        return
    name = chance.choice(sorted(fields))
    inner = owner.get(name)
    if isinstance(inner, dict) and chance.random() < 0.85:
        _change(inner, fields[name], chance)
    elif name in owner and chance.random() < 0.1:
        del owner[name]
    else:
        owner[name] = _value(fields[name], chance)


def _value(schema: Schema, chance: random.Random) -> Any:
    """A value for a field, sometimes of another type than the field's."""
    if chance.random() < _STRANGE:
        return copy.deepcopy(chance.choice(_FOREIGN))
    makers = {"integer": _number, "number": _number, "boolean": _boolean, "array": _array, "object": _object}
    make = _choice if "enum" in schema else makers.get(schema.get("type", ""), _text)
    return make(schema, chance)


def _choice(schema: Schema, chance: random.Random) -> Any:
    return chance.choice([*schema["enum"] * 3, "nope", str(schema["enum"][0]).upper()])


def _text(schema: Schema, chance: random.Random) -> Any:
    return chance.choice((*_TEXTS, *("a", schema.get("default", "b")) * 4))


def _boolean(schema: Schema, chance: random.Random) -> bool:
    return chance.choice((True, False))


def _number(schema: Schema, chance: random.Random) -> float:
    low, high = schema.get("minimum", 0), schema.get("maximum", 10)
    whole = schema["type"] == "integer"
    between = chance.randint(int(low), int(max(low, high))) if whole else chance.uniform(low, high)
    values: Sequence[float] = (low, high, between, between, between, low - 1, high + 1, float(int(low)), low + 0.5)
    return chance.choice(values)


def _array(schema: Schema, chance: random.Random) -> list[Any]:
    most = schema.get("maxItems", 3)
    length = chance.choice((0, 1, 1, 2, min(most, 10), min(most + 1, 70)))
    return [_value(schema["items"], chance) for _ in range(length)]


def _object(schema: Schema, chance: random.Random) -> dict[str, Any]:
    if "properties" not in schema:
        inner = schema.get("additionalProperties")
        return {"key": _value(inner, chance)} if isinstance(inner, dict) else {"any": {"thing": 1}}
    required = schema.get("required", [])
    wanted = [name for name in sorted(schema["properties"]) if name in required or chance.random() < 0.3]
    return {name: _value(schema["properties"][name], chance) for name in wanted}
