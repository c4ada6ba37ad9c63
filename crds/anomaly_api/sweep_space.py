"""The space of a sweep: which fields of the spec are searched, over which values."""

import json
from decimal import Decimal
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from anomaly_api.base import Contract
from anomaly_api.rules import Rule, SchemaRule

SpecPath = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[a-z][A-Za-z0-9]*(\.[a-z][A-Za-z0-9]*)*$")]
"""A field of the spec, as in manifests: model.padim.nFeatures."""

Value = Annotated[Any, WithJsonSchema({"x-kubernetes-preserve-unknown-fields": True, "nullable": True})]
"""A value of a field, of any type of JSON: a scalar, a list, an object; null leaves the field unset.

The API server's rules cannot see such a value: those that are about values are in ``sweep_check``.
"""
Values = Annotated[tuple[Value, ...], Field(min_length=1, max_length=64)]

SEARCHABLE = (
    "dataset.",
    "transforms.",
    "model.",
    "training.",
    "evaluation.",
    "export.",
    "scheduling.gpus.",
    "scheduling.resources.",
)
"""Beginnings of the paths that a sweep may set; the rest says where and how to run, which is not its to change."""

WHOLE = 2**53
"""Whole numbers up to this survive every reader of JSON."""


def searchable() -> Rule:
    """Require that the owner's ``path`` is one that a sweep may set."""
    blocks = ", ".join(repr(block) for block in SEARCHABLE)
    return Rule(
        cel=f"[{blocks}].exists(block, self.path.startsWith(block))",
        message="a sweep may set fields of dataset, transforms, model, training, evaluation, export, scheduling.gpus "
        "and scheduling.resources",
        field="path",
        holds=lambda owner: owner.path.startswith(SEARCHABLE),
    )


def leads_into(path: str, other: str) -> bool:
    """Return whether ``path`` is ``other``, or a field below it."""
    return f"{path}.".startswith(f"{other}.")


def canonical(value: Any) -> str:
    """Return one text for all ways to write a value: 1.0 is 1 in JSON, but true is no 1."""
    return json.dumps(normal(value), sort_keys=True)


def normal(value: Any) -> Any:
    """Return a copy of a value with whole numbers as such: fields of whole numbers take no 3.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [normal(item) for item in value]
    if isinstance(value, dict):
        return {key: normal(item) for key, item in value.items()}
    return value


def after_steps(low: float, step: float, count: int) -> float:
    """Return the value after a number of steps, as people write it: 0.3 is two steps of 0.1 from 0.1."""
    return float(Decimal(str(low)) + count * Decimal(str(step)))


LOW_BELOW_HIGH = Rule(
    cel="self.low < self.high",
    message="low must be less than high",
    field="low",
    holds=lambda owner: owner.low < owner.high,
)
POSITIVE_IF_LOG = Rule(
    cel="!self.log || self.low > 0",
    message="low must be greater than 0 on a logarithmic scale",
    field="low",
    holds=lambda owner: not owner.log or owner.low > 0,
)


class FloatRange(Contract):
    """An interval of real numbers, both ends included."""

    rules = (
        LOW_BELOW_HIGH,
        POSITIVE_IF_LOG,
        Rule(
            cel="!self.log || !has(self.step)",
            message="step cannot be set on a logarithmic scale",
            field="step",
            holds=lambda owner: not owner.log or owner.step is None,
        ),
    )

    low: float
    """Smallest value."""
    high: float
    """Largest value."""
    log: bool = False
    """Draw on a logarithmic scale."""
    step: Annotated[float, Field(gt=0)] | None = None
    """Distance between values, counted from low; unset means every value, which algorithm grid cannot list."""


class IntRange(Contract):
    """An interval of whole numbers, both ends included."""

    rules = (
        LOW_BELOW_HIGH,
        POSITIVE_IF_LOG,
        Rule(
            cel="!self.log || self.step == 1",
            message="step cannot be set on a logarithmic scale",
            field="step",
            holds=lambda owner: not owner.log or owner.step == 1,
        ),
        Rule(
            cel="self.step <= self.high - self.low",
            message="step may be at most high - low",
            field="step",
            holds=lambda owner: owner.step <= owner.high - owner.low,
        ),
    )

    low: Annotated[int, Field(ge=-WHOLE, le=WHOLE)]
    """Smallest value."""
    high: Annotated[int, Field(ge=-WHOLE, le=WHOLE)]
    """Largest value."""
    log: bool = False
    """Draw on a logarithmic scale."""
    step: Annotated[int, Field(ge=1, le=WHOLE)] = 1
    """Distance between values, counted from low."""


class When(Contract):
    """A condition: another parameter has one of these values."""

    path: SpecPath
    """Path of a parameter that is listed earlier."""
    values: Values = Field(alias="in")
    """Values of that parameter for which this one is searched; otherwise its field stays as the spec has it."""


class SearchParameter(Contract):
    """One dimension of the search space: a field, and exactly one of choices, float, int."""

    rules = (
        searchable(),
        # choices has values of any type, so that rules in CEL cannot see it.
        SchemaRule(
            schema={"oneOf": [{"required": ["choices"]}, {"required": ["float"]}, {"required": ["int"]}]},
            message="exactly one of choices, float, int must be set",
            holds=lambda owner: sum(space is not None for space in (owner.choices, owner.float, owner.int)) == 1,
        ),
    )

    path: SpecPath
    """Field of the spec, such as model.padim.nFeatures."""
    choices: Values | None = None
    """A list of values, of any type that the field has."""
    float: FloatRange | None = None
    """Real numbers."""
    int: IntRange | None = None
    """Whole numbers."""
    when: When | None = None
    """Search it only where an earlier parameter has certain values; unset means always."""
