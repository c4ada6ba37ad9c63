"""Stages one by one: limits of the machine, prediction, export parity, parallel work, the command line."""

import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Never

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from anomaly_api.artifacts import Export, ExportFormat
from anomaly_api.parameters import PadimParameters
from anomaly_api.status import Stage
from anomaly_runner.cli import app
from anomaly_runner.context import Context
from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import DataInvalid, Diverged, ExportMismatch, ModelInvalid, Stopped
from anomaly_runner.evaluation.normalize import score_range
from anomaly_runner.exporting.compare import compare, load, tolerance
from anomaly_runner.exporting.export import Exported, Precision, export_all
from anomaly_runner.exporting.onnx_writer import merge_external_data, write_onnx
from anomaly_runner.exporting.portable import TupleOutputModel
from anomaly_runner.exporting.torchscript_writer import write_torchscript
from anomaly_runner.models.backbone import choose_backbone
from anomaly_runner.models.padim import Padim
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.scoring.onnx_predictor import load_onnx
from anomaly_runner.scoring.predict import Predictions, predict
from anomaly_runner.scoring.torch_predictor import TorchPredictor
from anomaly_runner.scoring.torchscript_predictor import load_torchscript
from anomaly_runner.system import machine
from anomaly_runner.system.digest import digest
from anomaly_runner.system.parallel import ordered_map
from support.contexts import make_context
from support.optional import not_none
from support.torchscript import device_constants

SIZE = (64, 48)
THREADS = TorchThreads(torch.device("cpu"))


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return make_context(tmp_path)


@pytest.fixture(scope="module")
def model() -> Padim:
    torch.manual_seed(3)
    padim = Padim(choose_backbone("resnet18", ("layer1", "layer2")), PadimParameters(pre_trained=False), SIZE, THREADS)
    padim.eval().learn(torch.split(images(12), 6), THREADS)
    return padim


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def batches(count: int, size: int = 8) -> list[Batch]:
    samples = [Sample(f"test/good/{index}.png", "good") for index in range(count)]
    pixels = images(count, 1).numpy()
    return [Batch(tuple(samples[at : at + size]), pixels[at : at + size]) for at in range(0, count, size)]


def predicted(
    model: Padim, context: Context, count: int = 11, keep_maps: bool = True, reference: int = 16
) -> Predictions:
    return predict(
        TorchPredictor(model, THREADS, 32),
        batches(count),
        expected=count,
        size=SIZE,
        keep_maps=keep_maps,
        context=context,
        reference=reference,
    )


def test_every_image_is_scored_once_in_order(model: Padim, context: Context) -> None:
    found = predicted(model, context)
    with torch.inference_mode():  # in the same batches: on some CPUs, other sizes of batch round otherwise
        scored = [model(torch.from_numpy(batch.images)) for batch in batches(11)]
    scores, maps = (torch.cat(parts) for parts in zip(*scored, strict=True))
    assert [sample.key for sample in found.samples] == [f"test/good/{index}.png" for index in range(11)]
    assert np.array_equal(found.scores, scores.numpy())
    assert np.array_equal(not_none(found.maps), maps[:, 0].numpy())
    assert found.pixel_range == (float(maps.min()), float(maps.max()))
    assert np.array_equal(not_none(found.max_pixel_scores), maps.amax((1, 2, 3)).numpy())


def test_maps_are_kept_only_if_they_are_needed(model: Padim, context: Context) -> None:
    assert predicted(model, context, keep_maps=False).maps is None


def test_scores_that_are_not_finite_fail(context: Context) -> None:
    broken = Padim(choose_backbone("resnet18", ("layer1",)), PadimParameters(pre_trained=False), SIZE, THREADS).eval()
    broken.inv_covariance = torch.full((16 * 12, 64, 64), torch.nan)
    with pytest.raises(Diverged, match=r"test/good/0\.png"):
        predicted(broken, context)


def test_no_readable_image_to_score(model: Padim, context: Context) -> None:
    with pytest.raises(DataInvalid, match="none of the images"):
        predict(TorchPredictor(model, THREADS, 8), [], expected=3, size=SIZE, keep_maps=False, context=context)


