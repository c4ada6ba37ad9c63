"""Stage export: write the fitted model in portable formats, and compare each with torch on real images.

Every format takes normalised input (B, 3, H, W), float32, with any batch size, and returns raw scores and, if the model
localises, raw maps. An export that disagrees with torch, or has the batch size of its tracing baked in, fails the run
after everything else is published. Exports are written from the host's memory: see ``on_cpu``. Nothing here trains or
evaluates.

- ONNX: ``onnx_writer``; weights are in the same file up to 2 GB, else in a second file.
- TorchScript: ``torchscript_writer``, by tracing, for CPUs and GPUs alike.
- OpenVINO: ``openvino_writer``, from the ONNX graph; weights are a second file.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.onnx.errors import OnnxExporterError

from anomaly_api.artifacts import Export, ExportFormat
from anomaly_api.run import ExportedModel, ExportReport
from anomaly_api.status import Stage
from anomaly_runner.errors import ExportMismatch, InvalidConfig, ModelInvalid, OutOfMemory, RunFailed
from anomaly_runner.evaluation.normalize import ScoreRanges
from anomaly_runner.exporting.compare import TRACED_BATCH, compare, tolerance
from anomaly_runner.exporting.on_cpu import on_cpu
from anomaly_runner.exporting.onnx_writer import write_onnx
from anomaly_runner.exporting.openvino_writer import write_openvino
from anomaly_runner.exporting.portable import Float16Model, TupleOutputModel
from anomaly_runner.exporting.torchscript_writer import write_torchscript
from anomaly_runner.models.base import ScoringModel
from anomaly_runner.scoring.predict import ScoredBatch
from anomaly_runner.system.digest import digest
from anomaly_runner.system.full_disk import full_disk, is_full_disk
from anomaly_runner.system.out_of_memory import describe_out_of_memory, is_out_of_memory, memory_advice

logger = logging.getLogger(__name__)

Precision = Literal["float32", "float16"]


@dataclass(frozen=True)
class Exported:
    """One exported model and its comparison with torch."""

    model: ExportedModel
    report: ExportReport


@dataclass(frozen=True)
class Exports:
    """The exports that agree with torch, and the failure of the first that does not, if any.

    ``failure`` is an ExportMismatch if an export differs from torch by more than the tolerance or takes one batch size
    alone, an InvalidConfig if the model cannot be written in a format, a ModelInvalid if the format's runtime cannot
    load or execute what was written, and an OutOfMemory if memory ran out while an export was written or compared.
    """

    verified: tuple[Exported, ...] = ()
    failure: RunFailed | None = None


_OF_EXPORTERS = (OnnxExporterError, RuntimeError, TypeError, ValueError, NotImplementedError)
"""What exporters raise for a model that they cannot write."""
_WRITERS: dict[ExportFormat, Callable[[nn.Module, Tensor, Path], list[Path]]] = {
    "onnx": write_onnx,
    "torchscript": write_torchscript,
    "openvino": write_openvino,
}


def export_all(
    model: ScoringModel, spec: Export, reference: Sequence[ScoredBatch], ranges: ScoreRanges, folder: Path
) -> Exports:
    """Write the formats of the spec into a folder and compare each with torch; one that fails leaves no file.

    Args:
        model: ready to score, on any device; it is back there afterwards.
        spec: formats and precision.
        reference: torch's own scores of real images.
        ranges: lowest and highest raw scores of the run, from which tolerances are computed.
        folder: target of the files.

    Raises:
        StorageUnavailable: the disk is full: there is no room for anything else either, and another node may have some.
    """
    example = torch.zeros(TRACED_BATCH, 3, *reference[0].batch.images.shape[-2:])
    allowed = {level: tolerance(spec.precision, seen) for level, seen in ranges.items()}
    verified: list[Exported] = []
    failure: RunFailed | None = None
    with on_cpu(model):
        for name in spec.types:
            before = set(folder.iterdir())
            try:
                files = _write(name, model, spec.precision, example, folder)
                # Compare the export as inference will use it: loaded from its file by the format's runtime.
                report = compare(name, files[0], reference, allowed)
                verified.append(_exported(files, report, spec.precision))
            except Exception as error:
                failed = _failure(name, error)
                if failed is None:
                    raise
                # The other formats are still useful: the run goes on, and fails once they are published.
                logger.error("export failed", extra={"format": name, "detail": str(failed)})
                failure = failure or failed
                for file in set(folder.iterdir()) - before:
                    file.unlink()
            torch.cuda.empty_cache()  # what a TorchScript program has used there is wanted by the next runtime
    return Exports(tuple(verified), failure)


def _failure(name: ExportFormat, error: Exception) -> RunFailed | None:
    """What an exception means for one export; None if it means more than that, and ends the run."""
    if is_out_of_memory(error):
        advice = memory_advice("AnomalyExperiment", Stage.EXPORT)
        return OutOfMemory(f"export.types: {name}: {describe_out_of_memory(error, advice)}")
    return error if isinstance(error, ExportMismatch | InvalidConfig | ModelInvalid) else None


def _write(name: ExportFormat, model: ScoringModel, precision: Precision, example: Tensor, folder: Path) -> list[Path]:
    with _as_invalid_config(name):
        portable = Float16Model(model) if precision == "float16" else TupleOutputModel(model)
        return _WRITERS[name](portable, example, folder)


def _exported(files: Sequence[Path], report: ExportReport, precision: Precision) -> Exported:
    size_bytes = sum(file.stat().st_size for file in files)
    companions = {file.name: digest(file) for file in files[1:]}
    model = ExportedModel(format=report.format, file=files[0].name, sha256=digest(files[0]), companions=companions)
    return Exported(model, report.model_copy(update={"precision": precision, "size_bytes": size_bytes}))


@contextlib.contextmanager
def _as_invalid_config(name: str) -> Iterator[None]:
    """Turn an exporter's exceptions into InvalidConfig: the spec has to ask for another model or format.

    Raises:
        InvalidConfig: it cannot write the model.
        StorageUnavailable: the disk is full.
    """
    try:
        yield
    except Exception as error:
        if is_full_disk(error):
            raise full_disk(error) from error
        if is_out_of_memory(error) or not isinstance(error, _OF_EXPORTERS):
            raise
        raise InvalidConfig(f"export.types: this model cannot be written as {name}: {str(error)[:500]}") from error
