"""Compare an export with torch on real images of the run: parity is measured, never assumed."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from anomaly_api.artifacts import ExportFormat
from anomaly_api.run import ExportReport
from anomaly_runner.data.batches import Batch
from anomaly_runner.errors import ExportMismatch, ModelInvalid
from anomaly_runner.scoring.onnx_predictor import load_onnx
from anomaly_runner.scoring.openvino_predictor import load_openvino
from anomaly_runner.scoring.predict import ScoredBatch
from anomaly_runner.scoring.torchscript_predictor import load_torchscript
from anomaly_runner.system.machine import cpu_limit
from anomaly_runner.system.out_of_memory import is_out_of_memory
from anomaly_runner.system.parallel import ordered_map

REFERENCE_IMAGES = 32
"""Number of real images on which an export is compared with torch."""
TRACED_BATCH = 2
"""Images in the batch that a graph is written with: torch.export would treat a batch of one image as a constant."""
_COMPARE_BATCH = 3
"""Images in a batch of the comparison: another number than the graph was written with reveals a baked-in batch size;
and few, because runtimes keep memory for the largest batch that they have seen."""
TOLERANCES = {"float32": 1e-4, "float16": 2e-2}
"""Largest difference from torch, as a share of the largest raw score of the run, for images and pixels separately.

