"""All runtimes give the same scores, at any batch size and for images of many sizes."""

import json
import pkgutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow.parquet
import pytest
import torch
from PIL import Image

from anomaly_runner.local import run_locally
from support.textures import EXPERIMENT, INFERENCE, Document, scratched, texture, write_manifest, write_textures

MODELS: dict[str, dict[str, Any]] = {
    "padim": {"padim": {"backbone": "resnet18", "layers": ["layer1", "layer2"], "preTrained": False, "nFeatures": 20}},
    "patchcore": {"patchcore": {"backbone": "resnet18", "preTrained": False, "numNeighbors": 3}},
}
SIDES = (64, 96, 50, 133, 64, 31, 200)


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained model in every format, and with images of many sizes for inference."""

    def change(document: Document) -> None:
        document["spec"]["model"] = {"name": request.param} | MODELS[request.param]
        document["spec"]["export"] = {"types": ["onnx", "torchscript"]}
        document["spec"]["output"]["keepCheckpoint"] = True

    made = tmp_path_factory.mktemp(request.param)
    write_textures(made / "data/textures")
    (made / "data/mixed").mkdir()
    for index, side in enumerate(SIDES):
        image = scratched(400 + index)[0] if index % 2 else texture(400 + index)
        image.resize((side, side + 7), Image.Resampling.BICUBIC).save(made / f"data/mixed/{index}.png")
    assert run_locally(write_manifest(made, EXPERIMENT, change), made) == 0
    return made


def scores(folder: Path, category: str = "textures", layout: str = "labelled", **spec: Any) -> dict[str, float]:
    def change(document: Document) -> None:
        document["spec"] |= spec
        document["spec"]["visualization"] = {}
        document["spec"]["input"] |= {"category": category, "layout": layout}

    assert run_locally(write_manifest(folder, INFERENCE, change), folder) == 0
    return table(folder, "look")


def table(folder: Path, name: str) -> dict[str, float]:
    file = folder / "results/factory" / name / "local/predictions.parquet"
    rows = pyarrow.parquet.read_table(file).to_pylist()
    return {row["path"]: row["score"] for row in rows}


@pytest.mark.parametrize("runtime", ["onnx", "torchscript", "torch"])
def test_scores_equal_those_of_the_training(folder: Path, runtime: str) -> None:
    trained, found = table(folder, "textures"), scores(folder, runtime=runtime)
    assert found == pytest.approx({path: trained[path] for path in found}, rel=1e-5)
    assert len(found) == 10


@pytest.mark.parametrize(
    ("runtime", "told"),
    [
        ("onnx", "trained_model.load_onnx"),
        ("torchscript", "torchscript_predictor.TorchThreads"),
        ("torch", "checkpoint.TorchThreads"),
    ],
)
def test_tf32_reaches_the_runtime_and_without_a_gpu_changes_nothing_but_says_so(
    folder: Path, runtime: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    trained = table(folder, "textures")
    with monkeypatch.context() as patched:
        called = Mock(wraps=pkgutil.resolve_name(f"anomaly_runner.scoring.{told}"))
        patched.setattr(f"anomaly_runner.scoring.{told}", called)
        found = scores(folder, runtime=runtime, precision="tf32")
    assert called.call_args.kwargs["tf32"] is True
    assert found == pytest.approx({path: trained[path] for path in found}, rel=1e-5)
    report = json.loads((folder / "results/factory/look/local/report.json").read_text())
    assert ["tf32 has no effect on this CPU" in warning for warning in report["summary"]["warnings"]] == [True]


@pytest.mark.parametrize("runtime", ["onnx", "torchscript", "torch"])
def test_images_of_many_sizes_get_the_same_scores_together_and_alone(folder: Path, runtime: str) -> None:
    together = scores(folder, "mixed", "flat", runtime=runtime, batchSize=len(SIDES))
    alone = scores(folder, "mixed", "flat", runtime=runtime, batchSize=1)
    assert len(together) == len(SIDES)
    assert alone == pytest.approx(together, rel=1e-6)
