"""One model, trained and scored by each side in turn, then in each precision; a process of its own for each model."""

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import networks
from benchmarks.gpu import precision, sides
from benchmarks.gpu.pictures import write_pictures
from benchmarks.gpu.run import Options, parsed, report
from benchmarks.gpu.sides import Spans, Task
from benchmarks.gpu.usage import Usage
from hack.demo.auxiliary import write_auxiliary_weights
from hack.gpu.results import Measurement

WARM_UP = 2
"""Images of the run before the measured one: the first loads libraries and kernels."""
SIDES: dict[str, Callable[[Task], Spans]] = {
    "ours": sides.ours,
    "anomalib": sides.by_anomalib,
    "bare network": sides.bare,
}


def main() -> None:
    """Measure all sides of one model."""
    warnings.simplefilter("ignore")
    options = parsed()
    side = max(options.side, networks.SIDES.get(options.name, 0))
    with tempfile.TemporaryDirectory() as folder:
        warm_up, task = (
            _task(options, Path(folder) / name, train, test, side)
            for name, train, test in (("warm-up", WARM_UP, WARM_UP), ("all", options.train, options.test))
        )
        for name, run in SIDES.items():
            report(options, _measurement(name, run, warm_up, task))
        title = f"Precision, {task.test} images on the device, {side} px"
        for name, values in precision.compare(task):
            report(options, Measurement(title, task.model, name, values))


def _task(options: Options, folder: Path, train: int, test: int, side: int) -> Task:
    write_pictures(folder / "data/gravel", train, test, side)
    write_auxiliary_weights(folder / "weights")
    return Task(options.name, folder, train, test, side, options.device)


def _measurement(name: str, run: Callable[[Task], Spans], warm_up: Task, task: Task) -> Measurement:
    for one in (warm_up, task):
        os.environ["XDG_CACHE_HOME"] = str(one.folder / "weights")
        with Usage(task.device) as usage:
            spans = run(one)
    title = f"Training and scoring, {task.train} + {task.test} images, {task.side} px"
    return Measurement(title, task.model, name, _values(task, spans, usage))


def _values(task: Task, spans: Spans, usage: Usage) -> dict[str, float]:
    trained, scored = (ended - began for began, ended in (spans.train, spans.predict))
    found = {
        "learnt images/s": task.learnt / trained,
        "scored images/s": task.test / scored,
        "GPU busy learning, %": usage.busy(*spans.train),
        "GPU busy scoring, %": usage.busy(*spans.predict),
        "peak of tensors, MB": usage.peak_megabytes,
    }
    return {name: value for name, value in found.items() if value is not None}


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
