"""The input of a worker process: everything that its part of a training depends on, and nothing else of the run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from anomaly_api.dataset import DatasetLimits
from anomaly_api.model import Model
from anomaly_api.transforms import Augmentations
from anomaly_runner.data.augment import Augmenter
from anomaly_runner.data.batches import Batch, IntegrityLog, read_batches
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.data.samples import Sample
from anomaly_runner.models.anomalib_model import BuildOptions
from anomaly_runner.storage import Prefetcher
from anomaly_runner.training.gradient.data_module import BatchPartition
from anomaly_runner.training.gradient.training_plan import TrainingPlan


@dataclass(frozen=True, kw_only=True)
class AugmentedReader:
    """Read augmented batches from files on this machine: a ``data_module.ReadAugmented`` that can be pickled."""

    root: Path
    """Folder of the files."""
    file_of: Callable[[str], str]
    """Path of an image's file below it, by its key; a function of a module, which can be pickled."""
    preprocessor: Preprocessor
    limits: DatasetLimits
    augmentations: Augmentations
    seed: int
    threads: int
    """Number of images that are read and decoded at the same time."""

    def __call__(self, samples: Sequence[Sample], epoch: int, batch_size: int) -> Iterator[Batch]:
        """Read batches of these samples with the epoch's augmentations."""
        prefetcher = Prefetcher(self.root, lambda: None, self.file_of)
        return read_batches(
            prefetcher,
            samples,
            self.preprocessor,
            IntegrityLog(self.limits),
            batch_size=batch_size,
            threads=self.threads,
            augment=Augmenter(self.augmentations, self.seed, epoch),
        )


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """Everything that a worker process needs to take part in a training: plain data, sent to the process by pickle."""

    model: Model
    options: BuildOptions
    plan: TrainingPlan
    samples: tuple[Sample, ...]
    """All training images, including those of the other processes."""
    read_augmented: AugmentedReader | None
    """None to train on the decoded images."""
    device_type: str
    """torch's name of it: cpu or cuda."""
    work: Path
    """Folder of this run on the machine's disk."""
    checkpoint: Path | None = None
    """Checkpoint to resume from; None to start from the beginning."""
    rank: int = 0
    """Rank of the process that this spec is for."""

    @property
    def rendezvous_file(self) -> Path:
        """File of the FileStore through which the processes find each other."""
        return self.work / "devices.store"

    @property
    def partition(self) -> BatchPartition:
        """This process's part of each batch."""
        return BatchPartition(self.rank, self.plan.devices)

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        has_index = self.device_type == "cuda"
        return torch.device(self.device_type, self.rank) if has_index else torch.device(self.device_type)
