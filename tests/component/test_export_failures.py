"""Why an export is not used: it gives other scores, takes one batch size, or its runtime cannot execute it at all."""

import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

from anomaly_api.artifacts import Export, ExportFormat
from anomaly_api.reasons import Reason
from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import ExportMismatch, ModelInvalid, StorageUnavailable
from anomaly_runner.exporting import compare, export
from anomaly_runner.exporting.onnx_writer import write_onnx
from anomaly_runner.exporting.openvino_writer import write_openvino
from anomaly_runner.exporting.portable import TupleOutputModel
from anomaly_runner.exporting.torchscript_writer import write_torchscript
from anomaly_runner.models.base import ScoringModel
from anomaly_runner.scoring.predict import ScoredBatch
from anomaly_runner.system.full_disk import is_full_disk

SIDE = 8
WRITERS: dict[ExportFormat, Callable[[nn.Module, Tensor, Path], list[Path]]] = {
    "onnx": write_onnx,
    "torchscript": write_torchscript,
    "openvino": write_openvino,
}
ALLOWED = {"image": 1e-4, "pixel": 1e-4}


def reference(count: int = 4) -> list[ScoredBatch]:
    """Images (N, 3, 8, 8) whose scores are their means, as every model here computes them."""
    images = np.random.default_rng(1).random((count, 3, SIDE, SIDE), np.float32)
    samples = tuple(Sample(f"{index}.png", "good") for index in range(count))
    return [ScoredBatch(Batch(samples, images), images.mean((1, 2, 3)), None)]


class Mean(nn.Module):
    """Scores an image by its mean."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (images.mean((1, 2, 3)),)


class MeanOfTwo(nn.Module):
    """The same, of exactly two images."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (images.reshape(2, 3 * SIDE * SIDE).mean(1),)


