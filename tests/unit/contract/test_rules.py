"""Rules in Python do what their messages say; their CEL form is tested against a real API server."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from anomaly_api.experiment import AnomalyExperiment
from anomaly_api.inference import AnomalyInference
from anomaly_api.resource import describe_invalid

SAMPLES = Path(__file__).parents[3] / "manifests" / "samples"


def sample(name: str) -> dict[str, Any]:
    manifest: dict[str, Any] = yaml.safe_load((SAMPLES / f"{name}.yaml").read_text())
    return manifest


def with_change(manifest: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *parents, last = path.split(".")
    owner = manifest
    for step in parents:
        owner = owner.setdefault(step, {})
    if value is None:
        del owner[last]
    else:
        owner[last] = value
    return manifest


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sample_is_valid(path: Path) -> None:
    for manifest in yaml.safe_load_all(path.read_text()):
        kind = {"AnomalyExperiment": AnomalyExperiment, "AnomalyInference": AnomalyInference}[manifest["kind"]]
        kind.model_validate(manifest)


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("spec.model.padim.nFeaturez", 3, "spec.model.padim.nFeaturez: Extra inputs are not permitted"),
        ("spec.model.name", "resnet", "spec.model.name: Input should be 'padim', 'patchcore'"),
        ("spec.model.patchcore", {}, "spec.model: patchcore: patchcore may be set only when name is patchcore"),
        ("spec.model.tiling", {"tileSize": 64, "stride": 65}, "spec.model.tiling: stride: stride may be at"),
        ("spec.dataset.source", {}, "spec.dataset.source: exactly one of s3, persistentVolumeClaim, builtin"),
        ("spec.dataset.source.s3.uri", "http://data", "spec.dataset.source.s3.uri: String should match"),
        ("spec.dataset.category", "../etc", "spec.dataset.category: String should match pattern"),
        ("spec.dataset.source.builtin", {"name": "mnist"}, "goodLabel is required when name is mnist"),
        ("spec.dataset.source", {"builtin": {"name": "mnist", "goodLabel": 9}}, "category: category names the product"),
        ("spec.dataset.source.builtin", {"name": "mvtec"}, "spec.dataset.source: exactly one of"),
        ("spec.evaluation.threshold", {"method": "manual"}, "image is required when method is manual"),
        ("spec.export.types", ["onnx", "tflite"], "spec.export.types[1]: Input should be 'onnx', 'torchscript'"),
        ("spec.training.devices", 2, "spec: training.devices: devices may be at most scheduling.gpus.count"),
        ("spec.training.precision", "bfloat16", "training.precision: precision cannot be set for this model: it sees"),
        ("spec.training.deterministic", True, "training.deterministic: deterministic cannot be set for this model: it"),
        ("spec.training.checkpointing", {"keep": "best"}, "training.checkpointing.keep: keep cannot be set for this"),
        ("spec.output", None, "spec.output: Field required"),
        ("spec.scheduling.gpus.count", -1, "spec.scheduling.gpus.count: Input should be greater than or equal to 0"),
        ("spec.scheduling.resources.limits.memory", "8 GB", "spec.scheduling.resources.limits.memory: String should"),
    ],
)
def test_a_bad_experiment_is_refused_with_the_path_of_the_field(path: str, value: Any, complaint: str) -> None:
    manifest = with_change(sample("mnist-padim"), path, value)
    with pytest.raises(ValidationError) as refusal:
        AnomalyExperiment.model_validate(manifest)
    assert complaint in describe_invalid(refusal.value, root="").removeprefix(".").replace("; .", "; ")


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("spec.threshold", {"source": "custom"}, "value is required when source is custom"),
        ("spec.threshold", {"source": "training", "value": 3.0}, "value may be set only when source is custom"),
        ("spec.runtime", "tensorrt", "spec.runtime: Input should be 'onnx', 'torchscript' or 'torch'"),
        ("spec.model", {"experiment": "a", "mlflow": {"name": "b"}}, "exactly one of experiment, location, mlflow"),
        (
            "spec.model",
            {"mlflow": {"name": "b", "version": 1, "alias": "c"}},
            "at most one of version, alias may be set",
        ),
        ("spec.model", {"mlflow": {"name": "b", "version": 0}}, "spec.model.mlflow.version: Input should be greater"),
        ("spec.model", {"mlflow": {"version": 1}}, "spec.model.mlflow.name: Field required"),
        ("spec.shards", 4, "shards is not supported by this version"),
    ],
)
def test_a_bad_inference_is_refused_with_the_path_of_the_field(path: str, value: Any, complaint: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        AnomalyInference.model_validate(with_change(sample("mnist-inference"), path, value))
    assert complaint in describe_invalid(refusal.value, root="")


def test_a_registered_model_needs_a_server() -> None:
    manifest = with_change(sample("mnist-inference"), "spec.model", {"mlflow": {"name": "screws"}})
    AnomalyInference.model_validate(manifest)
    with pytest.raises(ValidationError) as refusal:
        AnomalyInference.model_validate(with_change(manifest, "spec.tracking", None))
    assert "model.mlflow.trackingUri: set model.mlflow.trackingUri, or tracking.mlflow" in str(refusal.value)
    AnomalyInference.model_validate(with_change(manifest, "spec.model.mlflow.trackingUri", "http://registry:5000"))


def test_many_faults_are_reported_in_one_line() -> None:
    manifest = sample("mnist-padim")
    for field in "abcdefg":
        manifest["spec"][field] = 1
    with pytest.raises(ValidationError) as refusal:
        AnomalyExperiment.model_validate(manifest)
    message = describe_invalid(refusal.value, root="")
    assert "\n" not in message
    assert message.endswith("(and 2 more)")
