"""What TF32 and half precision change: the speed of a trained model over images on its device, and its scores."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from anomaly_api.run import ModelManifest
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.exporting.portable import Float16Model, TupleOutputModel
from anomaly_runner.models.catalog import CATALOG
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.scoring.checkpoint import load_checkpoint
from benchmarks.gpu.sides import EVAL_BATCH, RESULTS, Task

_SECONDS = 1.0
"""How long a model is run for its speed, at least."""


@dataclass(frozen=True)
class Scored:
    """Image scores (N,), maps (N, H, W) or None, and the images a second of the forward passes."""

    scores: NDArray[np.float32]
    maps: NDArray[np.float32] | None
    speed: float


def compare(task: Task) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each precision and its values, for the model that the runner has just trained; exact float32 first."""
    images, labels = _images(task)
    exact: Scored | None = None
    for name, prepare in _precisions(task).items():
        scored = _scored(prepare(), images)
        exact = exact or scored
        yield name, _values(scored, exact, labels)


def _precisions(task: Task) -> dict[str, Callable[[], nn.Module]]:
    found = {"float32": lambda: _model(task, tf32=False), "TF32": lambda: _model(task, tf32=True)}
    if task.device.type == "cpu":
        return {"float32": found["float32"]}  # CPUs have no TF32, and most take hours in float16
    if CATALOG[task.model].exports.float16:
        found["float16"] = lambda: _model(task, tf32=False, half=True)
    return found


def _model(task: Task, *, tf32: bool, half: bool = False) -> nn.Module:
    root = task.folder / RESULTS
    manifest = _manifest(task)
    assert manifest.definition is not None
    assert manifest.checkpoint is not None
    threads = TorchThreads(task.device, tf32=tf32)
    model = load_checkpoint(manifest.definition, (task.side, task.side), root / manifest.checkpoint.file, threads)
    model = model.to(task.device).eval()
    return Float16Model(model) if half else TupleOutputModel(model)


def _manifest(task: Task) -> ModelManifest:
    return ModelManifest.model_validate_json((task.folder / RESULTS / "model.json").read_bytes())


def _images(task: Task) -> tuple[Tensor, NDArray[np.bool_]]:
    """The test images on the device (N, 3, H, W), and whether each is defective."""
    manifest = _manifest(task)
    preprocessor = Preprocessor(height=task.side, width=task.side, normalization=manifest.normalization)
    files = sorted((task.folder / "data/gravel/test").rglob("*.png"))
    pixels = np.stack([preprocessor.to_input(Image.open(file)) for file in files])
    return torch.from_numpy(pixels).to(task.device), np.array([file.parent.name != "good" for file in files])


def _scored(model: nn.Module, images: Tensor) -> Scored:
    with torch.inference_mode():
        parts = [model(part) for part in torch.split(images, EVAL_BATCH)]
        scores = torch.cat([found[0] for found in parts]).cpu().numpy()
        maps = torch.cat([found[1][:, 0] for found in parts]).cpu().numpy() if len(parts[0]) > 1 else None
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < _SECONDS:
            for part in torch.split(images, EVAL_BATCH):
                found = model(part)
            found[0].cpu()
            done += len(images)
        return Scored(scores, maps, done / (time.perf_counter() - began))


def _values(scored: Scored, exact: Scored, labels: NDArray[np.bool_]) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    values = {"images/s": scored.speed, "image AUROC": float(roc_auc_score(labels, scored.scores))}
    values["image scores differ by"] = _share(scored.scores, exact.scores)
    if scored.maps is not None and exact.maps is not None:
        values["pixel scores differ by"] = _share(scored.maps, exact.maps)
    return values


def _share(found: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    """Largest difference, as a share of the largest score."""
    return float(np.abs(found.astype(np.float64) - exact).max() / np.abs(exact).max())
