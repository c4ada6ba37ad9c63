"""A predictor that runs a torch model in this process: on the threads of the CPU, or one batch ahead on a GPU."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from anomaly_runner.data.batches import Batch
from anomaly_runner.models.base import ScoringModel
from anomaly_runner.models.compiled import torch_only
from anomaly_runner.models.device import choose_device
from anomaly_runner.models.threads import TorchThreads, without_gradients
from anomaly_runner.scoring.pipeline import OnTheWay, one_batch_late
from anomaly_runner.scoring.predict import ScoredBatch

Item = TypeVar("Item")


@dataclass(frozen=True)
class _SentBatch:
    """A batch whose scores (B,) and maps (B, H, W), None where the model has none, come from a GPU."""

    batch: Batch
    scores: OnTheWay
    maps: OnTheWay | None

    def fetch(self) -> ScoredBatch:
        """Wait for the results."""
        maps = None if self.maps is None else self.maps.fetch().numpy()
        return ScoredBatch(self.batch, self.scores.fetch().numpy(), maps)


@dataclass(frozen=True)
class TorchPredictor:
    """Scores batches with a torch model, on its device."""

    model: ScoringModel
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
        return self.threads.count if self.model.concurrent else 1

    def score(self, batches: Iterable[Batch]) -> Iterator[ScoredBatch]:
        """Score batches, in order."""
        if self.threads.device.type == "cuda":
            return one_batch_late(batches, without_gradients(self._send), _SentBatch.fetch)
        return self._map(self._score, batches)

    def _send(self, batch: Batch) -> _SentBatch:
        scores, maps = self.model(self.threads.to_device(torch.from_numpy(batch.images)))
        return _SentBatch(batch, OnTheWay.from_gpu(scores), None if maps is None else OnTheWay.from_gpu(maps[:, 0]))

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Score model input (B, 3, H, W): raw scores (B,) and maps (B, H, W), or None."""
        return without_gradients(self._run)(images)

    def _run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        scores, maps = self.model(self.threads.to_device(torch.from_numpy(images)))
        return scores.cpu().numpy(), None if maps is None else maps[:, 0].cpu().numpy()

    def _score(self, batch: Batch) -> ScoredBatch:
        return ScoredBatch(batch, *self._run(batch.images))

    def in_torch(self, scored: Sequence[ScoredBatch]) -> list[ScoredBatch]:
        """Score batches again in torch if onnxruntime ran a part of the model: the reference scores of exports."""

        def score(found: ScoredBatch) -> ScoredBatch:
            with torch_only():
                return self._score(found.batch)

        return list(self._map(score, scored) if self.model.accelerated else scored)

    def _map(self, function: Callable[[Item], ScoredBatch], items: Iterable[Item]) -> Iterator[ScoredBatch]:
        if self.model.concurrent:
            return self.threads.map(function, items)
        return self.threads.map_sequentially(function, items)
