"""Cross-field rules: each one a CEL expression for the API server and the same predicate in Python.

A rule is made by a small factory, so that both forms have one source. Tests apply the
same bad manifests to the API server and to pydantic and expect both to refuse.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar, overload

from anomaly_api.names import camel

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


@dataclass(frozen=True)
class Rule:
    """One constraint over the fields of an object.

    ``field`` is the (camelCase) field that the error points at; ``holds`` is None for what only the API server checks:
    transition rules, which need the old object, and fields that clusters alone cannot act on yet.
    """

    cel: str
    message: str
    field: str | None = None
    holds: Callable[[Any], bool] | None = None

    def located_message(self) -> str:
        """Return the message as a run without a cluster shows it, preceded by the field at fault."""
        return f"{self.field}: {self.message}" if self.field else self.message

    def to_crd(self) -> dict[str, str]:
        """Return the rule as an entry of ``x-kubernetes-validations``."""
        entry = {"rule": self.cel, "message": self.message, "reason": "FieldValueInvalid"}
        return entry | ({"fieldPath": f".{self.field}"} if self.field else {})


@dataclass(frozen=True)
class SchemaRule:
    """One constraint over values of any type, which CEL cannot see: in the CRD it is a part of the schema.

    The API server's refusal names the part of the schema that does not fit, not ``message``.
    """

    schema: dict[str, Any]
    """What the owner must also fit: JSON Schema, of which a CRD allows here only what restricts values (``anyOf``,
    ``not``, ``required``, ``enum``, and ``properties`` and ``items`` that lead to those)."""
    message: str
    holds: Callable[[Any], bool]
    field: str | None = None

    def located_message(self) -> str:
        """Return the message as a run without a cluster shows it, preceded by the field at fault."""
        return f"{self.field}: {self.message}" if self.field else self.message


def _is_set(owner: Any, field: str) -> bool:
    return getattr(owner, field) is not None


def exactly_one(*fields: str) -> Rule:
    """Require that exactly one of the fields is set."""
    names = [camel(field) for field in fields]
    count = " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in names)
    return Rule(
        cel=f"{count} == 1",
        message=f"exactly one of {', '.join(names)} must be set",
        holds=lambda owner: sum(_is_set(owner, field) for field in fields) == 1,
    )


@overload
def first_set(a: A | None, b: B | None, /) -> A | B: ...
@overload
def first_set(a: A | None, b: B | None, c: C | None, /) -> A | B | C: ...
def first_set(*values: Any) -> Any:
    """Return the first value that is not None, for fields of which a rule requires one."""
    return next(value for value in values if value is not None)


def at_most_one(field: str, other: str) -> Rule:
    """Forbid that both of the fields are set."""
    name, excluded = camel(field), camel(other)
    return Rule(
        cel=f"!has(self.{name}) || !has(self.{excluded})",
        message=f"at most one of {name}, {excluded} may be set",
        holds=lambda owner: not (_is_set(owner, field) and _is_set(owner, other)),
    )


def required_when(field: str, discriminator: str, value: str) -> Rule:
    """Require the field when the discriminator has this value."""
    name, by = camel(field), camel(discriminator)
    return Rule(
        cel=f"self.{by} != '{value}' || has(self.{name})",
        message=f"{name} is required when {by} is {value}",
        holds=lambda owner: getattr(owner, discriminator) != value or _is_set(owner, field),
    )


def only_when(field: str, discriminator: str, *values: str) -> Rule:
    """Allow the field only when the discriminator has one of these values."""
    name, by = camel(field), camel(discriminator)
    return Rule(
        cel=f"!has(self.{name}) || self.{by} in [{', '.join(repr(value) for value in values)}]",
        message=f"{name} may be set only when {by} is {' or '.join(values)}",
        field=name,
        holds=lambda owner: not _is_set(owner, field) or getattr(owner, discriminator) in values,
    )


def only_with(field: str, other: str) -> Rule:
    """Allow the field only together with another one."""
    name, needed = camel(field), camel(other)
    return Rule(
        cel=f"!has(self.{name}) || has(self.{needed})",
        message=f"{name} may be set only together with {needed}",
        field=name,
        holds=lambda owner: not _is_set(owner, field) or _is_set(owner, other),
    )


def at_most(field: str, other: str) -> Rule:
    """Require that the field's value does not exceed another field's."""
    name, bound = camel(field), camel(other)
    return Rule(
        cel=f"self.{name} <= self.{bound}",
        message=f"{name} may be at most {bound}",
        field=name,
        holds=lambda owner: bool(getattr(owner, field) <= getattr(owner, other)),
    )


def not_yet(field: str) -> Rule:
    """Refuse a field that belongs to the API but that this version cannot act on."""
    name = camel(field)
    return Rule(
        cel=f"!has(self.{name})",
        message=f"{name} is not supported by this version of anomaly-operator; remove it",
        field=name,
        holds=lambda owner: not _is_set(owner, field),
    )


def unset_when(block: str, field: str, discriminator: tuple[str, str], values: tuple[str, ...], why: str) -> Rule:
    """Forbid ``<block>.<field>`` when ``<discriminator block>.<field>`` has one of these values."""
    path, other = f"{camel(block)}.{camel(field)}", _other(discriminator, values)
    return Rule(
        cel=f"!has(self.{path}) || {other.cel}",
        message=f"{camel(field)} cannot be set for this model: {why}",
        field=path,
        holds=lambda owner: not _is_set(getattr(owner, block), field) or other.holds(owner),
    )


def default_when(field: str, default: Any, discriminator: tuple[str, str], values: tuple[str, ...], why: str) -> Rule:
    """Require the default of ``<field>``, a path, when ``<discriminator block>.<field>`` has one of these values."""
    path, other = ".".join(map(camel, field.split("."))), _other(discriminator, values)
    return Rule(
        cel=f"self.{path} == {json.dumps(default)} || {other.cel}",
        message=f"{path.rpartition('.')[2]} cannot be set for this model: {why}",
        field=path,
        holds=lambda owner: attrgetter(field)(owner) == default or other.holds(owner),
    )


@dataclass(frozen=True)
class _Condition:
    """A part of a rule, in both forms."""

    cel: str
    holds: Callable[[Any], bool]


def _other(discriminator: tuple[str, str], values: tuple[str, ...]) -> _Condition:
    """Return the condition that ``<discriminator block>.<field>`` has none of these values."""
    by, listed = ".".join(map(camel, discriminator)), ", ".join(repr(value) for value in values)
    return _Condition(
        cel=f"!(self.{by} in [{listed}])",
        holds=lambda owner: attrgetter(".".join(discriminator))(owner) not in values,
    )


def immutable_once_started(block: str, *, of_lists: tuple[str, ...] = (), fields: tuple[str, ...] = ()) -> Rule:
    """Forbid changes of ``spec.<block>`` while the run is at work (the API server compares old and new).

    The run is at work from its first pod until it is over, except while it is suspended.

    Args:
        block: the block.
        fields: if given, the fields of the block that may not change, while others may.
        of_lists: further fields, each ``LIST.FIELD``: that field of every item of a list.
    """
    name = camel(block)
    here, before = f"self.spec.{name}", f"oldSelf.spec.{name}"
    same = " && ".join(
        [_same(here, before, camel(field)) for field in fields]
        + [_same_in_list(here, before, *path.split(".")) for path in of_lists]
    )
    unchanged = f"has({here}) == has({before}) && (!has({here}) || ({same or f'{here} == {before}'}))"
    rests = "has(oldSelf.status.phase) && oldSelf.status.phase in ['Complete', 'Failed', 'Suspended']"
    return Rule(
        cel=f"!has(oldSelf.status) || !has(oldSelf.status.startTime) || ({rests}) || ({unchanged})",
        message=f"spec.{name} cannot change while the run is at work: wait for its end, or suspend it "
        "(runPolicy.suspend) and change it then; it runs again from the beginning",
        field=f"spec.{name}",
    )


def _same(here: str, before: str, field: str) -> str:
    ours, theirs = f"{here}.{field}", f"{before}.{field}"
    return f"has({ours}) == has({theirs}) && (!has({ours}) || {ours} == {theirs})"


def _same_in_list(here: str, before: str, items: str, field: str) -> str:
    ours, theirs = f"{here}.{items}", f"{before}.{items}"
    fields = f"one, has(one.{field}) ? [one.{field}] : []"
    return f"{ours}.map({fields}) == {theirs}.map({fields})"
