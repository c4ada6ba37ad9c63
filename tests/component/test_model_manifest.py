"""model.json, field by field, and what an experiment asks of its device before it reads anything."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from anomaly_api.dataset import CropArea
from anomaly_api.experiment import ExperimentSpec
from anomaly_api.run import ExportedModel, GoodScores, ModelFile, RunConfig
from anomaly_api.status import Device, ThresholdValues
from anomaly_api.storage import LocationRole
from anomaly_runner import experiment
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.errors import GpuUnavailable
from anomaly_runner.models.device import ChosenDevice
from anomaly_runner.models.weights import wanted_weights
from anomaly_runner.storage import FolderStore
from anomaly_runner.system.machine import cpu_limit
from support.contexts import RUN, make_context

PADIM = {"name": "padim", "padim": {"backbone": "resnet18", "nFeatures": 7}}
FILES = {name: ModelFile(file=name, sha256=name[0] * 64) for name in ("model.safetensors", "area.png")}


def spec(**more: Any) -> ExperimentSpec:
    return ExperimentSpec.model_validate(
        {
            "dataset": {"source": {"s3": {"uri": "s3://data"}}, "task": "classification"},
            "model": PADIM | {"weights": {"s3": {"uri": "s3://weights"}}},
            "output": {"s3": {"uri": "s3://results"}},
            "evaluation": {"normalization": "threshold", "thresholdType": "pixel"},
        }
        | more
    )


def test_an_inference_is_told_all_that_the_training_did() -> None:
    crop = CropArea(left=1, top=2, width=30, height=40)
    inputs: Any = SimpleNamespace(
        spec=spec(),
        preprocessor=Preprocessor(height=48, width=96, normalization="none", crop=crop, bit_depth=12),
    )
    thresholds = ThresholdValues(image=3.0, pixel=4.0, source="adaptive")
    good = GoodScores(images=2, scores=(1.0, 2.0), lower=(0, 1))
    ranges = {"image": (1.0, 9.0), "pixel": (0.0, 7.0)}
    tested: Any = SimpleNamespace(
        evaluated=SimpleNamespace(thresholds=thresholds, normalizer=SimpleNamespace(ranges=ranges)), good=good
    )
    exported = ExportedModel(format="onnx", file="model.onnx", sha256="o" * 64)
    files: Any = SimpleNamespace(
        exports=SimpleNamespace(verified=[SimpleNamespace(model=exported)]),
        valid_area=FILES["area.png"],
        checkpoint=FILES["model.safetensors"],
    )
    trained: Any = SimpleNamespace(model=SimpleNamespace(localises=False))
    config: Any = SimpleNamespace(run=RUN)
    found = experiment._manifest(config, inputs, trained, tested, files)
    assert (found.run, found.model, found.task, found.localises) == (RUN, "padim", "classification", False)
    assert (found.input_height, found.input_width, found.normalization) == (48, 96, "none")
    assert (found.bit_depth, found.crop_area) == (12, crop)
    assert (found.valid_area_mask, found.checkpoint) == (FILES["area.png"], FILES["model.safetensors"])
    assert found.exports == (exported,)
    assert (found.thresholds, found.good_scores, found.score_range) == (thresholds, good, ranges)
    assert (found.score_normalization, found.threshold_type) == ("threshold", "pixel")
    assert found.definition is not None
    assert found.definition.parameters == spec().model.parameters
    assert found.definition.weights is None, "where the weights came from is nobody's business"


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = ChosenDevice(torch.device("cpu"), "no driver")
    monkeypatch.setattr(experiment, "choose_device", lambda: chosen)
    monkeypatch.setattr(experiment, "check_spec", lambda *_: None)


@pytest.mark.usefixtures("without_gpu")
def test_a_required_gpu_that_torch_cannot_use_ends_an_experiment_before_it_begins() -> None:
    config = RunConfig(run=RUN, experiment=spec())
    with pytest.raises(GpuUnavailable, match="no driver"):
        experiment.check_experiment(config, spec(), make_context())


@pytest.mark.usefixtures("without_gpu")
def test_the_device_of_an_experiment_is_recorded() -> None:
    asked = spec(scheduling={"gpus": {"count": 1, "required": False}})
    context = make_context()
    experiment.check_experiment(RunConfig(run=RUN, experiment=asked), asked, context)
    expected = Device(name="CPU", count=cpu_limit(), provider="torch cpu", fallback="no driver")
    assert context.record.device == expected


def test_the_spec_is_checked_with_the_gpus_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Any] = []
    monkeypatch.setattr(experiment, "check_spec", lambda *given: checked.append(given))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    asked = spec(scheduling={"gpus": {"count": 0}})
    experiment.check_experiment(RunConfig(run=RUN, experiment=asked), asked, make_context())
    assert checked == [(asked, 3)]


def test_weights_come_from_the_clusters_own_cache_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Any] = []

    def fetch(*given: Any) -> Path:
        fetched.append(given[:3])
        folder: Path = given[2]
        return folder

    monkeypatch.setattr(experiment, "fetch_weights", fetch)
    store = FolderStore(tmp_path / "weights")
    assert experiment._weights(spec(), make_context(tmp_path)) == tmp_path / "weights"
    assert fetched == []
    context = make_context(tmp_path / "work", stores={LocationRole.WEIGHTS: store})
    assert experiment._weights(spec(), context) == tmp_path / "work/weights"
    assert fetched == [(store, wanted_weights(spec().model), tmp_path / "work/weights")]
