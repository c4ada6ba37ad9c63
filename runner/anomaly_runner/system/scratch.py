"""Arrays in files, which may be larger than memory because the kernel can write their pages back at any time."""

import math
import os
from typing import IO

import numpy as np
from numpy.typing import NDArray

from anomaly_runner.errors import StorageUnavailable
from anomaly_runner.system.full_disk import FULL
from anomaly_runner.system.machine import gigabytes


def allocate_array(file: IO[bytes], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Map an empty file as a float32 array of zeros, and reserve its space on the disk.

    Without reserved space, writing to the array on a full disk would kill the process with a bus error.

    Args:
        file: open for reading and writing, empty.
        shape: of the array.

    Raises:
        StorageUnavailable: the disk has too little space.
    """
    size = math.prod(shape) * np.dtype(np.float32).itemsize
    try:
        _reserve(file.fileno(), size)
    except OSError as error:
        if error.errno not in FULL:
            raise
        disk = os.fstatvfs(file.fileno())
        free = gigabytes(disk.f_bavail * disk.f_frsize)
        raise StorageUnavailable(
            f"this run keeps {gigabytes(size)} of images or maps on the pod's own disk, which has "
            f"{free} free: ask for more ephemeral-storage in scheduling.resources.requests, or lower "
            "inputSize"
        ) from error
    return np.memmap(file, np.float32, "r+", shape=shape)


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:  # macOS, where runs are local
        os.ftruncate(descriptor, size)
