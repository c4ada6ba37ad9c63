"""The version of a release, which several files have to agree on, and its section of the changelog."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from anomaly_api import RELEASE

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "anomaly-operator"
DEPLOYMENT = ROOT / "manifests" / "base" / "deployment.yaml"
IMAGE = re.compile(r"anomaly-(?:operator|runner|inference):(\S+)")
"""The images' default names and tags in the chart and the base manifests."""


def disagreements() -> Iterator[str]:
    """Yield every place that names another version than ``anomaly_api.RELEASE``."""
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    found = [("Chart.yaml: version", about["version"]), ("Chart.yaml: appVersion", about["appVersion"])]
    for path in (CHART / "values.yaml", DEPLOYMENT):
        found += [(f"{path.name}: {match[0]}", match[1]) for match in IMAGE.finditer(path.read_text())]
    for where, version in found:
        if str(version) != RELEASE:
            yield f"{where} is not of version {RELEASE}"


def unready(tag: str) -> Iterator[str]:
    """Yield what is missing for a release under this tag."""
    if tag != f"v{RELEASE}":
        yield f"the tag is {tag}, but anomaly_api.RELEASE is {RELEASE}"
    if not notes():
        yield f"CHANGELOG.md has nothing under [{RELEASE}]"


def notes() -> str:
    """Return the changelog's section about this version; empty if there is none."""
    text = (ROOT / "CHANGELOG.md").read_text()
    section = re.search(rf"^## \[{re.escape(RELEASE)}\].*?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return section[1].strip() if section else ""
