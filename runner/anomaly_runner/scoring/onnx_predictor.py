"""An ONNX model as a predictor: onnxruntime, on the GPU if there is one. Imports no torch.

onnxruntime goes on on the CPU where its CUDA provider cannot be loaded, and says so in its own log at most. Here a
session on the GPU has to prove itself with one image, and what keeps the model from the GPU is told.
"""

import logging
import re
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
from anomaly_runner.scoring.cuda_libraries import driver_problem
from anomaly_runner.scoring.cuda_provider import CPU, CUDA, onnx_gpu_problem, provider_options
from anomaly_runner.scoring.predict import ScoredBatch
from anomaly_runner.system.machine import cpu_limit
from anomaly_runner.system.out_of_memory import is_out_of_memory
from anomaly_runner.system.parallel import ordered_map

logger = logging.getLogger(__name__)

MICRO_BATCH = 2
"""Images in a batch on one CPU: 8 are a tenth slower, because their features do not fit into the CPU's cache, and take
twice the memory (benchmarks/inference_runtimes.py)."""

_CUDA_WORDS = re.compile(r"\bCU[A-Z_]+ (?:failure|error)\b.*?(?= ;|$)", re.MULTILINE)


@dataclass(frozen=True)
class OnnxPredictor:
    """Scores batches with an onnxruntime session.

    Attributes:
        session: the session.
        batch_size: images in a batch on a GPU.
        fallback: why the model is not executed on a GPU; None if it is.
    """

    session: Any
    batch_size: int
    fallback: str | None

    @property
    def provider(self) -> str:
        """What executes the model."""
        return str(self.session.get_providers()[0])

    @property
    def _on_cpu(self) -> bool:
        return self.provider == CPU

    @property
    def preferred_batch_size(self) -> int:
        """A few images on a CPU, the configured number on a GPU."""
        return min(self.batch_size, MICRO_BATCH) if self._on_cpu else self.batch_size

    @property
    def parallel(self) -> int:
        """Number of batches that are scored at the same time: one for each CPU, or one on a GPU."""
        return cpu_limit() if self._on_cpu else 1

    def score(self, batches: Iterable[Batch]) -> Iterator[ScoredBatch]:
        """Score batches, in order; each CPU works on a batch of its own, or one thread keeps the GPU busy.

        While the caller reads results and takes the next batch from ``batches``, which readers have decoded, the GPU
        has one batch to work on and one that waits. More threads would only take turns, each with a workspace of its
        own in the GPU's memory.
        """
        if self._on_cpu:
            return ordered_map(self._score, batches, self.parallel, ahead=self.parallel + 1)
        return ordered_map(self._score, batches, threads=1, ahead=3)

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


def load_onnx(file: Path, batch_size: int, *, tf32: bool = False) -> OnnxPredictor:
    """Open an exported ONNX model, on the GPU if that can be used.

    Args:
        file: the model, beside its external data if there is any.
        batch_size: images in a batch on a GPU.
        tf32: as in ``provider_options``; has no effect on the CPU.

    Raises:
        ModelInvalid: the file is not an ONNX model, or was not exported by this runner.
        Exception: onnxruntime's own, where memory ran out (``is_out_of_memory``): the CPU would not make that good.
    """
    session, fallback = _open_on_gpu(file, tf32)
    if session is None:
        session = _open_on_cpu(file)
        if driver_problem() is None:
            logger.warning("there is a GPU, but the CPU executes the model: %s", fallback)
    names = {output.name for output in session.get_outputs()}
    if SCORES not in names or session.get_inputs()[0].name != INPUT:
        raise ModelInvalid(f"{file.name} has outputs {sorted(names)}; expected {SCORES} and, if it localises, {MAPS}")
    return OnnxPredictor(session, batch_size, fallback)


def _open_on_gpu(file: Path, tf32: bool) -> tuple[Any, str | None]:
    """A session on the GPU; or None, and why there is none."""
    if problem := onnx_gpu_problem():
        return None, problem
    try:
        session = _open(file, [(CUDA, provider_options(tf32=tf32)), CPU])
        if CUDA not in session.get_providers():
            return None, f"onnxruntime did not load its {CUDA}: the lines that it wrote to the log say why"
        _score_one_image(session)
    except Exception as error:  # onnxruntime raises a dozen classes for what a GPU lacks
        if is_out_of_memory(error):
            raise
        return None, f"onnxruntime cannot use the GPU: {_cuda_words(error)}"
    return session, None


def _cuda_words(error: Exception) -> str:
    """What CUDA or cuDNN said, out of onnxruntime's message, which begins with its own source code."""
    text = str(error)
    found = _CUDA_WORDS.search(text)
    return found[0] if found else text.partition("\n")[0]


def _score_one_image(session: Any) -> None:
    """Score a black image: only a run shows that the provider has code for this GPU, and that cuDNN starts."""
    given = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in given.shape]
    session.run(None, {given.name: np.zeros(shape, np.float32)})


def _open_on_cpu(file: Path) -> Any:
    try:
        return _open(file, [CPU])
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelInvalid(f"{file.name} cannot be loaded: {error}") from error


def _open(file: Path, providers: list[Any]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the CPUs work on different batches: see OnnxPredictor.score
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Its fallback would print to stdout and go on on the CPU, both when a session is made and in the middle of a run.
    return onnxruntime.InferenceSession(file, options, providers=providers, enable_fallback=0)
