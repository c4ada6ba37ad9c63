"""What a run says that its model costs: which form is timed, how its times are told, and on which device."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from anomaly_api.run import ExportedModel, ExportReport
from anomaly_api.status import Device, Stage
from anomaly_runner.context import Context
from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import Sample
from anomaly_runner.exporting import performance
from anomaly_runner.exporting.export import Exported, Exports
from anomaly_runner.exporting.performance import Performance, measure_performance, run_costs
from anomaly_runner.scoring.latency import Timing
from anomaly_runner.scoring.predict import ScoredBatch
from support.contexts import make_context
from support.optional import not_none

LATENCIES = np.array([10.0, 20, 30, 40, 50, 60, 70, 80, 90, 1000])
"""Median 55; by linear interpolation 90 % lie below 90 + 0.1 x 910 = 181."""
TIMING = Timing(LATENCIES, images_per_second=123.4567891, batch_size=4, parallel=2)
GPU = Device(name="NVIDIA H200", provider="torch cuda")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return make_context(tmp_path)


def exported(name: Any, size: int, precision: Any = "float32") -> Exported:
    file = f"model.{name}"
    report = ExportReport(
        format=name, file=file, size_bytes=size, max_score_difference=0, images_compared=1, precision=precision
    )
    return Exported(ExportedModel(format=name, file=file, sha256="0" * 64), report)


class Predictor:
    """A torch model of 3 x 2 numbers of 4 bytes, and 2 of bias."""

    batch_size = 16
    provider = "torch cpu"
    fallback = "no driver"

    def __init__(self) -> None:
        self.model = nn.Linear(3, 2)


def reference() -> list[ScoredBatch]:
    """Two batches of 2 and 1 images."""
    images = np.zeros((3, 3, 4, 4), np.float32)
    samples = tuple(Sample(f"{index}.png", "good") for index in range(3))
    return [
        ScoredBatch(Batch(samples[rows], images[rows]), np.zeros(len(samples[rows]), np.float32), None)
        for rows in (slice(2), slice(2, 3))
    ]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is timed, and on how many images; exports are loaded on the CPU."""
    seen: list[tuple[str, int]] = []

    def loading(name: str) -> Any:
        def load(file: Path, batch_size: int) -> Any:
            assert (file.name, batch_size) == (f"model.{name}", 16)
            return SimpleNamespace(name=name, provider="CPUExecutionProvider", fallback="no driver")

        return load

    def time(predictor: Any, images: NDArray[np.float32]) -> Timing:
        seen.append((getattr(predictor, "name", "torch"), len(images)))
        return TIMING

    monkeypatch.setattr(performance, "_LOADERS", {name: loading(name) for name in performance._LOADERS})
    monkeypatch.setattr(performance, "time_predictor", time)
    monkeypatch.setattr(performance, "peak_memory", lambda: 1_000_000)
    return seen


def measured(context: Context, *exports: Exported, latency: bool = True) -> Performance:
    predictor: Any = Predictor()
    return measure_performance(Exports(exports), context.work, predictor, reference(), context, latency=latency)


def test_latencies_are_told_by_median_and_90th_percentile_with_six_digits(
    context: Context, timed: list[tuple[str, int]]
) -> None:
    found = measured(context, exported("onnx", 5000))
    assert found.metrics == {
        "modelBytes": 5000.0,
        "latencyMilliseconds": 55.0,
        "latencyMillisecondsP90": 181.0,
        "imagesPerSecond": 123.457,
        "peakMemoryBytes": 1_000_000.0,
    }
    report = not_none(found.report)
    assert (report.images_timed, report.latency_range) == (10, (10.0, 1000.0))
    assert (report.batch_size, report.parallel_batches) == (4, 2)
    assert timed == [("onnx", 3)]


@pytest.mark.parametrize(
    ("exports", "model", "size"),
    [
        ((("openvino", 30), ("torchscript", 20), ("onnx", 10)), "onnx", 10),
        ((("openvino", 30), ("torchscript", 20)), "torchscript", 20),
        ((("openvino", 30),), "torch", 30),
        ((), "torch", 32),
    ],
    ids=["ONNX first", "else TorchScript", "OpenVINO runs nowhere", "no export"],
)
def test_what_an_inference_would_load_is_timed(
    exports: tuple[tuple[str, int], ...], model: str, size: int, context: Context, timed: list[tuple[str, int]]
) -> None:
    found = measured(context, *(exported(*one) for one in exports))
    assert timed == [(model, 3)]
    assert not_none(found.report).model == model
    assert found.metrics["modelBytes"] == size


def test_the_precision_is_that_of_the_export(context: Context, timed: list[tuple[str, int]]) -> None:
    assert not_none(measured(context, exported("onnx", 1, "float16")).report).precision == "float16"
    assert not_none(measured(context).report).precision == "float32"


def test_the_cpu_is_named_and_told_where_the_run_had_a_gpu(context: Context, timed: list[tuple[str, int]]) -> None:
    context.record.device = GPU
    report = not_none(measured(context, exported("onnx", 1)).report)
    assert (report.device, report.provider) == ("CPU", "CPUExecutionProvider")
    assert context.record.warnings == ("the latency is that of the CPU, not of NVIDIA H200: no driver",)


def test_the_gpu_is_named_where_it_was_timed(
    context: Context, timed: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    context.record.device = GPU
    monkeypatch.setattr(Predictor, "provider", "torch cuda")
    assert not_none(measured(context).report).device == "NVIDIA H200"
    assert context.record.warnings == ()


def test_a_run_that_asks_for_no_latency_times_nothing(context: Context, timed: list[tuple[str, int]]) -> None:
    found = measured(context, exported("onnx", 5000), latency=False)
    assert (found.report, timed) == (None, [])
    assert found.metrics == {"modelBytes": 5000.0, "peakMemoryBytes": 1_000_000.0}
    assert Stage.MEASURE not in context.record.seconds


def test_only_a_lack_of_memory_leaves_the_latency_out(
    context: Context, timed: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> NoReturn:
        raise ValueError("a fault of this program")

    monkeypatch.setattr(performance, "time_predictor", broken)
    with pytest.raises(ValueError, match="a fault"):
        measured(context)


@pytest.mark.parametrize(
    ("device", "found"),
    [(None, {}), (Device(name="CPU", provider="torch cpu"), {}), (GPU, {"peakGpuMemoryBytes": 7e9})],
    ids=["unknown", "CPU", "GPU"],
)
def test_the_memory_of_a_gpu_is_told_where_one_was_used(
    device: Device | None, found: dict[str, float], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 7_000_000_000)
    monkeypatch.setattr(performance, "peak_memory", lambda: 1_000_000)
    context.record.device = device
    context.record.seconds[Stage.TRAIN] = 12.5
    assert run_costs(context) == {"peakMemoryBytes": 1e6, "trainSeconds": 12.5} | found
