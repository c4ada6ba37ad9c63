"""The base of all types of the API: frozen, camelCase, no unknown fields, rules checked here and by the API server."""

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from anomaly_api.names import camel
from anomaly_api.rules import Rule, SchemaRule


class Contract(BaseModel):
    """A frozen object that refuses unknown fields and reads and writes camelCase.

    ``rules`` are cross-field constraints. They are enforced here, for runs without a cluster, and by the
    API server as CEL (``x-kubernetes-validations``) or as a part of the schema, for everything that is applied.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
        ser_json_inf_nan="null",
    )
    rules: ClassVar[tuple[Rule | SchemaRule, ...]] = ()

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        for rule in self.rules:
            if rule.holds is not None and not rule.holds(self):
                raise PydanticCustomError("rule", "{message}", {"message": rule.located_message()})
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        if validations := [rule.to_crd() for rule in cls.rules if isinstance(rule, Rule)]:
            schema["x-kubernetes-validations"] = validations
        if parts := [rule.schema for rule in cls.rules if isinstance(rule, SchemaRule)]:
            schema["allOf"] = parts
        return schema

    def to_json_object(self) -> dict[str, Any]:
        """Return the object as in a manifest: camelCase, without unset fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
