"""What both kinds share: the metadata of a Kubernetes object, and the description of an invalid manifest."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from anomaly_api.primitives import Name


class ObjectMeta(BaseModel):
    """The part of metadata that this project reads; the API server owns the rest."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    name: Name
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    deletion_timestamp: str | None = None
    labels: Annotated[dict[str, str], Field(default_factory=dict)]
    annotations: Annotated[dict[str, str], Field(default_factory=dict)]


def describe_invalid(error: ValidationError, root: str = "spec") -> str:
    """Describe validation errors in one line: each with its field's path in Kubernetes spelling, at most five."""
    faults = [f"{_path(fault['loc'], root)}: {fault['msg']}" for fault in error.errors(include_url=False)]
    more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
    return "; ".join(faults[:5]) + more


def _path(location: tuple[Any, ...], root: str) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return root + "".join(steps)
