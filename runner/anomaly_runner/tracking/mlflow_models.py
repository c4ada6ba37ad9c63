"""Log a trained model to MLflow: an MLmodel file with its signature and, if the spec asks for it, a registered version.

The folder ``model`` of the run's artifacts is a model as MLflow defines it: with an ONNX export,
``mlflow.pyfunc.load_model`` runs it on any machine with mlflow and onnxruntime, without this project. Its input is that
of our own inference: resized and normalised images (B, 3, H, W), float32.

Only experiments log a model: mlflow-skinny's signatures need pandas, which anomalib installs in the training image and
the inference image lacks.
"""

from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.models.signature import ModelSignature
from mlflow.types import Schema, TensorSpec

from anomaly_api import GROUP
from anomaly_api.artifacts import INPUT, MAPS, SCORES
from anomaly_api.run import MODEL_MANIFEST, ModelManifest
from anomaly_runner.tracking.tracker import MODEL_FOLDER

_REGISTRATION_SECONDS = 60
"""Time in seconds that a registry may take until a version is ready."""


def write_description(model: ModelManifest, run_id: str, folder: Path) -> list[Path]:
    """Write the MLmodel file and the requirements.txt that it refers to; returns both."""
    described = Model(artifact_path=MODEL_FOLDER, run_id=run_id, signature=signature(model))
    described.add_flavor("anomaly_operator", manifest=MODEL_MANIFEST, model=model.model)
    onnx = next((exported.file for exported in model.exports if exported.format == "onnx"), None)
    if onnx is not None:
        described.add_flavor("onnx", data=onnx, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
        described.add_flavor("python_function", loader_module="mlflow.onnx", data=onnx)
    described.save(str(folder / "MLmodel"))
    (folder / "requirements.txt").write_text("mlflow\nonnx\nonnxruntime\n", encoding="utf-8")
    return [folder / "MLmodel", folder / "requirements.txt"]


def signature(model: ModelManifest) -> ModelSignature:
    """Names and shapes of the exported model's input and outputs, float32; the first axis is the batch.

    Input (B, 3, H, W), scores (B,), and maps (B, 1, H, W) where the model localises.
    """
    rows, columns = model.input_height, model.input_width
    outputs = [_tensor(SCORES, (-1,))] + ([_tensor(MAPS, (-1, 1, rows, columns))] if model.localises else [])
    return ModelSignature(Schema([_tensor(INPUT, (-1, 3, rows, columns))]), Schema(outputs))


def _tensor(name: str, shape: tuple[int, ...]) -> TensorSpec:
    return TensorSpec(np.dtype(np.float32), shape, name)


def register(client: Any, name: str, run_id: str, tags: dict[str, str]) -> str:
    """Register the run's model; a retry finds the version of an earlier attempt.

    Returns:
        The version's URI, models:/NAME/VERSION.

    Raises:
        MlflowException: the server refuses or does not answer.
    """
    version = _find_version(client, name, run_id) or _create_version(client, name, run_id, tags)
    return f"models:/{name}/{version.version}"


def _find_version(client: Any, name: str, run_id: str) -> ModelVersion | None:
    found = client.search_model_versions(f"run_id = '{run_id}'")
    return next((version for version in found if version.name == name), None)


def _create_version(client: Any, name: str, run_id: str, tags: dict[str, str]) -> ModelVersion:
    try:
        client.create_registered_model(name, tags={f"{GROUP}/kind": "AnomalyExperiment"})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{client.get_run(run_id).info.artifact_uri}/{MODEL_FOLDER}"
    return client.create_model_version(name, source, run_id, tags=tags, await_creation_for=_REGISTRATION_SECONDS)
