"""Ground truth of labelled images, at the model's size."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from anomaly_api.dataset import CropArea, DatasetLimits
from anomaly_runner.data.batches import read_file
from anomaly_runner.data.images import UnreadableImageError, decode_mask
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage import Prefetcher

MaskReader = Callable[[Sample], NDArray[np.bool_]]
"""From a labelled sample to its ground truth (H, W) at the model's size, true where it is defective."""


def mask_reader(
    prefetcher: Prefetcher, size: tuple[int, int], limits: DatasetLimits, crop: CropArea | None
) -> MaskReader:
    """A function from a labelled sample to its mask (rows, columns), true where it is defective.

    A good image is defective nowhere, a defective one without a mask everywhere. The function raises
    DataInvalid where a mask cannot be read: a guess would bend the pixel metrics silently.
    """

    def read(sample: Sample) -> NDArray[np.bool_]:
        if sample.mask is None:
            return np.full(size, bool(sample.defect))
        try:
            return decode_mask(read_file(prefetcher, sample.mask), *size, limits.max_image_pixels, crop)
        except UnreadableImageError as error:
            raise DataInvalid(f"the mask {sample.mask} cannot be read: {error}") from error

    return read
