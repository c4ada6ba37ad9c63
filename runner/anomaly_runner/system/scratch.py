"""Arrays in files: they can be larger than memory, which can let go of them at any time."""

import errno
import math
import os
from typing import IO

import numpy as np
from numpy.typing import NDArray

from anomaly_runner.errors import StorageUnavailable
from anomaly_runner.system.machine import gigabytes


def allocate_array(file: IO[bytes], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """An array of zeros in an empty file, for which the disk has room: without, writing to it would be a bus error.

    Raises:
        StorageUnavailable: the disk is too full.
    """
    size = math.prod(shape) * np.dtype(np.float32).itemsize
    try:
        _allocate(file.fileno(), size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        disk = os.fstatvfs(file.fileno())
        free = gigabytes(disk.f_bavail * disk.f_frsize)
        raise StorageUnavailable(
            f"this run keeps {gigabytes(size)} of images or maps on the pod's own disk, which has "
            f"{free} free: ask for more ephemeral-storage in resources.requests, or lower "
            "inputSize"
        ) from error
    return np.memmap(file, np.float32, "r+", shape=shape)


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:  # macOS, where runs are local
        os.ftruncate(descriptor, size)
