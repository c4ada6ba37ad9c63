"""Wherever memory runs out, the run ends as OutOfMemory, and an export that does not fit takes no other with it."""

from pathlib import Path
from typing import Any, Never

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
from torch import Tensor

from anomaly_api.artifacts import Export
from anomaly_api.model import Model
from anomaly_api.parameters import PadimParameters
from anomaly_api.reasons import Reason
from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import InternalError, ModelInvalid, OutOfMemory
from anomaly_runner.exporting import compare, export
from anomaly_runner.exporting.export import Exports, export_all
from anomaly_runner.models.backbone import choose_backbone
from anomaly_runner.models.padim import Padim
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.scoring.checkpoint import load_checkpoint
from anomaly_runner.scoring.onnx_predictor import load_onnx
from anomaly_runner.scoring.predict import ScoredBatch
from anomaly_runner.scoring.torchscript_predictor import load_torchscript
from anomaly_runner.termination import capture_failures
from anomaly_runner.training.gradient import workers
from support.contexts import make_context

SIZE = (64, 48)
THREADS = TorchThreads(torch.device("cpu"))
GPU_IS_FULL = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 9.00 GiB of which 1.00 GiB is free."
)

ERRORS = {
    "torch": torch.OutOfMemoryError(GPU_IS_FULL),
    "cuda": torch.AcceleratorError("CUDA error: out of memory"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "host": MemoryError(),
}


@pytest.fixture(params=ERRORS)
def error(request: pytest.FixtureRequest) -> BaseException:
    """An error that means that memory has run out."""
    return ERRORS[request.param]


@pytest.fixture(scope="module")
def model() -> Padim:
    torch.manual_seed(3)
    padim = Padim(
        choose_backbone("resnet18", ("layer1",)), PadimParameters(pre_trained=False, n_features=8), SIZE, THREADS
    )
    padim.eval().learn([torch.randn(6, 3, *SIZE)], THREADS)
    return padim


def raising(error: BaseException) -> Any:
    def fail(*_: object, **__: object) -> Never:
        raise error

    return fail


def ended(work: Any, tmp_path: Path) -> Reason:
    """The reason of a run that does this."""
    context = make_context(tmp_path)
    return capture_failures(work, context).summary.reason


def exported(model: Padim, folder: Path, *types: str) -> Exports:
    images = torch.randn(4, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        scores, maps = (found.numpy() for found in model(images))
    samples = tuple(Sample(f"{index}.png", "good") for index in range(len(images)))
    reference = [ScoredBatch(Batch(samples, images.numpy()), scores, maps[:, 0])]
    ranges = {"image": (float(scores.min()), float(scores.max())), "pixel": (float(maps.min()), float(maps.max()))}
    return export_all(model, Export.model_validate({"types": types}), reference, ranges, folder)


def test_an_export_that_is_not_written_for_lack_of_memory_leaves_the_others(
    model: Padim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setitem(export._WRITERS, "torchscript", raising(error))
    made = exported(model, tmp_path, "torchscript", "onnx")
    assert isinstance(made.failure, OutOfMemory)
    assert str(made.failure).startswith("export.types: torchscript: out of ")
    assert [one.model.format for one in made.verified] == ["onnx"]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


class Full:
    """A loaded export whose runtime has no memory for a batch."""

    provider = "none"

    def __init__(self, error: BaseException) -> None:
        self.run = raising(error)


def test_an_export_that_is_not_compared_for_lack_of_memory_leaves_the_others(
    model: Padim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    load = compare.load
    monkeypatch.setattr(compare, "load", lambda name, file: Full(error) if name == "onnx" else load(name, file))
    made = exported(model, tmp_path, "onnx", "torchscript")
    assert isinstance(made.failure, OutOfMemory)
    assert [one.model.format for one in made.verified] == ["torchscript"]
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_an_export_that_its_runtime_cannot_load_leaves_the_others(
    model: Padim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_nonsense(module: torch.nn.Module, example: Tensor, folder: Path) -> list[Path]:
        (folder / "model.pt").write_bytes(b"nonsense")
        return [folder / "model.pt"]

    monkeypatch.setitem(export._WRITERS, "torchscript", write_nonsense)
    made = exported(model, tmp_path, "torchscript", "onnx")
    assert isinstance(made.failure, ModelInvalid)
    assert [one.model.format for one in made.verified] == ["onnx"]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_other_errors_of_a_comparison_end_the_run(
    model: Padim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "compare", raising(KeyError("a fault of this program")))
    with pytest.raises(KeyError):
        exported(model, tmp_path, "torchscript")


def test_a_torchscript_model_that_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(torch.jit, "load", raising(error))
    assert ended(lambda: load_torchscript(tmp_path / "model.pt", 8), tmp_path) is Reason.OUT_OF_MEMORY


def test_an_onnx_model_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", raising(error))
    assert ended(lambda: load_onnx(tmp_path / "model.onnx", 8), tmp_path) is Reason.OUT_OF_MEMORY


def test_a_checkpoint_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    monkeypatch.setattr(safetensors.torch, "load_file", raising(error))
    spec = Model.model_validate({"name": "padim", "padim": {"layers": ["layer1"], "nFeatures": 8}})
    assert ended(lambda: load_checkpoint(spec, SIZE, tmp_path / "x", THREADS), tmp_path) is Reason.OUT_OF_MEMORY


def test_a_backbone_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    choice, parameters = choose_backbone("resnet18", ("layer1",)), PadimParameters()
    monkeypatch.setattr("timm.create_model", raising(error))
    assert ended(lambda: choose_backbone("resnet18", ("layer1",)), tmp_path) is Reason.OUT_OF_MEMORY
    assert ended(lambda: Padim(choice, parameters, SIZE, THREADS), tmp_path) is Reason.OUT_OF_MEMORY


def test_the_log_of_a_worker_tells(tmp_path: Path, error: BaseException) -> None:
    log = tmp_path / "device1.log"
    log.write_text(
        f"Traceback (most recent call last):\n  ...\n{type(error).__module__}.{type(error).__name__}: {error}\n"
    )
    failure = workers._failure(1, log)
    assert isinstance(failure, OutOfMemory)
    assert "training.devices: the process device1 ended with code 1: out of " in str(failure)
    assert "lower training.trainBatchSize" in str(failure)
    log.write_text("ValueError: something else")
    assert isinstance(workers._failure(1, log), InternalError)


def test_real_requests_that_no_machine_can_serve_are_recognised(tmp_path: Path) -> None:
    """What torch and numpy say in this version: the messages of the other tests are written by hand."""
    assert ended(lambda: torch.empty(1 << 50), tmp_path) is Reason.OUT_OF_MEMORY
    assert ended(lambda: np.empty(1 << 50), tmp_path) is Reason.OUT_OF_MEMORY
