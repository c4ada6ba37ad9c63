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


GPUS = "spec.scheduling.gpus.count"


@pytest.mark.parametrize(
    "changes",
    [
        {"spec.model.tiling": {"tileSize": 64, "stride": 64}},
        {"spec.training.devices": 1},
        {"spec.training.devices": 2, GPUS: 2},
        {"spec.training.devices": 2, GPUS: 0},
        {"spec.training.devices": 2, "spec.scheduling.resourceClaims": [{"name": "a", "resourceClaimName": "b"}]},
        {"spec.dataset.splits": {"syntheticDefects": {"minOpacity": 0.4, "maxOpacity": 0.4}}},
        {"spec.evaluation.threshold": {"method": "manual", "image": 2.0}},
        {"spec.evaluation.threshold": {"method": "manual", "image": 2.0, "pixel": -3.0}},
        {"spec.evaluation.threshold": {"method": "recall", "recall": 1.0}},
        {"spec.evaluation.threshold": {"method": "falseAlarmRate", "falseAlarmRate": 0.5}},
        {"spec.evaluation.threshold": {"method": "cost", "cost": {"miss": 1e12, "falseAlarm": 1e-3}}},
        {"spec.tracking.mlflow.registerModel": "screws"},
        {"spec.tracking.mlflow.registerModel": "screws", "spec.export.types": [], "spec.output.keepCheckpoint": True},
        {"spec.export.types": [], "spec.output.uploadArtifacts": False},
        {"spec.dataset.layout": "visa"},
        {"spec.dataset.table": {"path": "labels.csv"}},
        {"spec.training.precision": "float32", "spec.training.deterministic": False},
        {"spec.training.checkpointing": {"everyNMinutes": 10, "keep": "last"}},
        {"spec.transforms.inputSize": {"height": 32, "width": 4096}},
        {"spec.dataset.seed": 0},
        {"spec.dataset.seed": 2**31 - 1},
        {"spec.dataset.fraction": 1},
        {"spec.runPolicy": {"backoffLimit": 0, "activeDeadlineSeconds": 1, "ttlSecondsAfterFinished": 0}},
        {"spec.scheduling.resources.limits": {"memory": "1.5Gi", "cpu": "500m", "nvidia.com/gpu": 1}},
        {"spec.dataset.source.s3.uri": "s3://abc"},
        {"spec.dataset.source.s3.uri": "s3://a.b-c/some/.hidden/prefix/"},
        {"spec.dataset.category": "a/b-c/d.e"},
        {"spec.dataset.maskSuffix": ""},
    ],
    ids=lambda changes: ", ".join(name.removeprefix("spec.") for name in changes),
)
def test_what_is_just_right_is_accepted(changes: dict[str, Any]) -> None:
    """One step further, most of these are bad manifests."""
    manifest = sample("mnist-padim")
    for path, value in changes.items():
        with_change(manifest, path, value)
    AnomalyExperiment.model_validate(manifest)


@pytest.mark.parametrize("name", ["fastflow", "patchcore"])
def test_models_that_learn_by_gradient_alone_have_epochs(name: str) -> None:
    """Each field of the course of a training is refused where there is none, and taken where there is one."""
    fields: dict[str, Any] = {
        "maxEpochs": 3,
        "maxSteps": 3,
        "checkValEveryNEpoch": 1,
        "earlyStopping": {},
        "batchSizeFinder": {},
        "gradientClipping": {"value": 1},
        "precision": "tf32",
        "deterministic": True,
        "accumulateGradientBatches": 2,
        "checkpointing.enabled": False,
        "checkpointing.everyNEpochs": 2,
        "checkpointing.everyNMinutes": 11,
        "checkpointing.keep": "best",
    }
    for field, value in fields.items():
        manifest = sample("mnist-padim")
        manifest["spec"]["model"] = {"name": name}
        with_change(manifest, f"spec.training.{field}", value)
        if name == "fastflow":
            AnomalyExperiment.model_validate(manifest)
            continue
        with pytest.raises(ValidationError) as refusal:
            AnomalyExperiment.model_validate(manifest)
        told = (
            f"training.{field}: {field.rpartition('.')[2]} cannot be set for this model: it sees every training image"
        )
        assert told in describe_invalid(refusal.value)


@pytest.mark.parametrize(
    ("model", "sweep", "is_valid"),
    [
        ("fastflow", {}, True),
        ("padim", {}, False),
        ("padim", {"parameters": [{"path": "model.name", "choices": ["fastflow", "stfpm"]}]}, True),
        ("padim", {"pruning": None}, True),
    ],
)
def test_a_search_prunes_models_that_have_epochs(model: str, sweep: dict[str, Any], is_valid: bool) -> None:
    searched = {
        "parameters": [{"path": "dataset.seed", "choices": [1, 2]}],
        "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
        "pruning": {"method": "median"},
    }
    manifest = sample("mnist-padim")
    manifest["spec"]["model"] = {"name": model}
    manifest["spec"]["sweep"] = {name: value for name, value in (searched | sweep).items() if value is not None}
    if is_valid:
        AnomalyExperiment.model_validate(manifest)
    else:
        with pytest.raises(ValidationError, match="pruning needs a model that is trained in epochs"):
            AnomalyExperiment.model_validate(manifest)


def test_a_trial_is_no_sweep() -> None:
    manifest = sample("mnist-padim")
    manifest["spec"]["trial"] = {"sweep": "screws", "number": 0}
    AnomalyExperiment.model_validate(manifest)
    manifest["spec"]["sweep"] = {
        "parameters": [{"path": "dataset.seed", "choices": [1, 2]}],
        "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
    }
    with pytest.raises(ValidationError, match="at most one of sweep, trial may be set"):
        AnomalyExperiment.model_validate(manifest)


@pytest.mark.parametrize(
    "changes",
    [
        {"spec.threshold": {"source": "custom", "value": 1e-9}},
        {"spec.threshold": {"source": "recall", "recall": 0.9, "type": "pixel"}},
        {"spec.model": {"mlflow": {"name": "b", "version": 1}}},
        {"spec.model": {"mlflow": {"name": "b", "alias": "champion"}}},
        {"spec.model": {"location": {"s3": {"uri": "s3://models"}}}},
        {"spec.batchSize": 1, "spec.numWorkers": 0},
        {"spec.runtime": "torchscript", "spec.precision": "tf32"},
    ],
    ids=lambda changes: ", ".join(name.removeprefix("spec.") for name in changes),
)
def test_an_inference_that_is_just_right_is_accepted(changes: dict[str, Any]) -> None:
    manifest = sample("mnist-inference")
    for path, value in changes.items():
        with_change(manifest, path, value)
    AnomalyInference.model_validate(manifest)


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
