"""Record what a few steps of a training spend their time and memory on, with torch's profiler.

A step is a batch. Only the ``active`` steps are recorded, so that the trace's size does not depend on the training's
length: operators of all threads, with the shapes of their input and the memory that they allocate, and a GPU's kernels.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile, schedule

from anomaly_api.training import TrainingProfile

FOLDER = "profile"
"""Folder of the files, in the run's scratch folder and below its artifacts."""
TRACE, OPERATORS = "trace.json.gz", "operators.txt"
_OPERATORS = 50
"""Rows of the table of operators."""

Item = TypeVar("Item")


@contextmanager
def recorded_steps(
    spec: TrainingProfile | None, work: Path, device: torch.device, warn: Callable[[str], None]
) -> Iterator[Callable[[], None]]:
    """Record the steps of a training inside the block; does nothing without a spec.

    Writes Chrome's trace and a table of the operators that took the longest as soon as the last step is recorded; or
    those steps that there were at the end of the block, with a warning.

    Args:
        spec: which steps.
        work: the run's scratch folder.
        device: of the training.
        warn: tells the user that there were fewer steps than asked for.

    Yields:
        To be called after each step.
    """
    if spec is None:
        yield lambda: None
        return
    recorder = _StepRecorder(spec, work / FOLDER, device)
    with recorder.profile:
        yield recorder.step
    if recorder.missing:
        warn(recorder.complaint)


class _StepRecorder:
    """Counts the steps; arguments as in ``recorded_steps``, and the folder of the files."""

    def __init__(self, spec: TrainingProfile, folder: Path, device: torch.device) -> None:
        self._spec, self._folder = spec, folder
        self._by = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
        self._steps = 0
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        self.profile = profile(
            activities=activities,
            schedule=schedule(wait=spec.wait, warmup=spec.warmup, active=spec.active, repeat=1),
            on_trace_ready=self._write,
            record_shapes=True,
            profile_memory=True,
            # without it operators on the threads of ``TorchThreads`` would be missing
            experimental_config=_ExperimentalConfig(profile_all_threads=True),
        )

    def step(self) -> None:
        """Count a step."""
        self._steps += 1
        self.profile.step()

    @property
    def missing(self) -> int:
        """Number of steps that were asked for, and did not come."""
        return max(0, self._spec.wait + self._spec.warmup + self._spec.active - self._steps)

    @property
    def complaint(self) -> str:
        """What the user is told of too few steps."""
        recorded = max(0, self._spec.active - self.missing)
        return f"training.profile: {recorded} of {self._spec.active} steps recorded: the training had {self._steps}"

    def _write(self, finished: profile) -> None:
        if self.missing >= self._spec.active:
            return
        self._folder.mkdir(exist_ok=True)
        finished.export_chrome_trace(str(self._folder / TRACE))
        table = finished.key_averages().table(sort_by=self._by, row_limit=_OPERATORS)
        (self._folder / OPERATORS).write_text(table, encoding="utf-8")


def counted(items: Iterable[Item], step: Callable[[], None]) -> Iterator[Item]:
    """Yield the items, and call ``step`` once each of them has been used."""
    for item in items:
        yield item
        step()