float32: scores are roots of sums of hundreds of products, added up in another order; rounding alone causes differences
of about 1e-6 of the score, a wrong operator 1e-2 and more. float16: rounding causes 5e-4 a number, which adds up over
tens of layers; a wrong operator causes 1e-1.
"""
_SHARE_OF_SPREAD = 0.1
"""Largest difference, as a share of the spread between the lowest and the highest score of the run (if they differ):
an export that is further from torch cannot tell images apart."""
_ROUNDING = {"float32": 1e-6, "float16": 1e-3}
"""Difference that always passes, as a share of the largest score: rounding alone, where all scores are equal."""

_PROGRAM_FAULTS = (AssertionError, AttributeError, KeyError, TypeError)
"""Errors that no runtime raises for a model that it cannot execute."""
_AFTER_TRACEBACKS = re.compile(r"TorchScript interpreter\..*^\w+Error: (.*)", re.MULTILINE | re.DOTALL)

Outputs = tuple[NDArray[np.float32], NDArray[np.float32] | None]


class LoadedExport(Protocol):
    """An export, loaded by its runtime."""

    @property
    def provider(self) -> str:
        """What executes it, such as ``torch cuda`` or ``CPUExecutionProvider``."""

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """Raw scores (B,) and maps (B, H, W), or None."""


def tolerance(precision: str, seen: tuple[float, float]) -> float:
    """Largest absolute difference of a raw score that passes.

    Args:
        precision: of the export's weights, float32 or float16.
        seen: lowest and highest raw score of the run.
    """
    low, high = seen
    largest = max(abs(low), abs(high))
    still_separable = _SHARE_OF_SPREAD * (high - low) or math.inf
    return max(min(TOLERANCES[precision] * largest, still_separable), _ROUNDING[precision] * largest)


def load(name: ExportFormat, file: Path) -> LoadedExport:
    """Load an export with the runtime of its format.

    Raises:
        ModelInvalid: the runtime cannot load it.
    """
    if name == "onnx":
        return load_onnx(file, REFERENCE_IMAGES)
    if name == "openvino":
        return load_openvino(file)
    return load_torchscript(file, REFERENCE_IMAGES)


def compare(
    name: ExportFormat, file: Path, reference: Sequence[ScoredBatch], allowed: Mapping[str, float]
) -> ExportReport:
    """Compare an export's raw outputs with torch's on real images, in small batches and for a single image.

    Args:
        name: format of the export.
        file: the export.
        reference: torch's raw outputs, with their input.
        allowed: largest absolute difference by level (image, pixel).

    Raises:
        ExportMismatch: outputs differ more than allowed or are not finite, or the graph takes only the batch size that
            it was written with.
        ModelInvalid: the runtime cannot load or execute the export, as where it lacks an operator.
        Exception: the runtime's own, where memory ran out (``is_out_of_memory``), and those of this program's faults.
    """
    differences = _max_differences(name, load(name, file), reference)
    if any(difference > allowed[level] for level, difference in differences.items()):
        details = ", ".join(
            f"{level} scores by {difference:.3g}, where {allowed[level]:.3g} is allowed"
            for level, difference in differences.items()
        )
        raise ExportMismatch(f"the {name} model disagrees with torch: {details}")
    return ExportReport(
        format=name,
        file=file.name,
        size_bytes=file.stat().st_size,
        max_score_difference=differences["image"],
        max_map_difference=differences.get("pixel"),
        tolerance=allowed["image"],
        map_tolerance=allowed.get("pixel"),
        images_compared=sum(len(scored.scores) for scored in reference),
    )


def _max_differences(name: str, loaded: LoadedExport, reference: Sequence[ScoredBatch]) -> dict[str, float]:
    """Largest absolute difference by level; no entry for pixels if the model does not localise."""
    differences = {"image": 0.0} | ({} if reference[0].maps is None else {"pixel": 0.0})
    batches = (*_small_batches(reference), _rows(reference[0], slice(1)))
    answers = ordered_map(lambda expected: _run(name, loaded, expected.batch.images), batches, _threads(loaded))
    for expected, (scores, maps) in zip(batches, answers, strict=True):
        differences["image"] = max(differences["image"], _max_difference(scores, expected.scores))
        if expected.maps is not None:
            differences["pixel"] = max(differences["pixel"], _max_difference(maps, expected.maps))
    return differences


def _threads(loaded: LoadedExport) -> int:
    """Number of batches to compare at the same time.

    One on a GPU, where each would take memory of its own and none would be faster for it, and one for OpenVINO, which
    takes all CPUs for a batch; else one for each CPU.
    """
    provider = loaded.provider.lower()
    return 1 if "cuda" in provider or "openvino" in provider else cpu_limit()


def _run(name: str, loaded: LoadedExport, images: NDArray[np.float32]) -> Outputs:
    try:
        return loaded.run(images)
    except _PROGRAM_FAULTS:
        raise
    except Exception as error:  # runtimes raise various errors for what they cannot execute
        if is_out_of_memory(error):
            raise
        raise _why_not(name, loaded, images, error) from error


def _why_not(
    name: str, loaded: LoadedExport, images: NDArray[np.float32], error: Exception
) -> ExportMismatch | ModelInvalid:
    """What it means that a runtime cannot score a batch: one of the size that the graph was written with tells.

    Raises:
        Exception: the runtime's own, where memory ran out.
    """
    said = _words(error)
    try:
        loaded.run(np.resize(images, (TRACED_BATCH, *images.shape[1:])))
    except Exception as again:
        if is_out_of_memory(again):
            raise
        return ModelInvalid(f"export.types: {loaded.provider} cannot execute the {name} model: {said}")
    return ExportMismatch(
        f"the {name} model scores a batch of {TRACED_BATCH}, with which it was written, and not one of {len(images)}: "
        f"{said}"
    )


def _words(error: Exception) -> str:
    """What a runtime said; TorchScript writes two tracebacks before it."""
    found = _AFTER_TRACEBACKS.search(str(error))
    return (found[1] if found else str(error))[:300]


def _small_batches(reference: Sequence[ScoredBatch]) -> Iterator[ScoredBatch]:
    """The same images in batches of ``_COMPARE_BATCH``."""
    for scored in reference:
        for start in range(0, len(scored.scores), _COMPARE_BATCH):
            yield _rows(scored, slice(start, start + _COMPARE_BATCH))


def _rows(scored: ScoredBatch, rows: slice) -> ScoredBatch:
    batch = Batch(scored.batch.samples[rows], scored.batch.images[rows])
    return ScoredBatch(batch, scored.scores[rows], None if scored.maps is None else scored.maps[rows])


def _max_difference(found: NDArray[np.float32] | None, expected: NDArray[np.float32]) -> float:
    """Largest absolute difference; infinite if outputs are missing or not finite."""
    if found is None or not np.isfinite(found).all():
        return math.inf
    return float(np.abs(found.astype(np.float64) - expected).max())