class MeanPlusOne(nn.Module):
    """Other scores."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (images.mean((1, 2, 3)) + 1,)


class OnCudnnAlone(nn.Module):
    """Has an operator that CPUs lack."""

    def forward(self, images: Tensor) -> tuple[Tensor]:
        kernel = torch.ones_like(images[:1])
        padding, ones = [0, 0], [1, 1]
        found = torch.ops.aten.cudnn_convolution(images, kernel, padding, ones, ones, 1, False, False, False)
        return (found.flatten(),)


def written(name: ExportFormat, model: nn.Module, folder: Path) -> Path:
    return WRITERS[name](model.eval(), torch.zeros(2, 3, SIDE, SIDE), folder)[0]


@pytest.mark.parametrize("name", WRITERS)
def test_one_that_agrees_is_taken(tmp_path: Path, name: ExportFormat) -> None:
    made = compare.compare(name, written(name, Mean(), tmp_path), reference(), ALLOWED)
    assert made.images_compared == 4


@pytest.mark.parametrize("name", WRITERS)
def test_other_scores_are_a_mismatch(tmp_path: Path, name: ExportFormat) -> None:
    with pytest.raises(
        ExportMismatch, match=rf"the {name} model disagrees with torch: image scores by 1, where 0\.0001"
    ):
        compare.compare(name, written(name, MeanPlusOne(), tmp_path), reference(), ALLOWED)


@pytest.mark.parametrize("name", ["onnx", "torchscript"])
@pytest.mark.parametrize("count", [1, 4])
def test_a_graph_that_takes_the_batch_size_of_its_writing_alone_is_a_mismatch(
    tmp_path: Path, name: ExportFormat, count: int
) -> None:
    told = rf"the {name} model scores a batch of 2, with which it was written, and not one of {min(count, 3)}: "
    with pytest.raises(ExportMismatch, match=told):
        compare.compare(name, written(name, MeanOfTwo(), tmp_path), reference(count), ALLOWED)


def test_an_operator_that_the_runtime_meets_and_lacks_is_no_mismatch(tmp_path: Path) -> None:
    with pytest.warns(FutureWarning, match="deprecated"):
        torch.jit.script(OnCudnnAlone()).save(str(tmp_path / "model.pt"))  # type: ignore[no-untyped-call]
    told = r"export\.types: torch cpu cannot execute the torchscript model: Could not run 'aten::cudnn_convolution'"
    with pytest.raises(ModelInvalid, match=told) as raised:
        compare.compare("torchscript", tmp_path / "model.pt", reference(), ALLOWED)
    assert raised.value.reason is Reason.MODEL_INVALID


def test_an_operator_that_the_runtime_lacks_and_says_so_at_once_is_no_mismatch(tmp_path: Path) -> None:
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    score = helper.make_tensor_value_info("pred_score", TensorProto.FLOAT, ["batch"])
    node = helper.make_node("Inspect", ["input"], ["pred_score"], domain="of.another.maker")
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("of.another.maker", 1)]
    graph = helper.make_graph([node], "g", [given], [score])
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), tmp_path / "model.onnx")
    with pytest.raises(ModelInvalid, match=r"model\.onnx cannot be loaded: .*of\.another\.maker"):
        compare.compare("onnx", tmp_path / "model.onnx", reference(), ALLOWED)


@pytest.mark.parametrize(
    ("name", "file"), [("onnx", "model.onnx"), ("torchscript", "model.pt"), ("openvino", "model.xml")]
)
def test_what_its_runtime_cannot_load_leaves_the_other_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: ExportFormat, file: str
) -> None:
    def write_nonsense(model: nn.Module, example: Tensor, folder: Path) -> list[Path]:
        (folder / file).write_bytes(b"nonsense")
        return [folder / file]

    other: ExportFormat = "torchscript" if name == "onnx" else "onnx"
    monkeypatch.setitem(export._WRITERS, name, write_nonsense)
    wanted, made = Export(types=(name, other)), reference()
    ranges = {"image": (0.0, 1.0)}
    found = export.export_all(Scoring(), wanted, made, ranges, tmp_path)
    assert isinstance(found.failure, ModelInvalid)
    assert str(found.failure).startswith(f"{file} cannot be loaded: ")
    assert [one.model.format for one in found.verified] == [other]
    assert not (tmp_path / file).exists()


@contextmanager
def disk_with(size: int) -> Iterator[None]:
    """Have no file grow larger than ``size`` bytes inside this block, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Heavy(ScoringModel):
    """The mean, beside weights of 400 kB."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", torch.arange(100_000.0))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return images.mean((1, 2, 3)) + (images[:, 0, 0, :1] * self.get_buffer("weights")).mean(1), None


def heavy() -> nn.Module:
    return TupleOutputModel(Heavy()).eval()


EXAMPLE = torch.zeros(2, 3, SIDE, SIDE)


@pytest.mark.parametrize("asked", [("onnx",), ("openvino",)])
def test_a_full_disk_is_no_fault_of_the_model(tmp_path: Path, asked: tuple[ExportFormat, ...]) -> None:
    """The storage has failed, as for any other file, and the run ends: what follows would find no room either."""
    with disk_with(100_000), pytest.raises(StorageUnavailable, match="is full: ask for more ephemeral-storage"):
        export.export_all(Heavy().eval(), Export(types=asked), reference(), {"image": (0.0, 1.0)}, tmp_path)


def test_openvino_is_told_of_a_full_disk_in_its_own_words(tmp_path: Path) -> None:
    """The graph that it is made of is there; only what OpenVINO writes does not fit."""
    write_onnx(heavy(), EXAMPLE, tmp_path)
    with disk_with(100_000), pytest.raises(RuntimeError) as raised:
        write_openvino(heavy(), EXAMPLE, tmp_path)
    assert is_full_disk(raised.value)


def test_torchscript_is_not_begun_where_it_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk torch would end the process: nobody could tell why."""
    written = write_torchscript(heavy(), EXAMPLE, tmp_path)[0].stat().st_size
    assert 400_000 < written < 400_000 + (1 << 20)
    free = 400_000 + (16 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free + 100))
    write_torchscript(heavy(), EXAMPLE, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free - 1))
    with pytest.raises(StorageUnavailable, match="free: ask for more"):
        write_torchscript(heavy(), EXAMPLE, tmp_path)


class Scoring(ScoringModel):
    """The mean, as a model of this runner."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return images.mean((1, 2, 3)), None


class Failing:
    """A loaded export that scores a batch of two and raises something for any other."""

    provider = "none"

    def __init__(self, error: Exception, of_two: Exception | None = None) -> None:
        self.error, self.of_two = error, of_two

    def run(self, images: NDArray[np.float32]) -> compare.Outputs:
        error = self.of_two if len(images) == compare.TRACED_BATCH else self.error
        if error is not None:
            raise error
        return images.mean((1, 2, 3)), None


MEMORY = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")


@pytest.mark.parametrize(
    ("loaded", "raised"),
    [
        pytest.param(Failing(MEMORY), RuntimeError, id="memory"),
        pytest.param(Failing(RuntimeError("reshape"), of_two=MEMORY), RuntimeError, id="memory of the second look"),
        pytest.param(Failing(KeyError("pred_score")), KeyError, id="a fault of this program"),
    ],
)
def test_neither_memory_nor_faults_of_this_program_are_blamed_on_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: Any, raised: type[Exception]
) -> None:
    monkeypatch.setattr(compare, "load", lambda name, file: loaded)
    with pytest.raises(raised, match=r"allocate memory|pred_score"):
        compare.compare("onnx", tmp_path / "model.onnx", reference(), ALLOWED)
