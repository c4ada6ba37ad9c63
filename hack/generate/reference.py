"""Write docs/reference.md: every field of both kinds, from the CRDs, so that it cannot drift from them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference.md"
HEADER = """<!-- Generated from crds/*.yaml by `make generate`; do not edit. -->
# Fields

The same text as `kubectl explain aexp.spec`, on one page. **Required** fields are bold; *not supported yet* marks
fields that are part of the API and refused by this version.
"""


def rows(schema: dict[str, Any], path: str) -> Iterator[str]:
    """Yield a table row for each field below an object, depth first."""
    required = set(schema.get("required", ()))
    refused = {
        rule.get("fieldPath", "").removeprefix(".")
        for rule in schema.get("x-kubernetes-validations", ())
        if "is not supported by this version" in rule["message"]
    }
    for name, field in schema.get("properties", {}).items():
        where = f"{path}.{name}" if path else name
        label = f"**`{where}`**" if name in required else f"`{where}`"
        note = "*Not supported yet.* " if name in refused else ""
        yield f"| {label} | {kind_of(field)} | {shown_default(field)} | {note}{field.get('description', '')} |"
        if name not in refused:
            yield from rows(field, where)
            yield from rows(field.get("items", {}), f"{where}[]")


def kind_of(field: dict[str, Any]) -> str:
    """Return the type of a field with its bounds or its values."""
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    low, high = field.get("minimum"), field.get("maximum")
    bounds = f" {'' if low is None else low}..{'' if high is None else high}" if (low, high) != (None, None) else ""
    return f"{field.get('type', 'any')}{bounds}"


def shown_default(field: dict[str, Any]) -> str:
    """Return the default of a plain field; defaults of objects follow from their fields."""
    default = field.get("default")
    return "" if default is None or isinstance(default, dict) else f"`{default}`"


def section(path: Path) -> str:
    """Return the tables of one CRD."""
    crd = yaml.safe_load(path.read_text())["spec"]
    schema = crd["versions"][0]["schema"]["openAPIV3Schema"]
    head = "| Field | Type | Default | |\n|---|---|---|---|\n"
    parts = [f"\n## {crd['names']['kind']} (`{crd['names']['shortNames'][0]}`)\n{schema['description']}\n"]
    for part in ("spec", "status"):
        parts.append(f"\n### {part}\n{head}" + "\n".join(rows(schema["properties"][part], "")) + "\n")
    return "".join(parts)


def main() -> None:
    """Write the page."""
    REFERENCE.write_text(HEADER + "".join(section(path) for path in sorted((ROOT / "crds").glob("*.yaml"))))


if __name__ == "__main__":
    main()
