"""Read YAML as kubectl reads it, to the values that it would send as JSON.

kubectl reads YAML 1.1 by the rules of go-yaml (sigs.k8s.io/yaml), which differ from those of PyYAML: ``1e3`` is a
number, ``1:30`` and ``2026-11-28`` are texts, ``y`` is true. Keys become texts. One thing is stricter here: a key that
is given twice is refused, where kubectl silently takes the last one.
"""

import math
import re
from typing import Any

import yaml

_BOOLEANS = dict.fromkeys(("y", "yes", "true", "on"), True) | dict.fromkeys(("n", "no", "false", "off"), False)
_NULLS = frozenset(("", "~", "null"))
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INTEGER = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BASES = {"0x": 16, "0b": 2, "0o": 8}
_TAG = "tag:yaml.org,2002:"
_LARGEST_WHOLE = 1e21
"""From here on floats are not written as whole numbers."""
_MAX_VALUES = 100_000
"""Most values of a document with its aliases expanded; the resources of this project have a few hundred."""
_MAX_DEPTH = 100


def read_documents(text: str) -> list[Any]:
    """Read all documents of a file as JSON values; empty ones are left out.

    Raises:
        yaml.YAMLError: it is not YAML, or not such as JSON can express, or a key is given twice.
    """
    documents = yaml.load_all(text, Loader=_KubectlLoader)
    return [_checked(document) for document in documents if document is not None]


def _words(word: str) -> bool:
    """Whether go-yaml knows a word in this spelling: all small, all capital, or with a capital first."""
    return word in (word.lower(), word.upper(), word.capitalize())


def _integer(text: str) -> int | None:
    """The whole number of a plain text, of 64 bits at most; None if it is none."""
    plain = text.replace("_", "")
    if not _INTEGER.fullmatch(plain):
        return None
    digits = plain.lstrip("+-")
    base = _BASES.get(digits[:2].lower(), 8 if digits[0] == "0" else 10)
    value = int(digits[2:] if digits[:2].lower() in _BASES else digits, base) * (-1 if plain[0] == "-" else 1)
    return value if -(2**63) <= value < 2**64 else None


def _number(text: str) -> int | float | None:
    """The number of a plain text, a whole one as an integer; None if it is none."""
    whole = _integer(text)
    plain = text.replace("_", "")
    if whole is not None or not _FLOAT.fullmatch(plain):
        return whole
    value = float(plain)
    if math.isinf(value):
        return None
    return int(value) if value.is_integer() and abs(value) < _LARGEST_WHOLE else value


def _kind(text: str) -> str:
    """The tag of a plain text."""
    if text.lower() in _BOOLEANS and _words(text):
        return "bool"
    if text.lower() in _NULLS and _words(text):
        return "null"
    if text == "<<":
        return "merge"
    if _NOT_FINITE.fullmatch(text):
        return "float"
    return "str" if not text or text[0] not in "+-.0123456789" or _number(text) is None else "int"


class _KubectlLoader(yaml.SafeLoader):
    """A loader with the rules of go-yaml for plain texts and keys."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> Any:
        """The tag of a node without one."""
        if kind is yaml.ScalarNode and implicit[0]:
            return _TAG + _kind(value)
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


def _construct_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    value = _number(str(loader.construct_scalar(node)))
    if value is None:
        raise yaml.constructor.ConstructorError(None, None, f"{node.value} is no finite number", node.start_mark)
    return value


def _construct_boolean(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> bool:
    return _BOOLEANS[str(loader.construct_scalar(node)).lower()]


def _construct_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[str, Any]:
    """A mapping whose keys are texts; merged keys replace those before ``<<`` and give way to those after it."""
    result: dict[str, Any] = {}
    own: set[str] = set()
    for key_node, value_node in node.value:
        if key_node.tag == f"{_TAG}merge":
            result |= _merged(loader, value_node)
            continue
        key = _key(loader.construct_object(key_node, deep=True), key_node)
        if key in own:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key} is given twice", key_node.start_mark)
        own.add(key)
        result[key] = loader.construct_object(value_node, deep=True)
    return result


def _merged(loader: yaml.SafeLoader, node: yaml.Node) -> dict[str, Any]:
    """The keys of ``<<``: those of a mapping, or of a list of mappings, of which the first has precedence."""
    value = loader.construct_object(node, deep=True)
    result: dict[str, Any] = {}
    for mapping in value if isinstance(value, list) else [value]:
        if not isinstance(mapping, dict):
            raise yaml.constructor.ConstructorError(None, None, "<< takes mappings", node.start_mark)
        result = mapping | result
    return result


def _key(value: Any, node: yaml.Node) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise yaml.constructor.ConstructorError(None, None, "a key has to be a text", node.start_mark)


def _refuse(loader: yaml.SafeLoader, node: yaml.Node) -> None:
    raise yaml.constructor.ConstructorError(None, None, f"the tag {node.tag} is none of JSON's", node.start_mark)


for _name in ("int", "float"):
    _KubectlLoader.add_constructor(_TAG + _name, _construct_number)
_KubectlLoader.add_constructor(f"{_TAG}bool", _construct_boolean)
_KubectlLoader.add_constructor(f"{_TAG}map", _construct_mapping)
for _name in ("binary", "set", "omap", "pairs", "timestamp"):
    _KubectlLoader.add_constructor(_TAG + _name, _refuse)


def _checked(document: Any) -> Any:
    """The document, if it is not too large with its aliases expanded, which may contain themselves.

    Raises:
        yaml.YAMLError: it is too large or too deep.
    """
    level, count = [document], 0
    for _ in range(_MAX_DEPTH):
        count += len(level)
        if not level:
            return document
        if count > _MAX_VALUES:
            break
        level = [inner for value in level for inner in _inner(value)]
    raise yaml.YAMLError(f"a document with more than {_MAX_VALUES} values or {_MAX_DEPTH} levels")


def _inner(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
