"""Write the part of Argo CD's ConfigMap that has the Lua files of ``manifests/argocd``, and the chart's copy of it.

Argo CD reads ``argocd-cm``: a key for the health of each kind, and one for its actions, a YAML document
(https://argo-cd.readthedocs.io/en/stable/operator-manual/resource_actions/).
"""

import shutil
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "manifests" / "argocd"
CUSTOMIZATIONS = FOLDER / "resource_customizations"
WRITTEN = FOLDER / "argocd-cm.yaml"
COPY = ROOT / "helm" / "anomaly-operator" / "files" / "argocd-cm.yaml"


class _Dumper(yaml.SafeDumper):
    """A dumper that keeps scripts readable."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def _dump(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=120)


def config_map() -> dict[str, Any]:
    """Return the ConfigMap, with the keys of this project's kinds alone."""
    data = {}
    for kind in sorted(CUSTOMIZATIONS.glob("*/*")):
        name = f"{kind.parent.name}_{kind.name}"
        data[f"resource.customizations.health.{name}"] = (kind / "health.lua").read_text()
        data[f"resource.customizations.actions.{name}"] = _dump(_actions(kind / "actions"))
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm"}, "data": data}


def _actions(folder: Path) -> dict[str, Any]:
    scripts = sorted(folder.glob("*/action.lua"))
    return {
        "discovery.lua": (folder / "discovery.lua").read_text(),
        "definitions": [{"name": path.parent.name, "action.lua": path.read_text()} for path in scripts],
    }


def main() -> None:
    """Write the ConfigMap and its copy."""
    header = "# Generated from manifests/argocd/resource_customizations by `make generate`; do not edit.\n"
    WRITTEN.write_text(header + _dump(config_map()))
    COPY.parent.mkdir(exist_ok=True)
    shutil.copyfile(WRITTEN, COPY)


if __name__ == "__main__":
    main()