def test_stop_between_batches(model: Padim, context: Context) -> None:
    context.stop.set()
    with pytest.raises(Stopped):
        predicted(model, context)


FORMATS: tuple[ExportFormat, ...] = ("onnx", "torchscript", "openvino")


def exported(
    model: Padim, context: Context, folder: Path, *types: ExportFormat, precision: Precision = "float32"
) -> tuple[tuple[Exported, ...], Predictions]:
    """Write the formats and compare them with torch; returns the exports, and torch's predictions."""
    found = predicted(model, context)
    reference = TorchPredictor(model, THREADS, 32).in_torch(found.reference)
    made = export_all(model, Export(types=types, precision=precision), reference, score_range(found), folder)
    assert made.failure is None
    return made.verified, found


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_agrees_at_every_batch_size(
    model: Padim, context: Context, tmp_path: Path, name: ExportFormat
) -> None:
    [made], found = exported(model, context, tmp_path, name)
    assert made.report.images_compared == 11
    assert made.report.max_score_difference < 1e-5 * found.scores.max()
    assert made.report.max_map_difference < 1e-5 * found.scores.max()
    loaded = load(name, tmp_path / made.model.file)
    for size in (1, 3, 11):
        scores, maps = loaded.run(images(11, 1).numpy()[:size])
        assert scores.shape == (size,)
        assert not_none(maps).shape == (size, *SIZE)
        assert scores == pytest.approx(found.scores[:size], rel=1e-5)


def test_every_file_of_an_export_has_its_digest(model: Padim, context: Context, tmp_path: Path) -> None:
    made, _ = exported(model, context, tmp_path, *FORMATS)
    listed = {one.model.file: one.model.sha256 for one in made} | made[2].model.companions
    assert listed == {path.name: digest(path) for path in tmp_path.iterdir()}
    assert sorted(listed) == ["model.bin", "model.onnx", "model.pt", "model.xml"]


class WideNorm(torch.nn.Module):
    """Normalises whole feature maps, like FastFlow, and returns them."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm([64, side, side])
        torch.nn.init.uniform_(self.norm.weight)
        torch.nn.init.uniform_(self.norm.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.norm(images)[:, :1]
        return maps.amax((1, 2, 3)), maps


@pytest.mark.parametrize("side", [8, 56])
def test_layer_normalisations_keep_their_digits(tmp_path: Path, side: int) -> None:
    """onnxruntime's own operator has an error of 3e-5 of the largest value over 200,000 values."""
    torch.manual_seed(0)
    model, features = WideNorm(side).eval(), torch.rand(3, 64, side, side) * 5 + 20
    write_onnx(model, features[:2], tmp_path)
    with torch.inference_mode():
        expected = model(features)[1][:, 0].numpy()
        exact = model.double()(features.double())[1][:, 0].numpy()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"input": features.numpy()})[1][:, 0]
    assert np.abs(found - exact).max() <= 4 * np.abs(expected - exact).max() + 1e-6


def test_weights_that_do_not_fit_into_the_graph_are_in_one_file_beside_it(
    model: Padim, context: Context, tmp_path: Path
) -> None:
    [made], found = exported(model, context, tmp_path, "onnx")
    (tmp_path / "apart").mkdir()
    apart = tmp_path / "apart" / "model.onnx"
    onnx.save_model(
        onnx.load(tmp_path / made.model.file),
        apart,
        save_as_external_data=True,
        all_tensors_to_one_file=False,
        size_threshold=1024,
    )
    assert len(list(apart.parent.iterdir())) > 3
    (tmp_path / "whole").mkdir()
    files = merge_external_data(apart, tmp_path / "whole")
    assert files == [tmp_path / "whole" / name for name in ("model.onnx", "model.onnx.data")]
    assert {*(tmp_path / "whole").iterdir()} == {*files}
    scores, _ = load_onnx(files[0], 8).run(images(11, 1).numpy())
    assert scores == pytest.approx(found.scores, rel=1e-5)


