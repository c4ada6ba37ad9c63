"""A fitted torch model as a predictor."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from anomaly_runner.batches import Batch
from anomaly_runner.models.base import MemoryModel
from anomaly_runner.models.threads import MICRO_BATCH, TorchThreads
from anomaly_runner.predict import Scored


@dataclass(frozen=True)
class TorchPredictor:
    """Scores batches with a model of this process."""

    model: MemoryModel
    threads: TorchThreads
    batch_size: int

    @property
    def step(self) -> int:
        """A few images a CPU, or what was asked for on a GPU."""
        return min(self.batch_size, MICRO_BATCH) if self.threads.device.type == "cpu" else self.batch_size

    def score(self, batches: Iterable[Batch]) -> Iterator[Scored]:
        """Raw scores and maps, in order."""
        return self.threads.map(self._score, batches)

    def _score(self, batch: Batch) -> Scored:
        images = torch.from_numpy(batch.images).to(self.threads.device, non_blocking=True)
        scores, maps = self.model(images)
        return Scored(batch, scores.cpu().numpy(), maps[:, 0].cpu().numpy())
