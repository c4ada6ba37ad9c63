"""Stage measure: what the trained model costs in time and memory, timed on the device of the run.

The export that an inference would load is timed: ONNX, else TorchScript; the torch model where there is neither.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from anomaly_api.run import PerformanceReport
from anomaly_api.status import Stage
from anomaly_runner.context import About, Context
from anomaly_runner.exporting.export import Exported, Exports
from anomaly_runner.exporting.on_cpu import on_cpu
from anomaly_runner.scoring.latency import TimedPredictor, Timing, on_gpu, time_predictor
from anomaly_runner.scoring.onnx_predictor import load_onnx
from anomaly_runner.scoring.predict import ScoredBatch
from anomaly_runner.scoring.torch_predictor import TorchPredictor
from anomaly_runner.scoring.torchscript_predictor import load_torchscript
from anomaly_runner.system.machine import peak_memory
from anomaly_runner.system.out_of_memory import is_out_of_memory

logger = logging.getLogger(__name__)

_LOADERS: dict[str, Callable[[Path, int], TimedPredictor]] = {"onnx": load_onnx, "torchscript": load_torchscript}
"""Loaders of the formats that an inference runs, the preferred first."""


@dataclass(frozen=True)
class Performance:
    """Metrics of what a run costs, by name, and what they were measured with; None where nothing was timed."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    report: PerformanceReport | None = None


def measure_performance(
    exports: Exports,
    folder: Path,
    predictor: TorchPredictor,
    reference: Sequence[ScoredBatch],
    context: Context,
    *,
    latency: bool,
) -> Performance:
    """Add up the model's bytes, and time it on real images of the run if ``latency`` says so.

    Args:
        exports: the model's exports.
        folder: holds their files.
        predictor: the model in torch.
        reference: batches of images, at least one.
        context: takes the stage's seconds, and a warning where nothing could be timed.
        latency: whether to time the model.

    Raises:
        Stopped: the run was asked to stop.
    """
    metrics = {"modelBytes": float(_model_bytes(exports, predictor))}
    if not latency:
        return Performance(metrics | run_costs(context))
    exported, report = _timed_export(exports), None
    with context.stage(Stage.MEASURE, unit="models"):
        try:
            timed, timing = _time(exported, folder, predictor, reference)
            metrics |= _timing_metrics(timing)
            report = _report(exported, timed, timing, context)
            _log(report)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            context.record.warn(
                f"the model's latency was not measured, for lack of memory: {error}", about=About.EXTRAS
            )
    return Performance(metrics | run_costs(context), report)


def run_costs(context: Context) -> dict[str, float]:
    """Metrics of what the run itself took so far, by name."""
    found = {"peakMemoryBytes": float(peak_memory())}
    if context.record.device and context.record.device.name != "CPU":
        found["peakGpuMemoryBytes"] = float(torch.cuda.max_memory_reserved())
    trained = context.record.seconds.get(Stage.TRAIN)
    return found if trained is None else found | {"trainSeconds": trained}


def _timed_export(exports: Exports) -> Exported | None:
    by_format = {export.model.format: export for export in exports.verified}
    return next((by_format[name] for name in _LOADERS if name in by_format), None)


def _model_bytes(exports: Exports, predictor: TorchPredictor) -> int:
    """Bytes of the export that is timed, else of the first one, else of the tensors of the model's state."""
    exported = _timed_export(exports) or next(iter(exports.verified), None)
    if exported is not None:
        return exported.report.size_bytes
    return sum(tensor.nbytes for tensor in predictor.model.state_dict().values())


def _time(
    exported: Exported | None, folder: Path, predictor: TorchPredictor, reference: Sequence[ScoredBatch]
) -> tuple[TimedPredictor, Timing]:
    images = np.concatenate([scored.batch.images for scored in reference])
    if exported is None:
        return predictor, time_predictor(predictor, images)
    # The export gets the GPU's memory, as in an inference, where there is no torch model beside it.
    with on_cpu(predictor.model):
        loaded = _LOADERS[exported.model.format](folder / exported.model.file, predictor.batch_size)
        return loaded, time_predictor(loaded, images)


def _timing_metrics(timing: Timing) -> dict[str, float]:
    found = {
        "latencyMilliseconds": np.median(timing.latencies),
        "latencyMillisecondsP90": np.percentile(timing.latencies, 90),
        "imagesPerSecond": timing.images_per_second,
    }
    return {name: _rounded(value) for name, value in found.items()}


def _rounded(value: float) -> float:
    """Six significant digits, far more than can be repeated."""
    return float(f"{value:.6g}")


def _report(exported: Exported | None, timed: TimedPredictor, timing: Timing, context: Context) -> PerformanceReport:
    device = context.record.device
    computes_on_gpu = on_gpu(timed)
    if not computes_on_gpu and device is not None and device.name != "CPU":
        context.record.warn(
            f"the latency is that of the CPU, not of {device.name}: {timed.fallback}", about=About.EXTRAS
        )
    return PerformanceReport(
        model=exported.model.format if exported else "torch",
        precision=exported.report.precision if exported else "float32",
        provider=timed.provider,
        device=device.name if computes_on_gpu and device else "CPU",
        images_timed=len(timing.latencies),
        latency_range=(_rounded(timing.latencies.min()), _rounded(timing.latencies.max())),
        batch_size=timing.batch_size,
        parallel_batches=timing.parallel,
    )


def _log(report: PerformanceReport) -> None:
    logger.info("performance", extra={"measured": report.to_json_object()})
