"""The chart of a release: helm/anomaly-operator, with the images that were pushed as its defaults."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from anomaly_api import RELEASE
from hack.release.version import CHART

FIELDS = {
    "ANOMALY_OPERATOR_IMAGE": ("image", "anomaly-operator"),
    "ANOMALY_RUNNER_IMAGE": ("runnerImage", "anomaly-runner"),
    "ANOMALY_INFERENCE_IMAGE": ("inferenceImage", "anomaly-inference"),
}
"""Environment variable that names an image -> its field in values.yaml, and its default name there."""


def package(folder: Path, helm: Path, environment: Mapping[str, str]) -> Path:
    """Package the chart, and return its path; images that the environment does not name keep their defaults."""
    folder.mkdir(exist_ok=True)
    with TemporaryDirectory() as temporary:
        copy = Path(temporary) / CHART.name
        shutil.copytree(CHART, copy)
        values = copy / "values.yaml"
        values.write_text(with_images(values.read_text(), environment))
        subprocess.run([helm, "package", copy, "--destination", folder], stdout=subprocess.DEVNULL, check=True)
    return folder / f"{CHART.name}-{RELEASE}.tgz"


def with_images(values: str, environment: Mapping[str, str]) -> str:
    """Return the text of values.yaml with the images of the environment, keeping its comments."""
    for variable, (field, name) in FIELDS.items():
        if image := environment.get(variable):
            default = f"{field}: {name}:{RELEASE}\n"
            assert values.count(default) == 1, f"values.yaml does not have {default.strip()} once"
            values = values.replace(default, f"{field}: {image}\n")
    return values
