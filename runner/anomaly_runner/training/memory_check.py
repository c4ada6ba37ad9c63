"""Whether a memory-bank model will fit into memory, told before any image is read.

Three moments count: a training step, the end of the fit, and the scoring of a batch. On a GPU they take its memory, and
the exports take the host's; on the CPU all take the host's.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from anomaly_api.experiment import ExperimentSpec
from anomaly_runner.errors import OutOfMemory
from anomaly_runner.models.activations import peak_activations
from anomaly_runner.models.base import MemoryModel
from anomaly_runner.models.threads import MICRO_BATCH, TorchThreads
from anomaly_runner.system.machine import available_memory, gigabytes
from anomaly_runner.training.synthetic_painter import painter_memory

DEFAULT_BATCH_SIZE = 32
"""Images in a training step, where the spec gives no number."""
_HEADROOM = 400 << 20
"""Bytes of the host's memory for the batches in flight and the libraries' own buffers."""
_IN_ONE_FILE = 2_000_000_000
"""Bytes: the largest weights that fit into an ONNX file; others are in a second one."""
_COPIES, _COPIES_IN_PARTS = 3, 4
"""Copies of the weights while an ONNX export is written and compared: graph, bytes, session; and the second file."""

_SHARE_ON_CPU = 0.8
"""Of torch's activations: onnxruntime runs the backbone in 0.85 to 1.6 times as much, and only what certainly does not
fit is refused."""


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that a moment of a run needs at least.

    Attributes:
        moment: what the run is doing.
        model: of the model, as far as it is fitted then.
        activations: of the images that are worked on, and of what is computed from them.
        remedy: the field that lowers ``activations``; empty if there are none.
        painter: of the generator of synthetic defects.
    """

    moment: str
    model: int
    activations: int = 0
    remedy: str = ""
    painter: int = 0

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.model + self.activations + self.painter

    @property
    def parts(self) -> str:
        """What they are for, in brackets; empty if all of them are for the model."""
        others = {"for the images of a batch": self.activations, "to paint synthetic defects": self.painter}
        told = "".join(f", {gigabytes(size)} {what}" for what, size in others.items() if size)
        return f" ({gigabytes(self.model)} for the model{told})" if told else ""


def check_memory(model: MemoryModel, spec: ExperimentSpec, images: int, threads: TorchThreads) -> None:
    """Check that the model will fit into memory.

    Args:
        model: not fitted yet, on its device.
        spec: the experiment.
        images: number of training images.
        threads: the device, and on the CPU the number of batches that are worked on at the same time.

    Raises:
        OutOfMemory: a moment of the run needs more than there is; the message says what, and what to lower.
    """
    if threads.device.type == "cuda":
        needs = list(memory_needs(model, spec, images, threads))
        advice = f"{model.memory_advice(images)}, or take a larger GPU"
        _check_free(needs, torch.cuda.mem_get_info()[0], "GPU memory", advice)
    check_host_memory(model, spec, images, threads, available_memory())


def check_host_memory(model: MemoryModel, spec: ExperimentSpec, images: int, threads: TorchThreads, free: int) -> None:
    """Check what a run needs of the host's memory, which is all of it on the CPU.

    Args:
        model: not fitted yet.
        spec: the experiment.
        images: number of training images.
        threads: device and threads of the training.
        free: bytes of the host's memory that the training may still take.

    Raises:
        OutOfMemory: as ``check_memory``.
    """
    needs = [MemoryNeed("the run", _on_host(model, spec, images, threads), painter=_painter(spec))]
    if threads.device.type == "cpu":
        needs += memory_needs(model, spec, images, threads)
    _check_free(needs, free, "memory", f"{model.memory_advice(images)}, or raise scheduling.resources.limits.memory")


def free_for_fit(model: MemoryModel, spec: ExperimentSpec, images: int, threads: TorchThreads) -> int:
    """Bytes that the fit may take of the memory of the model's device, beside what is needed at the same time."""
    if threads.device.type == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    beside = _on_host(model, spec, images, threads) + _painter(spec) - model.memory_estimate(images).peak
    return available_memory() - beside


def memory_needs(model: MemoryModel, spec: ExperimentSpec, images: int, threads: TorchThreads) -> Iterator[MemoryNeed]:
    """What each moment needs of the memory of the model's device."""
    estimate, fitted, size = model.memory_estimate(images), model.fitted_shapes(images), spec.transforms.input_size

    def batch(count: int) -> tuple[int, int, int, int]:
        return threads.batch_size_for(count), 3, size.height, size.width

    trained, scored = spec.training.train_batch_size or DEFAULT_BATCH_SIZE, spec.training.eval_batch_size
    parts = min(threads.count, math.ceil(trained / MICRO_BATCH))  # a training step is split for the CPU's threads
    share = _share(spec, threads)
    step = int(share * parts * peak_activations(model.embed, model, batch(min(trained, images))))
    score = int(share * threads.count * peak_activations(model.forward, model, batch(scored), fitted))
    yield MemoryNeed("a training step", estimate.reading, step, "lower training.trainBatchSize")
    yield MemoryNeed("the end of the fit", estimate.peak)
    painter = _painter(spec) if threads.device.type == "cpu" else 0
    yield MemoryNeed("scoring a batch", estimate.fitted, score, "lower training.evalBatchSize", painter)


def _painter(spec: ExperimentSpec) -> int:
    """Bytes of the host's memory that synthetic defects take while validation images are read, and from then on."""
    size = spec.transforms.input_size
    return painter_memory((size.height, size.width)) if spec.dataset.splits.synthetic_defects else 0


def _share(spec: ExperimentSpec, threads: TorchThreads) -> float:
    """Which part of torch's activations is certainly needed.

    None of those of tiles on the CPU: there, fewer tiles are worked on at the same time than where they are counted.
    """
    if threads.device.type != "cpu":
        return 1.0
    return 0.0 if spec.model.tiling else _SHARE_ON_CPU


def _on_host(model: MemoryModel, spec: ExperimentSpec, images: int, threads: TorchThreads) -> int:
    """Bytes of the host's memory for the model itself and its exports, without activations."""
    estimate = model.memory_estimate(images)
    copies = (_COPIES if estimate.fitted <= _IN_ONE_FILE else _COPIES_IN_PARTS) * ("onnx" in spec.export.types)
    # a model on a GPU is moved to the host for its exports
    model_bytes = estimate.peak if threads.device.type == "cpu" else estimate.fitted * bool(spec.export.types)
    return estimate.fitted * copies + model_bytes + _HEADROOM


def _check_free(needs: list[MemoryNeed], free: int, what: str, advice: str) -> None:
    need = max(needs, key=lambda moment: moment.total)
    if need.total <= free:
        return
    remedies = (need.remedy, "leave out dataset.splits.syntheticDefects" if need.painter else "", advice)
    raise OutOfMemory(
        f"{need.moment} needs about {gigabytes(need.total)} of {what}{need.parts}, "
        f"{gigabytes(free)} are free: {', or '.join(remedy for remedy in remedies if remedy)}"
    )
