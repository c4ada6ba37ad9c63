"""Training images of noise from torch's own generator, as dropout would draw it, also in the processes of workers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import Sample


@dataclass(frozen=True)
class NoisyImages:
    """A ``data_module.ReadAugmented`` that can be pickled: images (3, side, side) of nothing but noise."""

    side: int

    def __call__(self, samples: Sequence[Sample], epoch: int, batch_size: int) -> Iterator[Batch]:
        """Yield batches of these samples, other ones each time."""
        for start in range(0, len(samples), batch_size):
            some = tuple(samples[start : start + batch_size])
            yield Batch(some, torch.randn(len(some), 3, self.side, self.side).numpy())
