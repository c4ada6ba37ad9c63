"""Train and export a model, and score images with each form that inference can run; for a separate process."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq

from anomaly_api.artifacts import ExportFormat
from anomaly_api.model import Model, ModelName
from anomaly_api.run import ModelManifest, RunReport
from anomaly_runner.local import run_locally
from anomaly_runner.models.anomalib_model import BuildOptions, build_module, without_pretrained_weights
from anomaly_runner.scoring.torchscript_predictor import load_torchscript
from anomaly_runner.training import with_anomalib
from support.model_rows import ROWS
from support.small_encoder import encoder_of
from support.textures import EXPERIMENT, INFERENCE, Document, write_manifest
from support.torchscript import device_constants, faults_off_the_cpu

WEIGHTS = {"weights": {"s3": {"uri": "s3://weights"}}}


@dataclass(frozen=True)
class Forms:
    """Image scores by path, of the training and of each runtime, and the files that the training published."""

    report: RunReport
    manifest: ModelManifest
    trained: dict[str, float]
    by_runtime: dict[str, dict[str, float]]
    device_constants: list[str]
    faults_off_the_cpu: list[str]


def score_by_every_form(folder: Path, name: ModelName, types: list[ExportFormat]) -> Forms:
    """Train ``name`` on ``folder``/data and score its test images with torch and with each export except OpenVINO's."""
    category = ROWS[name].category
    runtimes = ["torch", *(kind for kind in types if kind != "openvino")]
    shutil.rmtree(folder / "results", ignore_errors=True)
    with patch.object(with_anomalib, "build_module", _with_random_weights), encoder_of(name):
        assert run_locally(_experiment(folder, name, category, types), folder) == 0
        by_runtime = {runtime: _inferred(folder, runtime, category) for runtime in runtimes}
    root = folder / "results/factory/textures/local"
    return Forms(
        report=RunReport.model_validate_json((root / "report.json").read_bytes()),
        manifest=ModelManifest.model_validate_json((root / "model.json").read_bytes()),
        trained=scores_of(root),
        by_runtime=by_runtime,
        device_constants=device_constants(load_torchscript(root / "model.pt", 8).program),
        faults_off_the_cpu=faults_off_the_cpu(root / "model.pt", ROWS[name].side),
    )


def _with_random_weights(model: Model, options: BuildOptions) -> Any:
    if ROWS[model.name].weights_from_cache:
        return build_module(model, options)
    with without_pretrained_weights():
        return build_module(model, replace(options, weights=None))


def _experiment(folder: Path, name: ModelName, category: str, types: list[ExportFormat]) -> Path:
    row = ROWS[name]

    def change(document: Document) -> None:
        document["spec"] |= {
            "model": {"name": name, name: row.parameters} | (WEIGHTS if row.weights_from_cache else {}),
            "training": row.training,
            "evaluation": {"latency": {"enabled": False}},
            "transforms": {"inputSize": {"height": row.side, "width": row.side}},
            "export": {"types": types},
        }
        document["spec"]["dataset"]["category"] = category
        document["spec"]["output"]["keepCheckpoint"] = True

    return write_manifest(folder, EXPERIMENT, change)


def train_and_export(folder: Path, name: ModelName, types: list[ExportFormat]) -> Path:
    """Train ``name`` on ``folder``/data and export it, without scoring by the exports; return the folder of results."""
    category = ROWS[name].category
    shutil.rmtree(folder / "results", ignore_errors=True)
    with patch.object(with_anomalib, "build_module", _with_random_weights), encoder_of(name):
        assert run_locally(_experiment(folder, name, category, types), folder) == 0
    return folder / "results/factory/textures/local"


def _inferred(folder: Path, runtime: str, category: str) -> dict[str, float]:
    """Return the scores of an inference, whose batches differ from those of the training."""

    def change(document: Document) -> None:
        document["spec"]["input"]["category"] = category
        document["spec"] |= {"runtime": runtime, "visualization": {}, "batchSize": 3}

    shutil.rmtree(folder / "results/factory/look", ignore_errors=True)
    assert run_locally(write_manifest(folder, INFERENCE, change), folder) == 0
    return scores_of(folder / "results/factory/look/local")


def scores_of(root: Path) -> dict[str, float]:
    """Return the image scores of a run's results by path."""
    content = pq.read_table(root / "predictions.parquet").to_pydict()
    return dict(zip(content["path"], content["score"], strict=True))
