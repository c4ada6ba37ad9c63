"""A model trained on a device, and its scores by that device, by the CPU and by each of its exports on both."""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anomaly_api.artifacts import INPUT, MAPS, SCORES, ExportFormat
from anomaly_api.model import ModelName
from anomaly_api.run import ModelManifest, RunReport
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.scoring.checkpoint import load_checkpoint
from anomaly_runner.scoring.onnx_predictor import load_onnx
from anomaly_runner.system.machine import cpu_limit
from support.model_forms import scores_of, train_and_export
from support.model_rows import ROWS
from support.optional import not_none

BATCH = 3
CPU = torch.device("cpu")
RUN = "the run itself"
"""The scores that the run published, of batches of another size."""
Outputs = tuple[NDArray[np.float32], NDArray[np.float32] | None]
"""Scores (N,) and maps (N, H, W), or None."""
Score = Callable[[NDArray[np.float32]], Outputs]


@dataclass(frozen=True)
class Apart:
    """Largest difference of image and pixel scores from torch's on the device, as shares of the largest of them."""

    image: float
    pixel: float | None


@dataclass(frozen=True)
class DeviceForms:
    """How far others are from torch on the device where the model was trained, by what computed them."""

    trained_on: str
    """What executed the model, as the run's report names it."""
    distinct: int
    """Number of different image scores."""
    apart: dict[str, Apart]
    onnx_provider: str | None
    """What ran the ONNX model that inference would run; None without such an export."""


def forms_on(folder: Path, name: ModelName, device: torch.device) -> DeviceForms:
    """Train and export ``name`` from ``folder``/data with the runner, which takes the GPU if there is one, and compare.

    Args:
        device: must be the one that the runner takes.
    """
    row = ROWS[name]
    root = train_and_export(folder, name, list(row.usual_exports))
    report = RunReport.model_validate_json((root / "report.json").read_bytes())
    manifest = ModelManifest.model_validate_json((root / "model.json").read_bytes())
    images = test_images(folder / "data" / ("few" if row.few_images else "textures"), manifest)
    ways = dict(_ways(root, manifest, list(row.usual_exports), device))
    outputs = {way: _in_batches(score, list(images.values())) for way, score in ways.items()}
    reference = outputs.pop(f"torch on {device.type}")
    found = {way: _apart(output, reference) for way, output in outputs.items()}
    by_run = scores_of(root)
    found[RUN] = Apart(_share(np.array([by_run[path] for path in images], np.float32), reference[0]), None)
    provider = load_onnx(root / "model.onnx", BATCH).provider if "onnx" in row.usual_exports else None
    gc.collect()
    torch.cuda.empty_cache()
    return DeviceForms(not_none(report.summary.device).provider, len(np.unique(reference[0])), found, provider)


def test_images(folder: Path, manifest: ModelManifest) -> dict[str, NDArray[np.float32]]:
    """Read the good and the scratched test images of a folder by path, each as the model's input, (3, H, W)."""
    preprocessor = Preprocessor(
        height=manifest.input_height, width=manifest.input_width, normalization=manifest.normalization
    )
    files = [file for kind in ("good", "scratch") for file in sorted((folder / "test" / kind).iterdir())]
    return {
        str(file.relative_to(folder)): preprocessor.to_input(preprocessor.decode(file.read_bytes(), 1 << 24).image)
        for file in files
    }


test_images.__test__ = False  # type: ignore[attr-defined]


def _ways(
    root: Path, manifest: ModelManifest, formats: list[ExportFormat], device: torch.device
) -> Iterator[tuple[str, Score]]:
    """Everything that can score: torch and TorchScript on the CPU and on the device, and the ONNX model."""
    # the device comes last, so that torch's settings for it are in force while exports run on it
    for place in dict.fromkeys((CPU, device)):
        yield f"torch on {place.type}", _torch(root, manifest, place)
        if "torchscript" in formats:
            program = torch.jit.load(str(root / "model.pt"), map_location=place)  # type: ignore[no-untyped-call]
            yield f"torchscript on {place.type}", _on(place, program)
    if "onnx" in formats:
        yield "onnx as inference runs it", load_onnx(root / "model.onnx", BATCH).run
        yield "onnx on the CPU", _onnx_on_cpu(root / "model.onnx")


def _torch(root: Path, manifest: ModelManifest, device: torch.device) -> Score:
    size = (manifest.input_height, manifest.input_width)
    threads = TorchThreads(device)
    torch.set_num_threads(cpu_limit())
    model = load_checkpoint(not_none(manifest.definition), size, root / not_none(manifest.checkpoint).file, threads)
    return _on(device, model.to(device).eval())


def _on(device: torch.device, model: Any) -> Score:
    def score(images: NDArray[np.float32]) -> Outputs:
        with torch.inference_mode():
            scores, *maps = model(torch.from_numpy(images).to(device))
        found = maps[0][:, 0].cpu().numpy() if maps and maps[0] is not None else None
        return scores.cpu().numpy(), found

    return score


def _onnx_on_cpu(file: Path) -> Score:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    wanted = [name for name in (SCORES, MAPS) if name in names]

    def score(images: NDArray[np.float32]) -> Outputs:
        scores, *maps = session.run(wanted, {INPUT: images})
        found = maps[0].reshape(len(images), *maps[0].shape[-2:]) if maps else None
        return scores.reshape(len(images)), found

    return score


def _in_batches(score: Score, images: Sequence[NDArray[np.float32]]) -> Outputs:
    found = [score(np.stack(images[start : start + BATCH])) for start in range(0, len(images), BATCH)]
    maps = [part for _, part in found if part is not None]
    return np.concatenate([scores for scores, _ in found]), np.concatenate(maps) if maps else None


def _apart(output: Outputs, reference: Outputs) -> Apart:
    image = _share(output[0], reference[0])
    if reference[1] is None or output[1] is None:
        assert reference[1] is output[1], "one has maps, the other has none"
        return Apart(image, None)
    return Apart(image, _share(output[1], reference[1]))


def _share(found: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Largest difference as a share of the largest value; infinite where a value is not finite."""
    if not (np.isfinite(found).all() and np.isfinite(reference).all()):
        return float("inf")
    return float(np.abs(found.astype(np.float64) - reference).max() / np.abs(reference).max())
