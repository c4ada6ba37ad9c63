"""What an inference does before, around and after scoring: its GPU, its form of the model, its images, its costs."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from anomaly_api.dataset import CropArea
from anomaly_api.inference import InferenceSpec
from anomaly_api.run import ExportedModel, ModelFile, RunConfig
from anomaly_api.status import Device, Stage
from anomaly_api.storage import LocationRole
from anomaly_runner import inference
from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.errors import GpuUnavailable, ModelInvalid
from anomaly_runner.scoring.trained_model import choose_form, inference_preprocessor
from anomaly_runner.storage import FolderStore
from anomaly_runner.system.machine import cpu_limit
from support import objects
from support.contexts import RUN, make_context
from support.model_manifests import model_manifest

SAMPLES = tuple(Sample(f"good/{index}.png", "good") for index in range(4))
ONNX = ExportedModel(format="onnx", file="model.onnx", sha256="a" * 64)
TORCHSCRIPT = ExportedModel(format="torchscript", file="model.pt", sha256="b" * 64)
STATE = ModelFile(file="model.safetensors", sha256="c" * 64)


def spec(**more: Any) -> InferenceSpec:
    location = {"location": {"s3": {"uri": "s3://model"}}}
    return InferenceSpec.model_validate(objects.INFERENCE["spec"] | {"model": location} | more)


def test_a_required_gpu_that_its_runtime_cannot_use_ends_an_inference_before_it_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def problem(runtime: str) -> str:
        asked.append(runtime)
        return "no driver"

    monkeypatch.setattr(inference, "gpu_problem", problem)
    for runtime in ("onnx", "torch"):
        wanted = spec(runtime=runtime)
        with pytest.raises(GpuUnavailable, match="no driver"):
            inference.run_inference(RunConfig(run=RUN, inference=wanted), wanted, make_context())
    assert asked == ["onnx", "torch"]


@pytest.mark.parametrize(("precision", "warned"), [("float32", False), ("tf32", True)])
def test_what_executes_the_model_is_recorded(precision: str, warned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = SimpleNamespace(provider="CPUExecutionProvider", fallback="no code for this GPU")
    monkeypatch.setattr(inference, "load_predictor", lambda *_: predictor)
    wanted = spec(precision=precision, scheduling={"gpus": {"count": 1, "required": False}})
    context = make_context()
    found: Any = inference._load_predictor(RunConfig(run=RUN, inference=wanted), wanted, model_manifest(RUN), context)
    assert found is predictor
    expected = Device(name="CPU", count=cpu_limit(), provider="CPUExecutionProvider", fallback="no code for this GPU")
    assert context.record.device == expected
    assert any("tf32 has no effect" in warning for warning in context.record.warnings) is warned


def inputs(asked: InferenceSpec, **more: Any) -> Any:
    given = {
        "spec": asked,
        "context": make_context(stores={LocationRole.MODEL: FolderStore(Path("/models/screws"))}),
        "predictor": SimpleNamespace(preferred_batch_size=2),
        "prefetcher": "prefetcher",
        "preprocessor": SimpleNamespace(size=(8, 8), valid="area"),
        "integrity": "log",
        "dataset": DatasetIndex(test=SAMPLES),
    }
    return SimpleNamespace(**given | more)


def test_the_pace_of_an_inference_is_that_of_its_whole_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "peak_memory", lambda: 5_000_000)
    given, predictions = inputs(spec()), SimpleNamespace(samples=SAMPLES)
    given.context.record.seconds[Stage.PREDICT] = 1.2
    expected = {"imagesPerSecond": 3.33333, "peakMemoryBytes": 5e6}
    assert inference._performance(given, predictions) == expected  # type: ignore[arg-type]
    given.context.record.seconds[Stage.PREDICT] = 0.0
    assert inference._performance(given, predictions) == {"peakMemoryBytes": 5e6}  # type: ignore[arg-type]


def test_the_report_says_where_the_model_came_from() -> None:
    assert inference._environment(inputs(spec()))["model"] == "/models/screws"


@pytest.mark.parametrize(("asked", "readers"), [({}, cpu_limit()), ({"numWorkers": 3}, 3)])
def test_images_are_read_as_the_spec_says(asked: dict[str, Any], readers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []

    def reading(*given: Any, **more: Any) -> Iterator[Batch]:
        read.append((given[:2], more))
        return iter(())

    monkeypatch.setattr(inference, "read_batches", reading)
    assert list(inference._read(inputs(spec(**asked)), SAMPLES)) == []
    assert read == [(("prefetcher", SAMPLES), {"batch_size": 2, "threads": readers})]


@pytest.mark.parametrize(
    ("pictures", "mask", "kept"), [(False, False, False), (True, False, True), (False, True, True)]
)
def test_maps_are_kept_where_something_needs_them(
    pictures: bool, mask: bool, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(inference, "predict", lambda *_, **more: seen.append(more))
    monkeypatch.setattr(inference, "_read", lambda *_: iter(()))
    dent = Sample("dent/0.png", "dent", masks=("mask.png",)) if mask else Sample("dent/0.png", "dent")
    given = inputs(spec(visualization={"enabled": pictures}), dataset=DatasetIndex(test=(dent,)))
    inference._predict(given)
    assert (seen[0]["keep_maps"], seen[0]["expected"], seen[0]["valid"]) == (kept, 1, "area")


@pytest.mark.parametrize(("runtime", "form"), [("onnx", ONNX), ("torchscript", TORCHSCRIPT), ("torch", STATE)])
def test_a_runtime_gets_its_form_of_the_model(runtime: Any, form: Any) -> None:
    there = model_manifest(RUN, exports=(TORCHSCRIPT, ONNX), checkpoint=STATE)
    assert choose_form(runtime, there) == form
    told = (
        "output.keepCheckpoint: true" if runtime == "torch" else rf"no {runtime} export; .*export\.types: \[{runtime}\]"
    )
    with pytest.raises(ModelInvalid, match=told):
        choose_form(runtime, model_manifest(RUN))


def test_images_are_prepared_as_in_training_but_for_a_crop_of_their_own() -> None:
    crop, own = CropArea(left=1, top=2, width=30, height=40), CropArea(left=5, top=6, width=30, height=40)
    there = model_manifest(RUN, normalization="imagenet", bit_depth=12, crop_area=crop)
    found = inference_preprocessor(spec(), there, make_context())
    assert (found.height, found.width, found.normalization, found.bit_depth) == (8, 16, "imagenet", 12)
    assert (found.crop, found.valid_area) == (crop, None)
    source = objects.INFERENCE["spec"]["input"]
    moved = spec(input=source | {"cropArea": own.to_json_object()})
    assert inference_preprocessor(moved, there, make_context()).crop == own
    assert inference_preprocessor(moved, model_manifest(RUN), make_context()).crop == own
