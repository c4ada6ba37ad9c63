"""Whether an error means that a disk is full, and whether a file still fits; imports no library.

The phrases are those of the versions in ``constraints.txt``, as seen on a file system that was full. Python, pyarrow
and onnx raise an OSError with its number.
"""

import errno
import re
import shutil
from pathlib import Path

from anomaly_runner.errors import StorageUnavailable
from anomaly_runner.system.causes import causes
from anomaly_runner.system.machine import gigabytes

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of an OSError: the disk, the quota or the largest size of a file is reached."""
_PHRASES = re.compile(
    r"No space left on device|Disk quota exceeded"  # the C library, also in the words of safetensors
    r"|inline_container\.cc:\d+\] \. unexpected pos"  # torch: fewer bytes were written than it had given
    r"|basic_ios::clear: iostream error"  # C++, in OpenVINO: a stream took no more
)
_QUOTED = 300
"""Characters of the library's own words in a message."""
_ADVICE = "ask for more ephemeral-storage in scheduling.resources.requests"


def is_full_disk(error: BaseException) -> bool:
    """Whether an error, or one that led to it, means that there is no room left to write to."""
    return any(_means_full_disk(link) for link in causes(error))


def full_disk(error: BaseException) -> StorageUnavailable:
    """The failure of a run whose disk is full; another node may have more room.

    Args:
        error: one for which ``is_full_disk`` is true.
    """
    first = next(link for link in causes(error) if _means_full_disk(link))
    return StorageUnavailable(f"the disk that this run writes to is full: {_ADVICE} ({str(first)[:_QUOTED]})")


def check_room(folder: Path, size: int) -> None:
    """Check that a file of so many bytes fits into a folder.

    Raises:
        StorageUnavailable: it does not.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise StorageUnavailable(
            f"{gigabytes(size)} are to be written to a disk that has {gigabytes(free)} free: {_ADVICE}"
        )


def _means_full_disk(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    return bool(_PHRASES.search(str(error)))
