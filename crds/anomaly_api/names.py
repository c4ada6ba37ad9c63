"""Names in manifests and in Python: camelCase and snake_case. A single word is the same in both, l2bt too."""

from pydantic.alias_generators import to_camel, to_snake


def camel(field: str) -> str:
    """A Python field, as manifests have it."""
    return to_camel(field) if "_" in field else field


def snake(name: str) -> str:
    """A name in a manifest, as the Python field that it selects."""
    return name if name.islower() else to_snake(name)
