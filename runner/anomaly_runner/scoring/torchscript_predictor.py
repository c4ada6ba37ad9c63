"""A predictor that runs a TorchScript model.

A TorchScript file holds a program, although torch runs it in an interpreter of its own. Its digest is checked against
model.json before it is loaded, so it can be trusted as far as the folder that holds both.
"""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anomaly_runner.data.batches import Batch
from anomaly_runner.errors import ModelInvalid
from anomaly_runner.models.device import choose_device
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.scoring.predict import ScoredBatch
from anomaly_runner.system.out_of_memory import is_out_of_memory


@dataclass(frozen=True)
class TorchscriptPredictor:
    """Scores batches with a traced TorchScript program."""

    program: Any
    threads: TorchThreads
    batch_size: int

    @property
    def provider(self) -> str:
        """What executes the model."""
        return self.threads.provider

    @property
    def fallback(self) -> str | None:
        """Why the model is not executed on a GPU; None if it is."""
        return choose_device().problem if self.threads.device.type == "cpu" else None

    @property
    def preferred_batch_size(self) -> int:
        """A few images on a CPU, the configured number on a GPU."""
        return self.threads.batch_size_for(self.batch_size)

    @property
    def parallel(self) -> int:
        """Number of batches that are scored at the same time: one for each CPU, or one on a GPU."""
        return self.threads.count

    def score(self, batches: Iterable[Batch]) -> Iterator[ScoredBatch]:
        """Score batches, in order."""
        return self.threads.map(lambda batch: ScoredBatch(batch, *self._run(batch.images)), batches)

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Score model input (B, 3, H, W): raw scores (B,) and maps (B, H, W), or None."""
        with torch.inference_mode():
            return self._run(images)

    def _run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        scores, *maps = self.program(torch.from_numpy(images).to(self.threads.device))
        return scores.cpu().numpy(), maps[0][:, 0].cpu().numpy() if maps else None


def load_torchscript(file: Path, batch_size: int, *, tf32: bool = False) -> TorchscriptPredictor:
    """Open an exported TorchScript model.

    Args:
        file: the model.
        batch_size: images in a batch on a GPU.
        tf32: as in ``TorchThreads``.

    Raises:
        ModelInvalid: the file is not a TorchScript program.
    """
    threads = TorchThreads(choose_device().device, tf32=tf32)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # loading the successor's format would run Python code
            program = torch.jit.load(str(file), map_location=threads.device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelInvalid(f"{file.name} cannot be loaded: {error}") from error
    return TorchscriptPredictor(program, threads, batch_size)
