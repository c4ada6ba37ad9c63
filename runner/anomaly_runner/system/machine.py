"""CPUs and memory that this process may use, by its cgroup (v1 and v2), not by the node.

Also configures whether glibc's allocator keeps freed memory.
"""

import ctypes
import math
import os
import resource
import time
from pathlib import Path
from typing import Any

_CGROUP = Path("/sys/fs/cgroup")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_UNLIMITED = 1 << 60  # without a limit, cgroup v1 reports a number near 2**63


def _find_glibc() -> Any:
    """The process's glibc; None if it uses another C library."""
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


_glibc = _find_glibc()


def cpu_limit(root: Path = _CGROUP) -> int:
    """Number of CPUs that this process may use: the smaller of its affinity mask and its cgroup's quota, at least 1."""
    available = len(os.sched_getaffinity(0))
    quota = _quota_v2(root / "cpu.max") or _quota_v1(root / "cpu")
    return max(1, min(available, math.ceil(quota))) if quota else available


def _quota_v2(file: Path) -> float | None:
    """CPUs of a cgroup v2; None without a quota."""
    if not file.is_file():
        return None
    quota, period = file.read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(folder: Path) -> float | None:
    """CPUs of a cgroup v1; None without a quota."""
    quota = _read_number(folder / "cpu.cfs_quota_us")
    period = _read_number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


def available_memory(root: Path = _CGROUP, meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes that this process may still allocate: the smaller of the node's and its cgroup's available memory."""
    free = _available_on_node(meminfo)
    limits = [
        _bytes_left(root, "memory.max", "memory.current", "inactive_file"),
        _bytes_left(root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ]
    return min([free, *(left for left in limits if left is not None)])


def peak_memory() -> int:
    """Largest number of bytes that this process has had in memory at once (its resident set).

    ``ru_maxrss`` is in KiB on Linux (getrusage(2)).
    """
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def process_seconds(process: Path = Path("/proc/self/stat")) -> float:
    """Seconds since this process was started.

    The 22nd field is the start in clock ticks since boot (proc_pid_stat(5)); the name before it may hold spaces.
    """
    started = int(process.read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def used_memory(status: Path = Path("/proc/self/status")) -> int:
    """Bytes that this process holds for itself, without the files of libraries, which processes share."""
    rows = (line.split() for line in status.read_text().splitlines())
    return next(int(row[1]) * 1024 for row in rows if row[0] == "RssAnon:")


def _bytes_left(folder: Path, limit_file: str, usage_file: str, reclaimable: str) -> int | None:
    """Bytes below a cgroup's limit, counting reclaimable page cache as free; None without a limit."""
    limit = _read_number(folder / limit_file)
    if limit is None or limit >= _UNLIMITED:
        return None
    usage = (_read_number(folder / usage_file) or 0) - _read_stat(folder / "memory.stat", reclaimable)
    return max(0, limit - max(0, usage))


def _read_number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError):  # absent, or "max"
        return None


def _read_stat(file: Path, key: str) -> int:
    if not file.is_file():
        return 0
    rows = (line.split() for line in file.read_text().splitlines())
    return next((int(row[1]) for row in rows if row[0] == key), 0)


def _available_on_node(meminfo: Path) -> int:
    rows = (line.split() for line in meminfo.read_text().splitlines())
    return next(int(row[1]) * 1024 for row in rows if row[0] == "MemAvailable:")


def keep_freed_memory() -> None:
    """Let glibc keep freed large blocks for the next operator instead of returning them to the kernel.

    Feature maps of tens of megabytes are allocated and freed a hundred times a batch, and page faults in new blocks
    took a quarter of the time. Has no effect with other C libraries.
    """
    if _glibc:
        _glibc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        _glibc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def give_back_freed_memory() -> None:
    """Return the memory that ``keep_freed_memory`` has kept to the kernel.

    To be called before a stage that needs blocks of other sizes or on other threads.
    """
    if _glibc:
        _glibc.malloc_trim(0)


def gigabytes(size: float) -> str:
    """Format bytes for people: ``1.23 GB`` (10**9 bytes)."""
    return f"{size / 1e9:.2f} GB"
