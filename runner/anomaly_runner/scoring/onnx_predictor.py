"""An ONNX model as a predictor: onnxruntime, on the GPU if there is one. Imports no torch."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_api.artifacts import INPUT, MAPS, SCORES
from anomaly_runner.data.batches import Batch
from anomaly_runner.errors import ModelInvalid
from anomaly_runner.scoring.predict import ScoredBatch
from anomaly_runner.system.machine import cpu_limit
from anomaly_runner.system.parallel import ordered_map

logger = logging.getLogger(__name__)

MICRO_BATCH = 2
"""Images in a batch on one CPU: 8 are a tenth slower, because their features do not fit into the CPU's cache, and take
twice the memory (benchmarks/inference_runtimes.py)."""


@dataclass(frozen=True)
class OnnxPredictor:
    """Scores batches with an onnxruntime session."""

    session: Any
    batch_size: int

    @property
    def provider(self) -> str:
        """What executes the model."""
        return str(self.session.get_providers()[0])

    @property
    def _on_cpu(self) -> bool:
        return self.provider == "CPUExecutionProvider"

    @property
    def preferred_batch_size(self) -> int:
        """A few images on a CPU, the configured number on a GPU."""
        return min(self.batch_size, MICRO_BATCH) if self._on_cpu else self.batch_size

    def score(self, batches: Iterable[Batch]) -> Iterator[ScoredBatch]:
        """Score batches, in order; each CPU works on a batch of its own."""
        threads = cpu_limit() if self._on_cpu else 1
        return ordered_map(self._score, batches, threads, ahead=threads + 1)

    def _score(self, batch: Batch) -> ScoredBatch:
        scores, maps = self.run(batch.images)
        return ScoredBatch(batch, scores, maps)

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Score model input (B, 3, H, W): raw scores (B,) and maps (B, H, W), or None."""
        scores, *maps = self.session.run(self._outputs, {INPUT: images})
        found = maps[0].reshape(len(images), *maps[0].shape[-2:]) if maps else None
        return scores.reshape(len(images)), found

    @cached_property
    def _outputs(self) -> list[str]:
        return [output.name for output in self.session.get_outputs() if output.name in (SCORES, MAPS)]


def load_onnx(file: Path, batch_size: int) -> OnnxPredictor:
    """Open an exported ONNX model.

    Args:
        file: the model, beside its external data if there is any.
        batch_size: images in a batch on a GPU.

    Raises:
        ModelInvalid: the file is not an ONNX model, or was not exported by this runner.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the CPUs work on different batches: see OnnxPredictor.score
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(file, options, providers=_providers(onnxruntime))
    except Exception as error:
        raise ModelInvalid(f"{file.name} cannot be loaded: {error}") from error
    names = {output.name for output in session.get_outputs()}
    if SCORES not in names or session.get_inputs()[0].name != INPUT:
        raise ModelInvalid(f"{file.name} has outputs {sorted(names)}; expected {SCORES} and, if it localises, {MAPS}")
    return OnnxPredictor(session, batch_size)


def _providers(onnxruntime: Any) -> list[str]:
    """CUDA and the CPU if there is a GPU, else only the CPU: onnxruntime logs errors if CUDA finds no GPU."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers() and Path("/dev/nvidiactl").exists():
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]
