"""Exports are written from the host's memory wherever the model is, and compared without crowding a GPU.

A GPU is not needed: torch's fake tensors have a device without having its memory, and the meta device computes shapes.
"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from anomaly_api.artifacts import Export
from anomaly_api.run import ExportReport
from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import InvalidConfig
from anomaly_runner.exporting import compare, export
from anomaly_runner.exporting.compare import load
from anomaly_runner.exporting.export import export_all
from anomaly_runner.exporting.torchscript_writer import write_torchscript
from anomaly_runner.models.base import ScoringModel
from anomaly_runner.scoring.predict import ScoredBatch
from support.torchscript import faults_off_the_cpu

SIDE = 8
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def fake_gpu() -> Iterator[None]:
    """Tensors inside have a device but no memory, so that one may be a GPU that is not there."""
    with FakeTensorMode():
        yield


class Bank(ScoringModel):
    """A model with tensors in all the places where anomalib's models have them."""

    bank: Tensor

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.register_buffer("bank", torch.zeros(3, device=device))
        self.plain = torch.zeros(2, device=device)
        self.layers: Any = [torch.zeros(1, device=device), {"scale": torch.zeros(1, device=device), "name": "a name"}]

    @property
    def tensors(self) -> list[Tensor]:
        return [self.bank, self.plain, self.layers[0], self.layers[1]["scale"]]

    @property
    def devices(self) -> set[torch.device]:
        return {tensor.device for tensor in self.tensors}

    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        return images.mean((1, 2, 3)) + sum(tensor.sum() for tensor in self.tensors), None


def scored(count: int) -> ScoredBatch:
    samples = tuple(Sample(f"{index}.png", "good") for index in range(count))
    images = np.zeros((count, 3, SIDE, SIDE), np.float32)
    return ScoredBatch(Batch(samples, images), np.zeros(count, np.float32), None)


def report(name: str, file: Path, *_: object) -> ExportReport:
    return ExportReport(
        format=name, file=file.name, size_bytes=1, max_score_difference=0, tolerance=1, images_compared=1
    )


@pytest.mark.usefixtures("fake_gpu")
def test_exports_are_written_and_compared_while_the_model_is_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = Bank(GPU), []

    def write(portable: Any, example: Tensor, folder: Path) -> list[Path]:
        seen.append({example.device, *portable.model.devices})
        (folder / "model.pt").touch()
        return [folder / "model.pt"]

    def compared(name: str, file: Path, *rest: object) -> ExportReport:
        seen.append(model.devices)
        return report(name, file)

    monkeypatch.setitem(export._WRITERS, "torchscript", write)
    monkeypatch.setattr(export, "compare", compared)
    made = export_all(model, Export(types=("torchscript",)), [scored(2)], {"image": (0.0, 1.0)}, tmp_path)
    assert len(made.verified) == 1
    assert seen == [{CPU}, {CPU}]
    assert model.devices == {GPU}
    assert model.layers[1]["name"] == "a name"


@pytest.mark.usefixtures("fake_gpu")
def test_a_model_is_back_on_its_device_after_an_export_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> list[Path]:
        raise NotImplementedError

    model = Bank(GPU)
    monkeypatch.setitem(export._WRITERS, "torchscript", refuse)
    made = export_all(model, Export(types=("torchscript",)), [scored(2)], {"image": (0.0, 1.0)}, tmp_path)
    assert isinstance(made.failure, InvalidConfig)
    assert model.devices == {GPU}


class Counting:
    """A loaded export that counts how many batches it is given at the same time."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.most = 0
        self._now = 0
        self._changed = threading.Condition()

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], None]:
        """Scores of zero, after a moment in which other threads may come in."""
        with self._changed:
            self._now += 1
            self.most = max(self.most, self._now)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._now > 1, timeout=0.2)
            self._now -= 1
        return np.zeros(len(images), np.float32), None


@pytest.mark.parametrize(
    ("provider", "at_once"),
    [
        ("CUDAExecutionProvider", 1),
        ("torch cuda", 1),
        ("OpenVINO CPU", 1),
        ("CPUExecutionProvider", 2),
        ("torch cpu", 2),
    ],
)
def test_one_batch_at_a_time_is_compared_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str, at_once: int
) -> None:
    loaded, file = Counting(provider), tmp_path / "model"
    file.touch()
    monkeypatch.setattr(compare, "cpu_limit", lambda: 2)
    monkeypatch.setattr(compare, "load", lambda *_: loaded)
    made = compare.compare("onnx", file, [scored(12)], {"image": 1.0})
    assert made.images_compared == 12
    assert loaded.most == at_once


@pytest.mark.parametrize("name", ["onnx", "torchscript", "openvino"])
def test_a_loaded_export_tells_what_executes_it(tmp_path: Path, name: Any) -> None:
    class Mean(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor]:
            return (images.mean((1, 2, 3)),)

    files = export._WRITERS[name](Mean().eval(), torch.zeros(2, 3, SIDE, SIDE), tmp_path)
    assert load(name, files[0]).provider in {"CPUExecutionProvider", "torch cpu", "OpenVINO CPU"}


class Positions(nn.Module):
    """Multiplies positions as integers, as anomalib's coordinates do."""

    def forward(self, images: Tensor) -> tuple[Tensor]:
        places = torch.arange(images.shape[-1], device="cpu")
        return (images.mean((1, 2, 3)) + (places[:, None] @ places[None]).float().mean().to(images.device),)


class Mixed(nn.Module):
    """Adds a tensor that stays on the CPU to the images."""

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return ((images + torch.zeros(SIDE).cpu()).mean((1, 2, 3)),)


@pytest.mark.parametrize(
    ("model", "fault"),
    [(Positions(), "integers"), (Mixed(), None)],
)
def test_the_check_of_programs_finds_what_a_gpu_cannot(tmp_path: Path, model: nn.Module, fault: str | None) -> None:
    [file] = write_torchscript(model.eval(), torch.zeros(2, 3, SIDE, SIDE), tmp_path)
    found = faults_off_the_cpu(file, SIDE)
    assert any(fault in one for one in found) if fault else found == []