def test_a_half_precision_export_is_half_as_large_and_agrees_with_torch(
    model: Padim, context: Context, tmp_path: Path
) -> None:
    (tmp_path / "whole").mkdir()
    [whole], _ = exported(model, context, tmp_path / "whole", "onnx")
    [half], found = exported(model, context, tmp_path, "onnx", precision="float16")
    assert half.report.precision == "float16"
    assert half.report.size_bytes < 0.55 * whole.report.size_bytes
    assert 0 < half.report.max_score_difference < 0.02 * found.scores.max()


def test_the_export_is_of_opset_18(model: Padim, tmp_path: Path) -> None:
    write_onnx(TupleOutputModel(model), torch.zeros(2, 3, *SIZE), tmp_path)
    loaded = onnx.load(tmp_path / "model.onnx")
    assert [item.version for item in loaded.opset_import if not item.domain] == [18]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_an_export_of_another_model_is_refused(model: Padim, context: Context, tmp_path: Path) -> None:
    mean = model.mean.clone()
    model.mean += 0.01
    write_onnx(TupleOutputModel(model), torch.zeros(2, 3, *SIZE), tmp_path)
    model.mean.copy_(mean)
    found = predicted(model, context)
    with pytest.raises(ExportMismatch, match="disagrees with torch"):
        compare("onnx", tmp_path / "model.onnx", found.reference, allowed(found))


def allowed(found: Predictions, precision: Precision = "float32") -> dict[str, float]:
    return {level: tolerance(precision, seen) for level, seen in score_range(found).items()}


Change = Callable[[Tensor], Tensor]


class Changed(torch.nn.Module):
    """A model whose outputs are changed by functions."""

    def __init__(self, model: Padim, scores: Change, maps: Change) -> None:
        super().__init__()
        self.model, self.change = model, (scores, maps)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(change(found) for change, found in zip(self.change, self.model(images), strict=True))


def same(found: Tensor) -> Tensor:
    return found


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ((lambda found: found * torch.nan, same), "image scores by inf"),
        ((same, lambda found: found * torch.inf), "pixel scores by inf"),
        ((same, lambda found: found * 0), "pixel scores by"),
        ((lambda found: found * 0 + found.mean(), same), "image scores by"),
    ],
)
def test_an_export_with_useless_outputs_is_refused(
    model: Padim, context: Context, tmp_path: Path, changes: tuple[Change, Change], told: str
) -> None:
    found = predicted(model, context)
    write_onnx(Changed(model, *changes).eval(), torch.zeros(2, 3, *SIZE), tmp_path)
    with pytest.raises(ExportMismatch, match=told):
        compare("onnx", tmp_path / "model.onnx", found.reference, allowed(found, "float16"))


def test_each_level_has_its_own_tolerance_up_to_a_part_of_its_spread() -> None:
    assert tolerance("float32", (0.0, 50.0)) == pytest.approx(5e-3)
    assert tolerance("float16", (0.0, 50.0)) == pytest.approx(1.0)
    assert tolerance("float16", (49.0, 50.0)) == pytest.approx(0.1)
    assert tolerance("float32", (6.9999, 7.0)) == pytest.approx(1e-5)
    assert tolerance("float32", (6.999999, 7.0)) == pytest.approx(7e-6)


def test_half_precision_is_accepted_for_images_with_equal_scores(
    model: Padim, context: Context, tmp_path: Path
) -> None:
    """For one image, or several with the same score, there is no spread of scores to derive a tolerance from."""
    found = predicted(model, context)
    one = replace(
        found.reference[0],
        scores=found.reference[0].scores[:1],
        maps=not_none(found.reference[0].maps)[:1],
        batch=Batch(found.samples[:1], found.reference[0].batch.images[:1]),
    )
    [made] = export_all(
        model,
        Export(types=("onnx",), precision="float16"),
        [one],
        {"image": (float(one.scores[0]),) * 2, "pixel": score_range(found)["pixel"]},
        tmp_path,
    ).verified
    assert made.report.max_score_difference > 0


