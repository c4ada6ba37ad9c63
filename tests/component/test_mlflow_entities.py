"""What results become in MLflow: metrics with their time, the images as a dataset, and the description of a model."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.models import Model

from anomaly_api.run import ExportedModel, ModelManifest, RunIdentity
from anomaly_runner.tracking.mlflow_entities import dataset_input, final_points, metrics
from anomaly_runner.tracking.mlflow_models import write_description
from anomaly_runner.tracking.tracker import TrackedDataset
from support.model_manifests import model_manifest

pytestmark = pytest.mark.filterwarnings("ignore")  # of mlflow's own libraries


def test_metrics_have_their_step_and_the_time_at_which_they_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomaly_runner.tracking.mlflow_entities.get_current_time_millis", lambda: 1234)
    made = metrics([("trainLoss", 3, 0.5), ("imageAUROC", 4, 0.75)])
    assert [(one.key, one.value, one.timestamp, one.step) for one in made] == [
        ("trainLoss", 0.5, 1234, 3),
        ("imageAUROC", 0.75, 1234, 4),
    ]


def test_final_values_are_of_no_step() -> None:
    assert final_points({"image_AUROC": 0.9, "seconds_train": 2.0}) == [
        ("image_AUROC", 0, 0.9),
        ("seconds_train", 0, 2.0),
    ]


def test_images_are_a_dataset_by_their_place_digest_and_numbers() -> None:
    """MLflow takes 500 characters of a name, and 36 of a digest."""
    digest = "0123456789abcdef" * 4
    data = TrackedDataset(
        name="d" * 501, digest=digest, kind="s3", uri="s3://d", images={"train": 8, "predicted": 4}, context="inference"
    )
    made = dataset_input(data)
    assert made.dataset.name == "d" * 480 + "... (501 characters)"
    assert (made.dataset.digest, made.dataset.source_type) == ("0123456789abcdef" * 2, "s3")
    assert json.loads(made.dataset.source) == {"uri": "s3://d"}
    assert json.loads(made.dataset.profile) == {"images": {"train": 8, "predicted": 4}, "sha256": digest}
    assert [(tag.key, tag.value) for tag in made.tags] == [("mlflow.data.context", "inference")]


def manifest(*formats: str, localises: bool = True) -> ModelManifest:
    exports: list[dict[str, Any]] = [{"format": name, "file": f"model.{name}", "sha256": "0"} for name in formats]
    run = RunIdentity(kind="AnomalyExperiment", namespace="factory", name="screws", uid="0-1")
    files = tuple(ExportedModel.model_validate(one) for one in exports)
    return model_manifest(run, localises=localises, exports=files)


OURS = {"manifest": "model.json", "model": "padim"}


@pytest.mark.parametrize(
    ("formats", "flavors"),
    [
        ((), {}),
        (("openvino",), {}),
        (
            ("torchscript", "onnx"),
            {
                "onnx": {"data": "model.onnx", "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]},
                "python_function": {"loader_module": "mlflow.onnx", "data": "model.onnx"},
            },
        ),
    ],
)
def test_a_model_with_an_onnx_file_can_be_loaded_by_mlflow_alone(
    tmp_path: Path, formats: tuple[str, ...], flavors: dict[str, Any]
) -> None:
    files = write_description(manifest(*formats), "run0", tmp_path)
    assert files == [tmp_path / "MLmodel", tmp_path / "requirements.txt"]
    told = yaml.safe_load((tmp_path / "MLmodel").read_text())
    assert (told["artifact_path"], told["run_id"]) == ("model", "run0")
    assert told["flavors"] == {"anomaly_operator": OURS} | flavors
    assert (tmp_path / "requirements.txt").read_text() == "mlflow\nonnx\nonnxruntime\n"


@pytest.mark.parametrize("localises", [True, False])
def test_a_model_says_what_it_takes_and_gives(tmp_path: Path, localises: bool) -> None:
    write_description(manifest("onnx", localises=localises), "run0", tmp_path)
    told = Model.load(str(tmp_path)).signature
    maps = [("anomaly_map", "float32", (-1, 1, 8, 16))] if localises else []
    assert [(one.name, one.type.name, one.shape) for one in told.inputs] == [("input", "float32", (-1, 3, 8, 16))]
    assert [(one.name, one.type.name, one.shape) for one in told.outputs] == [("pred_score", "float32", (-1,)), *maps]
