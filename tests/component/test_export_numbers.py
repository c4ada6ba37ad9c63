"""What a run tells of its exports: their files and sizes, how far they are from torch, and which failure counts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomaly_api.artifacts import Export
from anomaly_api.model import Model
from anomaly_api.parameters import PadimParameters
from anomaly_api.run import ExportReport
from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import ExportMismatch, ModelInvalid
from anomaly_runner.exporting import compare, export
from anomaly_runner.exporting.export import Exports, export_all
from anomaly_runner.models.base import ScoringModel
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.scoring import checkpoint
from anomaly_runner.scoring.predict import ScoredBatch
from anomaly_runner.system.digest import digest

SIDE = 4
RANGES = {"image": (0.0, 10.0), "pixel": (0.0, 5.0)}


class Nothing(ScoringModel):
    """A model without weights."""

    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        return images.mean((1, 2, 3)), None


def reference(count: int = 4) -> list[ScoredBatch]:
    images = np.zeros((count, 3, SIDE, SIDE), np.float32)
    samples = tuple(Sample(f"{index}.png", "good") for index in range(count))
    return [ScoredBatch(Batch(samples, images), np.zeros(count, np.float32), np.zeros((count, SIDE, SIDE), np.float32))]


class Shifted:
    """A loaded export whose scores and maps are higher than torch's."""

    provider = "openvino CPU"

    def __init__(self, scores: float, maps: float) -> None:
        self.sizes: list[int] = []
        self._scores, self._maps = scores, maps

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self.sizes.append(len(images))
        count = len(images)
        return np.full(count, self._scores, np.float32), np.full((count, SIDE, SIDE), self._maps, np.float32)


def test_each_level_is_told_with_its_own_difference_and_tolerance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Shifted(0.25, -0.5)
    monkeypatch.setattr(compare, "load", lambda *_: loaded)
    (tmp_path / "model.onnx").write_bytes(b"12345")
    found = compare.compare("onnx", tmp_path / "model.onnx", reference(), {"image": 0.3, "pixel": 0.6})
    assert (found.max_score_difference, found.tolerance) == (0.25, 0.3)
    assert (found.max_map_difference, found.map_tolerance) == (0.5, 0.6)
    assert (found.file, found.size_bytes, found.images_compared) == ("model.onnx", 5, 4)
    assert sorted(loaded.sizes) == [1, 1, 3], "batches of another size than the graph was written with, and one image"


@pytest.mark.parametrize(
    ("scores", "maps", "fails"),
    [(0.3, 0.6, False), (0.31, 0.0, True), (0.0, 0.61, True)],
    ids=["equal", "image", "pixel"],
)
def test_either_level_fails_an_export(
    scores: float, maps: float, fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "load", lambda *_: Shifted(scores, maps))
    (tmp_path / "model.onnx").touch()
    allowed = {"image": float(np.float32(0.3)), "pixel": float(np.float32(0.6))}
    if not fails:
        compare.compare("onnx", tmp_path / "model.onnx", reference(), allowed)
        return
    with pytest.raises(ExportMismatch, match=rf"image scores by {scores:.3g}, where 0.3 .* pixel scores by {maps:.3g}"):
        compare.compare("onnx", tmp_path / "model.onnx", reference(), allowed)


def exports(folder: Path, monkeypatch: pytest.MonkeyPatch, **outcomes: Exception | None) -> tuple[Exports, list[Any]]:
    """Write formats of two files each, of which some fail when they are compared; and what each was allowed."""
    allowed: list[Any] = []

    def writing(name: str) -> Any:
        def write(_model: Any, example: Tensor, target: Path) -> list[Path]:
            assert example.shape == (2, 3, SIDE, SIDE)
            files = [target / f"{name}.graph", target / f"{name}.weights"]
            files[0].write_bytes(b"123")
            files[1].write_bytes(b"1234567")
            return files

        return write

    def compared(name: Any, file: Path, _: Any, tolerances: Any) -> ExportReport:
        allowed.append(dict(tolerances))
        error = outcomes[name]
        if error is not None:
            raise error
        return ExportReport(format=name, file=file.name, size_bytes=3, max_score_difference=0, images_compared=4)

    monkeypatch.setattr(export, "compare", compared)
    monkeypatch.setattr(export, "_WRITERS", {name: writing(name) for name in outcomes})
    spec = Export.model_validate({"types": list(outcomes), "precision": "float32"})
    return export_all(Nothing(), spec, reference(), RANGES, folder), allowed


def test_all_files_of_an_export_count_and_are_digested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, allowed = exports(tmp_path, monkeypatch, openvino=None)
    (one,) = made.verified
    assert (one.model.file, one.model.sha256) == ("openvino.graph", digest(tmp_path / "openvino.graph"))
    assert one.model.companions == {"openvino.weights": digest(tmp_path / "openvino.weights")}
    assert (one.report.size_bytes, one.report.precision) == (10, "float32")
    assert allowed == [{"image": pytest.approx(1e-3), "pixel": pytest.approx(5e-4)}]


def test_the_first_failure_is_that_of_the_run_and_its_files_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.json").touch()
    first, second = ModelInvalid("no operator"), ExportMismatch("others")
    made, _ = exports(tmp_path, monkeypatch, onnx=first, torchscript=None, openvino=second)
    assert made.failure is first
    assert [one.model.format for one in made.verified] == ["torchscript"]
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "torchscript.graph", "torchscript.weights"}


def test_no_weights_are_looked_for_where_the_state_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod that scores has neither the internet nor a cache of weights."""
    built: list[Any] = []
    monkeypatch.setattr(checkpoint, "build_memory_model", lambda *given: built.append(given))
    definition = Model.model_validate({"name": "padim", "padim": {"backbone": "resnet18", "nFeatures": 7}})
    threads = TorchThreads(torch.device("cpu"))
    checkpoint._build_model(definition, (64, 32), threads)
    ((parameters, size, there, tiling),) = built
    assert isinstance(definition.parameters, PadimParameters)
    assert definition.parameters.pre_trained
    assert (parameters.pre_trained, parameters.n_features) == (False, 7)
    assert (size, there, tiling) == ((64, 32), threads, None)
