"""Ground-truth masks of labelled images, at the model's size."""

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
"""Returns the ground truth (H, W) of a labelled sample at the model's size, true where the image is defective.

Raises DataInvalid if the mask cannot be read."""


def mask_reader(
    prefetcher: Prefetcher, size: tuple[int, int], limits: DatasetLimits, crop: CropArea | None
) -> MaskReader:
    """Make a function that reads the mask of a labelled sample.

    A good image is defective nowhere, and a defective image without a mask is defective everywhere. An image with
    several masks is defective where any of them is. The function raises DataInvalid for a mask that cannot be read,
    because a guess would silently bias the pixel metrics.

    Args:
        prefetcher: provides the files of masks.
        size: rows and columns of the model's input.
        limits: the dataset's limits.
        crop: the part of each image and mask that is kept; None for whole images.
    """

    def read(sample: Sample) -> NDArray[np.bool_]:
        if not sample.masks:
            return np.full(size, bool(sample.defect))
        return np.asarray(np.stack([read_one(key) for key in sample.masks]).any(axis=0))

    def read_one(key: str) -> NDArray[np.bool_]:
        try:
            return decode_mask(read_file(prefetcher, key), *size, limits.max_image_pixels, crop)
        except UnreadableImageError as error:
            raise DataInvalid(f"the mask {key} cannot be read: {error}") from error

    return read
