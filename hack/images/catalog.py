"""The catalogue of images, and what each of them is built from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTALLER = "hack/images/install-requirements"


@dataclass(frozen=True)
class Image:
    """An image: its name, the environment variable that names its reference, and its inputs.

    `inputs` are the files and folders, relative to the repository's root, that it is built from.
    """

    name: str
    variable: str
    containerfile: str
    inputs: tuple[str, ...]


OPERATOR = Image(
    name="operator",
    variable="ANOMALY_OPERATOR_IMAGE",
    containerfile="operator/Containerfile",
    inputs=(
        INSTALLER,
        "operator/requirements.txt",
        "crds/anomaly_api",
        "search/anomaly_search",
        "operator/anomaly_operator",
    ),
)
RUNNER = Image(
    name="runner",
    variable="ANOMALY_RUNNER_IMAGE",
    containerfile="runner/Containerfile",
    inputs=(
        INSTALLER,
        "runner/inference-requirements.txt",
        "runner/requirements.txt",
        "crds/anomaly_api",
        "search/anomaly_search",
        "runner/anomaly_runner",
    ),
)
INFERENCE = Image(
    name="inference",
    variable="ANOMALY_INFERENCE_IMAGE",
    containerfile="runner/inference.Containerfile",
    inputs=(INSTALLER, "runner/inference-requirements.txt", "crds/anomaly_api", "runner/anomaly_runner"),
)
DEMO = Image(
    name="demo",
    variable="ANOMALY_DEMO_IMAGE",
    containerfile="hack/demo/Containerfile",
    inputs=(INSTALLER, "hack/demo/requirements.txt"),
)
IMAGES = (OPERATOR, INFERENCE, RUNNER, DEMO)