class DeviceBound(torch.nn.Module):
    """A model that creates tensors on its own device, as anomalib's models do."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = torch.zeros(images.shape[0], 1, 4, 4, device=images.device) + images.mean((1, 2, 3), keepdim=True)
        return maps.amax((1, 2, 3)), maps


def test_torchscript_runs_on_the_device_of_its_images(tmp_path: Path) -> None:
    write_torchscript(DeviceBound().eval(), torch.zeros(2, 3, *SIZE), tmp_path)
    program = load_torchscript(tmp_path / "model.pt", 8).program
    assert device_constants(program) == []
    assert "prim::device" in str(program.graph)
    scores, maps = program(images(5, 1))
    assert torch.equal(scores, images(5, 1).mean((1, 2, 3)))
    assert maps.shape == (5, 1, 4, 4)


def test_a_backbone_that_cannot_be_traced_is_written_by_torch_export(
    model: Padim, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch.export is the fallback for models that the tracing exporter refuses."""
    from torch.onnx.errors import OnnxExporterError

    def refuse(*arguments: object) -> Never:
        raise OnnxExporterError("operator")

    monkeypatch.setattr("anomaly_runner.exporting.onnx_writer._trace", refuse)
    [made], _ = exported(model, context, tmp_path, "onnx")
    assert made.report.images_compared == 11


def test_a_file_that_is_not_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelInvalid, match="cannot be loaded"):
        load_onnx(tmp_path / "model.onnx", 8)


def test_a_model_of_another_program_is_refused(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    other = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [other])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelInvalid, match="expected pred_score"):
        load_onnx(tmp_path / "model.onnx", 8)


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_the_cpu_limit_of_the_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cpus: int | None
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)))
    write(tmp_path, files)
    assert machine.cpu_limit(tmp_path) == (cpus or 8)


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 4_096_000),
        ({"memory.max": "max", "memory.current": "5"}, 4_096_000),
        (
            {"memory.max": "3000000", "memory.current": "1000000", "memory.stat": "anon 1\ninactive_file 400000\n"},
            2_400_000,
        ),
        ({"memory/memory.limit_in_bytes": "2000000", "memory/memory.usage_in_bytes": "500000"}, 1_500_000),
        ({"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "5"}, 4_096_000),
        ({"memory.max": "1000", "memory.current": "5000"}, 0),
    ],
)
def test_the_available_memory_of_the_cgroup(tmp_path: Path, files: dict[str, str], free: int) -> None:
    write(tmp_path, files | {"meminfo": "MemTotal: 9000 kB\nMemAvailable: 4000 kB\n"})
    assert machine.available_memory(tmp_path, tmp_path / "meminfo") == free


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)


def test_ordered_map_keeps_the_order_and_the_limit_of_items_ahead() -> None:
    begun: list[int] = []
    lock = threading.Lock()

    def work(item: int) -> int:
        with lock:
            begun.append(item)
        time.sleep(0.01 if item % 3 else 0.03)
        return item * 10

    results = ordered_map(work, range(30), 3, ahead=4)
    assert next(results) == 0
    time.sleep(0.1)
    assert max(begun) <= 4
    assert list(results) == [item * 10 for item in range(1, 30)]


def test_ordered_map_raises_the_first_exception() -> None:
    with pytest.raises(ZeroDivisionError):
        list(ordered_map(lambda item: 1 // item, [1, 0, 1], 2))


def test_the_context_measures_stages_and_raises_when_stopped(context: Context) -> None:
    with context.stage(Stage.TRAIN, 10):
        context.advance(5)
    assert context.record.seconds["train"] >= 0
    context.stop.set()
    with pytest.raises(Stopped), context.stage(Stage.PREDICT):
        pass


def test_the_command_line_has_help() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "pod" in result.output
    assert CliRunner().invoke(app, ["run", "x.yaml"]).exit_code == 2


def test_help_imports_nothing_heavy() -> None:
    assert "anomaly_runner.cli" in sys.modules
    import subprocess

    heavy = {"torch", "boto3", "onnxruntime", "mlflow"}
    program = f"import sys, anomaly_runner.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
