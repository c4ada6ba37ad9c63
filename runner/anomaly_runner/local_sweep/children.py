"""Processes of trials: the same program, each with its share of the CPUs and with a GPU of its own where there are
several.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from anomaly_api.reasons import Reason
from anomaly_api.run import RunSummary
from anomaly_api.sweep_exchange import TrialState, by_path, ended_as, epochs_of, filled, gpu_hours
from anomaly_runner.local_sweep.records import TRIAL_LOG, TRIAL_MANIFEST, TrialFile
from anomaly_runner.local_sweep.trial import TrialProgress, prune, read_progress, read_summary
from anomaly_runner.system.gpu import GpuProblem, list_gpus
from anomaly_runner.system.machine import cpu_limit

PROGRAM = (sys.executable, "-m", "anomaly_runner")
"""This program, as a command."""
_GRACE_SECONDS = 30.0
"""Time that trials have to store what they have learnt, once they are asked to stop."""
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Child:
    """The process of a trial.

    Attributes:
        trial: as it was begun.
        slot: which of the places for processes it has, from 0.
        exchange: folder for what it tells, and for its temporary files.
    """

    trial: TrialFile
    process: subprocess.Popen[bytes]
    slot: int
    exchange: Path

    def progress(self) -> TrialProgress:
        """Return how far it is."""
        return read_progress(self.exchange)

    def prune(self, why: str) -> None:
        """Ask it to end its training."""
        prune(self.exchange, why)


class Children:
    """The trials at work.

    Args:
        folder: stands for all storage.
        scratch: for temporary files; emptied by the caller.
        parallel: how many there may be.
        gpus: how many GPUs are handed out, one to each; 0 lets every trial see all.
        program: the command that runs a trial.
    """

    def __init__(
        self, folder: Path, scratch: Path, parallel: int, *, gpus: int = 0, program: Sequence[str] = PROGRAM
    ) -> None:
        self._folder = folder
        self._scratch = scratch
        self._parallel = parallel
        self._gpus = gpus
        self._program = program
        self._children: list[Child] = []

    @property
    def at_work(self) -> tuple[Child, ...]:
        """Those that were started and not taken out."""
        return tuple(self._children)

    @property
    def free(self) -> int:
        """How many more may be started."""
        return self._parallel - len(self._children)

    def start(self, trial: TrialFile, place: Path) -> None:
        """Start the process of a trial.

        Args:
            trial: the trial.
            place: folder of its artifacts, with its experiment; takes its log.
        """
        slot = min(set(range(self._parallel)) - {child.slot for child in self._children})
        exchange = self._scratch / trial.name
        exchange.mkdir(parents=True)
        options = {"--local": self._folder, "--exchange": exchange, "--parent": os.getpid()}
        command = [*self._program, "trial", str(place / TRIAL_MANIFEST)]
        command += [str(part) for option in options.items() for part in option]
        cpus = share_of_cpus(_cpus(), slot, self._parallel) if self._parallel > 1 else None
        with (place / TRIAL_LOG).open("wb") as log, _on_cpus(cpus):
            # In a session of its own: Ctrl-C on the terminal reaches the sweep alone, which asks its trials to stop.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(slot),
                start_new_session=True,
            )
        self._children.append(Child(trial, process, slot, exchange))

    def take_ended(self) -> list[Child]:
        """Return the children that are over, and forget them."""
        ended = [child for child in self._children if child.process.poll() is not None]
        self._children = [child for child in self._children if child not in ended]
        return ended

    def stop(self, names: Iterable[str]) -> list[Child]:
        """Ask trials to stop, wait, kill those that go on; return and forget them."""
        wanted = set(names)
        stopped = [child for child in self._children if child.trial.name in wanted]
        for child in stopped:
            child.process.terminate()
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline and any(child.process.poll() is None for child in stopped):
            time.sleep(_POLL_SECONDS)
        for child in stopped:
            child.process.kill()
            child.process.wait()
        self._children = [child for child in self._children if child not in stopped]
        return stopped

    def _environment(self, slot: int) -> dict[str, str]:
        if not self._gpus:
            return dict(os.environ)
        return os.environ | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(slot % self._gpus)}


def outcome(child: Child, objective: str, now: datetime) -> TrialFile:
    """Return a trial as it is now that its process is over.

    Args:
        child: its process.
        objective: metric of its curve.
        now: the time.
    """
    summary = read_summary(child.exchange)
    if summary is None:
        return child.trial.over(
            *_without_summary(child), now, message=f"the process ended with {child.process.returncode}"
        )
    reason = summary.reason.value
    state = ended_as(reason)
    over = child.trial.over(state, reason, now, message="" if state == "Complete" else summary.message)
    return over.model_copy(update=_measured(summary, objective, over.seconds))


def _measured(summary: RunSummary, objective: str, seconds: float) -> dict[str, Any]:
    return {
        "metrics": by_path(summary.metrics),
        "gpu_hours": gpu_hours(summary.device, seconds),
        "curve": filled(epochs_of(summary.curve, objective)),
    }


def _without_summary(child: Child) -> tuple[TrialState, str]:
    """Return what the end of a process that told nothing means: SIGKILL is how the kernel takes memory back."""
    reason = Reason.OUT_OF_MEMORY if child.process.returncode == -signal.SIGKILL else Reason.INTERNAL_ERROR
    return ended_as(reason), reason


def share_of_cpus(cpus: Sequence[int], slot: int, parallel: int) -> list[int]:
    """Return the CPUs of one of so many processes: their shares differ by one CPU at most; each has at least one."""
    return list(cpus[slot::parallel]) or [cpus[slot % len(cpus)]]


@contextmanager
def _on_cpus(cpus: Sequence[int] | None) -> Iterator[None]:
    """Have processes that are started inside of the block run on these CPUs alone, from their first instruction on.

    Trainings take as many threads as there are CPUs when they look, and another number of threads adds up otherwise.
    """
    if cpus is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def gpus_to_share(parallel: int) -> int:
    """Return how many GPUs are handed out one by one; 0 where there is one at most, or the user has chosen already."""
    if parallel == 1 or "CUDA_VISIBLE_DEVICES" in os.environ:
        return 0
    try:
        count = len(list_gpus())
    except GpuProblem:
        return 0
    return count if count > 1 else 0


def _cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0))[: cpu_limit()]
