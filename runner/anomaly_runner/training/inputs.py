"""An experiment's fixed inputs, as its stages are handed them: what to do, on which images, with what."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from anomaly_api.experiment import ExperimentSpec
from anomaly_runner.context import Context
from anomaly_runner.data.augment import Augmenter
from anomaly_runner.data.batches import Batch, IntegrityLog, Preprocessor, read_batches
from anomaly_runner.data.masks import MaskReader, mask_reader
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.storage import Prefetcher, Store
from anomaly_runner.system.machine import cpu_limit


@dataclass(frozen=True)
class ExperimentJob:
    """One experiment. ``weights``: folder with what the model loads. ``artifacts``: where its results will lie."""

    spec: ExperimentSpec
    dataset: DatasetIndex
    prefetcher: Prefetcher
    preprocessor: Preprocessor
    integrity: IntegrityLog
    threads: TorchThreads
    weights: Path
    artifacts: Store
    context: Context

    @property
    def judged(self) -> tuple[Sample, ...]:
        """Images that thresholds and early stopping go by: the validation set, or the test set where there is none."""
        return self.dataset.validation or self.dataset.test

    def read(self, samples: Sequence[Sample], batch_size: int, epoch: int | None = None) -> Iterator[Batch]:
        """Batches of images in this order; with an epoch, augmented as that epoch wants them."""
        spec = self.spec.transforms.augmentations
        augment = None if epoch is None or spec is None else Augmenter(spec, self.spec.dataset.seed, epoch)
        readers = self.spec.training.num_workers or cpu_limit()
        return read_batches(
            self.prefetcher,
            samples,
            self.preprocessor,
            self.integrity,
            batch_size=batch_size,
            threads=readers,
            augment=augment,
        )

    def masks(self, samples: Sequence[Sample]) -> MaskReader | None:
        """Ground truth of these images, where any of them has a mask."""
        if not any(sample.mask for sample in samples):
            return None
        return mask_reader(self.prefetcher, self.preprocessor.size, self.spec.dataset.limits, self.preprocessor.crop)
