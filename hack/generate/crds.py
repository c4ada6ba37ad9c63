"""Write the CRDs from the pydantic types: ``crds/*.yaml``, and the copies that manifests/ and helm/ install.

A CRD needs a *structural* schema (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/
custom-resource-definitions/#specifying-a-structural-schema): no references, no unions, every object closed.
pydantic's JSON Schema is converted to that form here, never by hand.
"""

import shutil
from pathlib import Path
from typing import Any

import yaml

from anomaly_api import GROUP, VERSION
from anomaly_api.experiment import AnomalyExperiment
from anomaly_api.inference import AnomalyInference

ROOT = Path(__file__).resolve().parents[2]
CRD_DIR = ROOT / "crds"
COPIES = (ROOT / "manifests" / "base" / "crds", ROOT / "helm" / "anomaly-operator" / "crds")

Schema = dict[str, Any]
Kind = type[AnomalyExperiment] | type[AnomalyInference]

MODEL_COLUMN = {
    AnomalyExperiment: {"name": "Model", "type": "string", "jsonPath": ".spec.model.name"},
    AnomalyInference: {"name": "Model", "type": "string", "jsonPath": ".spec.model.experiment"},
}
TRIAL_COLUMNS = (
    {
        "name": "Trial",
        "type": "integer",
        "jsonPath": ".spec.trial.number",
        "description": "Number of the trial in its sweep",
        "priority": 1,
    },
    {
        "name": "Rung",
        "type": "integer",
        "jsonPath": ".spec.trial.rung",
        "description": "Fidelity at which it runs, from 0",
        "priority": 1,
    },
    {
        "name": "Objective",
        "type": "string",
        "jsonPath": ".status.display.objective",
        "description": "Value of the sweep's first objective",
        "priority": 1,
    },
)
RUN_COLUMN = {
    "name": "Run",
    "type": "integer",
    "jsonPath": ".status.run",
    "description": "Number of the run: a spec that is changed once its run is over runs again",
    "priority": 1,
}
COLUMNS = (
    {
        "name": "AUROC",
        "type": "string",
        "jsonPath": ".status.display.auroc",
        "description": "Area under the ROC curve of image scores",
    },
    {
        "name": "F1",
        "type": "string",
        "jsonPath": ".status.display.f1",
        "description": "F1 of image decisions at the threshold",
    },
    {"name": "Progress", "type": "string", "jsonPath": ".status.display.progress"},
    RUN_COLUMN,
    {"name": "Device", "type": "string", "jsonPath": ".status.device.name", "priority": 1},
    {"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.status=='True')].reason", "priority": 1},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
)


def crd(kind: Kind) -> dict[str, Any]:
    """Return the CustomResourceDefinition of one kind."""
    singular = kind.kind_name.lower()
    trial = TRIAL_COLUMNS if kind is AnomalyExperiment else ()
    columns = [{"name": "Phase", "type": "string", "jsonPath": ".status.phase"}, MODEL_COLUMN[kind], *trial, *COLUMNS]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.kind_name,
                "listKind": f"{kind.kind_name}List",
                "plural": kind.plural,
                "singular": singular,
                "shortNames": [kind.short_name],
                "categories": ["anomaly"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": resource_schema(kind)},
                }
            ],
        },
    }


_UNSEEN_STATUS = {"observedGeneration": -1}
"""Status of an object that the operator has not seen yet: without one, kstatus would call it Current, that is done."""


def resource_schema(kind: Kind) -> Schema:
    """Return the schema of the whole object: the API server owns metadata, this project spec and status."""
    document = kind.model_json_schema(by_alias=True, mode="validation")
    definitions = document.pop("$defs")
    fields = document["properties"]
    return {
        "type": "object",
        "description": kind.__doc__,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(fields["spec"], definitions),
            "status": structural(fields["status"], definitions) | {"default": _UNSEEN_STATUS},
        },
        "x-kubernetes-validations": [rule.to_crd() for rule in kind.crd_rules],
    }


def structural(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """Return the schema without references, nulls, titles and constants."""
    schema = _resolved(_without_null(schema), definitions)
    kept = {key: value for key, value in schema.items() if key not in ("title", "additionalProperties", "const")}
    if "description" in kept:
        kept["description"] = " ".join(kept["description"].split())
    if "const" in schema:
        kept["enum"] = [schema["const"]]
    for bound in ("Minimum", "Maximum"):
        if f"exclusive{bound}" in schema:  # a number in JSON Schema, a flag beside the bound in a CRD
            kept[bound.lower()], kept[f"exclusive{bound}"] = schema[f"exclusive{bound}"], True
    if isinstance(values := schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = structural(values, definitions)
    if "items" in schema:
        kept["items"] = structural(schema["items"], definitions)
    if "properties" in schema:
        kept["properties"] = {name: structural(field, definitions) for name, field in schema["properties"].items()}
    return _with_structural_default(kept)


def _resolved(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    if "$ref" not in schema:
        return schema
    target = definitions[schema["$ref"].rsplit("/", 1)[-1]]
    return _resolved(target, definitions) | {key: value for key, value in schema.items() if key != "$ref"}


def _without_null(schema: Schema) -> Schema:
    """Replace ``anyOf: [X, null]``, pydantic's form of optional, by X: in Kubernetes the field is left out instead."""
    options: list[Schema] = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) != 1:
        return schema
    return options[0] | {key: value for key, value in schema.items() if key != "anyOf"}


def _with_structural_default(schema: Schema) -> Schema:
    """Drop a null default, and keep an object's default without its null fields: rules are evaluated on it."""
    default = _without_unset(schema.pop("default", None))
    return schema if default is None else schema | {"default": default}


def _without_unset(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_unset(item) for key, item in value.items() if item is not None}
    return value


class _Dumper(yaml.SafeDumper):
    """A dumper without aliases, which Kubernetes YAML does not use."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def render(kind: Kind) -> str:
    """Return the CRD as YAML text."""
    header = "# Generated from crds/anomaly_api by `make generate`; do not edit.\n"
    return header + yaml.dump(crd(kind), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def main() -> None:
    """Write both CRDs and their copies."""
    for kind in (AnomalyExperiment, AnomalyInference):
        written = CRD_DIR / f"{kind.plural}.yaml"
        written.write_text(render(kind))
        for folder in COPIES:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(written, folder / written.name)


if __name__ == "__main__":
    main()
