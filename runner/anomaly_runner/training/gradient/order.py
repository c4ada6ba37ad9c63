"""What a follower is told: everything that its share of a training depends on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from anomaly_api.dataset import DatasetLimits
from anomaly_api.model import Model
from anomaly_api.transforms import Augmentations
from anomaly_runner.data.augment import Augmenter
from anomaly_runner.data.batches import Batch, IntegrityLog, Preprocessor, read_batches
from anomaly_runner.data.samples import Sample
from anomaly_runner.models.anomalib_model import BuildOptions
from anomaly_runner.storage import Prefetcher
from anomaly_runner.training.gradient.images import Share
from anomaly_runner.training.gradient.plan import Plan


@dataclass(frozen=True)
class ReadAgain:
    """Makes augmented batches from files that are all on this machine; see ``images.Augmented``."""

    root: Path
    preprocessor: Preprocessor
    limits: DatasetLimits
    spec: Augmentations
    seed: int
    threads: int

    def __call__(self, samples: Sequence[Sample], epoch: int, batch_size: int) -> Iterator[Batch]:
        """Batches of these samples, as the epoch shows them."""
        prefetcher = Prefetcher(self.root, lambda: None)
        return read_batches(
            prefetcher,
            samples,
            self.preprocessor,
            IntegrityLog(self.limits),
            batch_size=batch_size,
            threads=self.threads,
            augment=Augmenter(self.spec, self.seed, epoch),
        )


@dataclass(frozen=True)
class Order:
    """A training as another process can take part in it; can be pickled.

    ``built_for``: what the model is built for. ``samples``: of training. ``augmented``: makes their inputs anew, None
    where they are as decoded. ``kind``: of device. ``state``: checkpoint that the training is taken up from. ``rank``:
    of the process that it is for.
    """

    model: Model
    built_for: BuildOptions
    plan: Plan
    samples: tuple[Sample, ...]
    augmented: ReadAgain | None
    kind: str
    work: Path
    state: Path | None = None
    rank: int = 0

    @property
    def meeting(self) -> Path:
        """File in which the processes find each other."""
        return self.work / "devices.store"

    @property
    def share(self) -> Share:
        """What of each step's images is for this process."""
        return Share(self.rank, self.plan.devices)

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return torch.device(self.kind, self.rank) if self.kind == "cuda" else torch.device(self.kind)
