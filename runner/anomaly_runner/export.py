"""Stage export: the fitted model as ONNX, held against torch on real images.

The graph takes normalised input (B, 3, H, W) and answers raw scores and raw maps, with any batch size; weights
are inside the one file. torch's older, tracing exporter writes it: these models are plain tensor programs
that it covers, and it takes 1 s where the newer one takes 5. Parity is measured, not assumed.
"""

import contextlib
import io
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.onnx.errors import OnnxExporterError

from anomaly_api.run import ExportedModel, ExportReport
from anomaly_runner.batches import Batch
from anomaly_runner.errors import ExportMismatch
from anomaly_runner.models.base import MemoryModel
from anomaly_runner.onnx_predictor import INPUT, MAPS, SCORES, load_onnx
from anomaly_runner.predict import Predictions, Scored

logger = logging.getLogger(__name__)

OPSET = 18
COMPARED = 32
"""Real images on which an export is held against torch."""
TOLERANCE = 1e-4
"""Largest difference from torch, as a share of the largest raw score in the run.

Scores are roots of sums of hundreds of float32 products, added up in another order: rounding alone gives some
1e-6 of their size. A wrong operator shows at 1e-2 and more.
"""


@dataclass(frozen=True)
class Exported:
    """One exported file and its comparison with torch."""

    model: ExportedModel
    report: ExportReport


def export_onnx(model: MemoryModel, size: tuple[int, int], file: Path) -> None:
    """Write the model for inputs (B, 3, *size)."""
    example = torch.zeros(2, 3, *size, device=next(model.buffers()).device)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own deprecation, and traced constants: shapes are fixed
        try:
            _trace(model, example, file)
        except OnnxExporterError as error:
            logger.info("the tracing exporter cannot write this backbone (%s); using torch.export", error)
            _torch_export(model, example, file)


def _trace(model: MemoryModel, example: torch.Tensor, file: Path) -> None:
    axes = {name: {0: "batch"} for name in (INPUT, SCORES, MAPS)}
    torch.onnx.export(model, (example,), str(file), dynamo=False, opset_version=OPSET, input_names=[INPUT],
                      output_names=[SCORES, MAPS], dynamic_axes=axes)  # fmt: skip


def _torch_export(model: MemoryModel, example: torch.Tensor, file: Path) -> None:
    batch = torch.export.Dim("batch")
    torch.onnx.export(model, (example,), str(file), dynamo=True, opset_version=OPSET, input_names=[INPUT],
                      output_names=[SCORES, MAPS], dynamic_shapes=({0: batch},), external_data=False,
                      verbose=False)  # fmt: skip


def compare(file: Path, predictions: Predictions) -> ExportReport:
    """Hold an export against torch's raw outputs for the run's first images, in the same batches and one alone.

    Raises:
        ExportMismatch: further apart than rounding explains.
    """
    predictor = load_onnx(file, COMPARED)
    score, pixel = 0.0, 0.0
    for expected in (*predictions.reference, _first_alone(predictions.reference[0])):
        scores, maps = predictor.run(expected.batch.images)
        score = max(score, _distance(scores, expected.scores))
        pixel = max(pixel, _distance(maps, expected.maps))
    _check(score, pixel, predictions)
    count = sum(len(scored.scores) for scored in predictions.reference)
    return ExportReport(format="onnx", file=file.name, size_bytes=file.stat().st_size, max_score_difference=score,
                        max_map_difference=pixel, images_compared=count)  # fmt: skip


def _first_alone(scored: Scored) -> Scored:
    batch = Batch(scored.batch.samples[:1], scored.batch.images[:1])
    return Scored(batch, scored.scores[:1], scored.maps[:1])


def _distance(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    return float(np.abs(first.astype(np.float64) - second).max())


def _check(score: float, pixel: float, predictions: Predictions) -> None:
    scale = max(float(np.abs(predictions.scores).max()), abs(predictions.pixel_range[1]))
    if not max(score, pixel) <= TOLERANCE * scale:
        raise ExportMismatch(f"the ONNX model disagrees with torch: scores by {score:.3g}, maps by {pixel:.3g}, where "
                             f"{TOLERANCE * scale:.3g} is allowed")  # fmt: skip
