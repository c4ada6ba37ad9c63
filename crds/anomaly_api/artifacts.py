"""What a run produces and where that goes: exports, output folder, MLflow."""

from typing import Annotated, Literal

from pydantic import Field

from anomaly_api.base import Contract
from anomaly_api.primitives import HttpUrl, LabelMap, Name, RegisteredName, Text
from anomaly_api.rules import exactly_one
from anomaly_api.storage import Location

ExportFormat = Literal["onnx", "torchscript", "openvino"]

INPUT, SCORES, MAPS = "input", "pred_score", "anomaly_map"
"""Names of an exported model's input (B, 3, H, W) and outputs (B,) and (B, 1, H, W), as anomalib names them."""


class Export(Contract):
    """Portable forms of the trained model."""

    types: Annotated[tuple[ExportFormat, ...], Field(max_length=3)] = ("onnx",)
    """Formats to write; each is compared with torch on real images."""
    precision: Literal["float32", "float16"] = "float32"
    """Floating-point type of the weights and the arithmetic inside the exports; inputs and outputs stay float32."""


class Output(Location):
    """Where artifacts go: below <location>/<namespace>/<name>/<uid>/, those of a later run below <uid>-<run>/."""

    rules = (exactly_one("s3", "persistent_volume_claim"),)

    keep_checkpoint: bool = False
    """Also keep the model's state (safetensors), which inference with runtime torch needs."""
    upload_artifacts: bool = True
    """Write exports, pictures and tables; false writes only report.json."""


class MlflowTracking(Contract):
    """An MLflow tracking server."""

    tracking_uri: HttpUrl
    """URL of the server."""
    experiment_name: Text | None = None
    """MLflow experiment; unset means the namespace."""
    run_name: Text | None = None
    """MLflow run; unset means the resource's name."""
    tags: LabelMap | None = None
    """Further tags of the run."""
    credentials_secret: Name | None = None
    """Secret with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."""
    register_model: RegisteredName | None = None
    """Register the exported model under this name."""


class Tracking(Contract):
    """Experiment trackers."""

    mlflow: MlflowTracking | None = None
    """MLflow."""
