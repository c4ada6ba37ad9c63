"""The fixed inputs of an experiment that every stage gets: its spec, its images, and their readers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from anomaly_api.experiment import ExperimentSpec
from anomaly_runner.context import Context
from anomaly_runner.data.augment import Augmenter
from anomaly_runner.data.batches import Batch, IntegrityLog, Painter, read_batches
from anomaly_runner.data.decoded_cache import DecodedImages
from anomaly_runner.data.masks import MaskReader
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.data.valid_area import ValidArea
from anomaly_runner.models.catalog import input_normalization
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.storage import Prefetcher, Store
from anomaly_runner.system.machine import cpu_limit
from anomaly_runner.training.profile import recorded_steps
from anomaly_runner.training.synthetic_painter import SyntheticPainter


def experiment_preprocessor(spec: ExperimentSpec, valid_area: ValidArea | None) -> Preprocessor:
    """The preprocessor of an experiment's images.

    Raises:
        InvalidConfig: the model does not work with the normalisation that the spec asks for.
    """
    size = spec.transforms.input_size
    return Preprocessor(
        height=size.height,
        width=size.width,
        normalization=input_normalization(spec),
        crop=spec.dataset.crop_area,
        bit_depth=spec.transforms.bit_depth,
        valid_area=valid_area,
    )


@dataclass(frozen=True, kw_only=True)
class ExperimentInputs:
    """The fixed inputs of an experiment."""

    spec: ExperimentSpec
    dataset: DatasetIndex
    prefetcher: Prefetcher
    preprocessor: Preprocessor
    integrity: IntegrityLog
    """Filled as images are read: digests of the readable ones, and errors of the others."""
    threads: TorchThreads
    weights: Path
    """Folder with the pre-trained weights and auxiliary images that the model loads."""
    artifacts: Store
    """Where the results will be published, and where a checkpoint is kept until then."""
    context: Context
    decoded: DecodedImages | None = None
    """Decoded images of earlier runs, and for later ones; None to decode every file."""

    @property
    def validation_or_test(self) -> tuple[Sample, ...]:
        """The validation images, or the test images where there are none; used for early stopping and calibration."""
        return self.dataset.validation or self.dataset.test

    def read(self, samples: Sequence[Sample], batch_size: int, epoch: int | None = None) -> Iterator[Batch]:
        """Read batches of images in the given order.

        Args:
            epoch: which epoch's augmentations are applied; None applies none.
        """
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
            paint=self._painter,
            kept=self.decoded,
        )

    @cached_property
    def _painter(self) -> Painter | None:
        spec, seed = self.spec.dataset.splits.synthetic_defects, self.spec.dataset.seed
        return None if spec is None else SyntheticPainter(spec, seed, self.preprocessor.valid)

    def recorded_steps(self) -> AbstractContextManager[Callable[[], None]]:
        """Record steps of the training inside a block, where the spec asks for it; see ``profile.recorded_steps``."""
        context = self.context
        return recorded_steps(self.spec.training.profile, context.work, self.threads.device, context.record.warn)

    def masks(self, samples: Sequence[Sample]) -> MaskReader | None:
        """Reader of the ground truth of these images, which have been read; None where none of them has a mask."""
        if not any(sample.has_mask for sample in samples):
            return None
        return self.integrity.masks.reader(self.preprocessor.size)
