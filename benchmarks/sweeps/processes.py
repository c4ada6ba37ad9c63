"""What processes of this machine use."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """Return the PIDs of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def named(pid: int, name: str) -> int:
    """Return the PID of the child whose command has this name."""
    return next(child for child in children(pid) if Path(f"/proc/{child}/comm").read_text().startswith(name[:15]))


def peak(pid: int) -> float:
    """Return the most memory that a process had, MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def cpu(pid: int) -> float:
    """Return the CPU seconds of a process, with those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def machine_cpu() -> float:
    """Return the CPU seconds of all processes of the machine since it started."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    return (user + nice + system + irq + softirq) / TICKS


@dataclass(frozen=True)
class Used:
    """What a process has used."""

    cpu: float
    """Seconds."""
    peak: float | None = None
    """MiB; None where it is of no interest."""


class Usage:
    """What processes, the API server and etcd among them, use from now on, and what all others do.

    Args:
        pids: the processes, by name.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        own = os.getpid()
        servers = {"API server": named(own, "kube-apiserver"), "etcd": named(own, "etcd")}
        self._pids = {"benchmark": own} | servers | dict(pids)
        self._before = {name: cpu(pid) for name, pid in self._pids.items()}
        self._machine = machine_cpu()
        self.used: dict[str, Used] = {}

    def stop(self, pids: Mapping[str, int]) -> None:
        """Note what was used, by these processes too, which may have begun since."""
        found = self._pids | dict(pids)
        self.used = {name: Used(cpu(pid) - self._before.get(name, 0.0), peak(pid)) for name, pid in found.items()}
        known = sum(used.cpu for used in self.used.values())
        self.used["everything else"] = Used(machine_cpu() - self._machine - known)
