"""PatchCore's exports: a memory bank in several parts, stored once, and compared with the patches part by part."""

from pathlib import Path
from typing import Literal

import pytest
import torch

from anomaly_api.artifacts import Export
from anomaly_api.parameters import PatchcoreParameters
from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import Sample
from anomaly_runner.evaluation.normalize import ScoreRanges
from anomaly_runner.exporting.compare import load
from anomaly_runner.exporting.export import export_all
from anomaly_runner.models.backbone import choose_backbone
from anomaly_runner.models.nearest import ROWS_IN_GRAPH
from anomaly_runner.models.patchcore import Patchcore
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.scoring.predict import ScoredBatch
from support.optional import not_none

SIZE = (96, 64)
THREADS = TorchThreads(torch.device("cpu"))
ROWS = 2 * ROWS_IN_GRAPH + 452


def images(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model() -> Patchcore:
    torch.manual_seed(0)
    parameters = PatchcoreParameters(backbone="resnet18", pre_trained=False)
    choice = choose_backbone("resnet18", ("layer2", "layer3"))
    found = Patchcore(choice, parameters, SIZE, 0, lambda _: None, threads=THREADS).eval()
    with torch.inference_mode():
        found.memory_bank = found.embed(images(ROWS // 96 + 1, 1))[:ROWS]
    return found


@pytest.fixture(scope="module")
def reference(model: Patchcore) -> list[ScoredBatch]:
    with torch.inference_mode():
        scores, maps = model(images(6, 2))
    samples = tuple(Sample(f"test/good/{index}.png", "good") for index in range(6))
    return [ScoredBatch(Batch(samples, images(6, 2).numpy()), scores.numpy(), maps[:, 0].numpy())]


def ranges(reference: list[ScoredBatch]) -> ScoreRanges:
    """Score ranges of a run that also has images with lower scores."""
    return {"image": (0.0, float(reference[0].scores.max())), "pixel": (0.0, float(not_none(reference[0].maps).max()))}


@pytest.mark.parametrize("name", ["onnx", "torchscript", "openvino"])
def test_scores_are_those_of_torch_at_every_batch_size(
    model: Patchcore, reference: list[ScoredBatch], tmp_path: Path, name: Literal["onnx", "torchscript", "openvino"]
) -> None:
    scale = float(reference[0].scores.max())
    [made] = export_all(model, Export(types=(name,)), reference, ranges(reference), tmp_path).verified
    assert made.report.max_score_difference < 1e-5 * scale
    assert not_none(made.report.max_map_difference) < 1e-5 * scale
    loaded = load(name, tmp_path / made.model.file)
    for size in (1, 4):
        scores, _ = loaded.run(images(6, 2).numpy()[:size])
        assert scores == pytest.approx(reference[0].scores[:size], rel=1e-5)


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_half_precision_finds_neighbours_in_float32(
    model: Patchcore, reference: list[ScoredBatch], tmp_path: Path, name: Literal["onnx", "torchscript", "openvino"]
) -> None:
    scale = float(reference[0].scores.max())
    export = Export(types=(name,), precision="float16")
    [made] = export_all(model, export, reference, ranges(reference), tmp_path).verified
    assert 0 < not_none(made.report.max_score_difference) < 5e-3 * scale


def test_the_memory_bank_is_stored_once_and_compared_in_parts(
    model: Patchcore, reference: list[ScoredBatch], tmp_path: Path
) -> None:
    import onnx

    export_all(model, Export(types=("onnx",)), reference, ranges(reference), tmp_path)
    graph = onnx.load(tmp_path / "model.onnx").graph
    banks = [tuple(tensor.dims) for tensor in graph.initializer if ROWS in tensor.dims]
    assert banks == [(ROWS, 384)]
    assert len([node for node in graph.node if node.op_type == "TopK"]) == 3 + 1
