"""One model, trained and scored by each side in turn, then in each precision; a process of its own for each model."""

import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
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
ALL_SIDES: dict[str, Callable[[Task], Spans]] = {
    "ours": sides.ours,
    "ours, TF32": partial(sides.ours, precision="tf32"),
    "anomalib": sides.by_anomalib,
    "bare network": sides.bare,
}


def main() -> int:
    """Measure all sides of one model; returns the exit status: 1 where a side failed."""
    warnings.simplefilter("ignore")
    options = parsed()
    side = max(options.side, networks.SIDES.get(options.name, 0))
    with tempfile.TemporaryDirectory() as folder:
        warm_up, task = (
            _task(options, Path(folder) / name, train, test, side)
            for name, train, test in (("warm-up", WARM_UP, WARM_UP), ("all", options.train, options.test))
        )
        parts: dict[str, Callable[[], Iterable[Measurement]]] = {
            name: partial(_side, name, run, warm_up, task) for name, run in _sides(task).items()
        }
        parts["precisions"] = partial(_precisions, task)
        failures = [_tried(options, name, part) for name, part in parts.items()]
    return int(any(failures))


def _tried(options: Options, name: str, part: Callable[[], Iterable[Measurement]]) -> bool:
    """Report what a part measures, and return whether it failed, which the others do not suffer from."""
    try:
        for measurement in part():
            report(options, measurement)
    except Exception as error:  # noqa: BLE001 - of three sides' libraries
        traceback.print_exc()
        what = f"{type(error).__name__}: {error}"[:300]
        report(options, Measurement("Failed", options.name, name, note=what))
        return True
    return False


def _sides(task: Task) -> dict[str, Callable[[Task], Spans]]:
    """All sides, but for TF32 where there is none to compare: on a CPU, and without a training by gradient."""
    has_tf32 = task.device.type == "cuda" and task.epochs
    return {name: run for name, run in ALL_SIDES.items() if has_tf32 or "TF32" not in name}


def _task(options: Options, folder: Path, train: int, test: int, side: int) -> Task:
    write_pictures(folder / "data/gravel", train, test, side)
    write_auxiliary_weights(folder / "weights")
    return Task(options.name, folder, train, test, side, options.device)


def _side(name: str, run: Callable[[Task], Spans], warm_up: Task, task: Task) -> Iterator[Measurement]:
    for one in (warm_up, task):
        os.environ["XDG_CACHE_HOME"] = str(one.folder / "weights")
        with Usage(task.device) as usage:
            spans = run(one)
    title = f"Training and scoring, {task.train} + {task.test} images, {task.side} px"
    yield Measurement(title, task.model, name, _values(task, spans, usage))


def _precisions(task: Task) -> Iterator[Measurement]:
    title = f"Precision, {task.test} images on the device, {task.side} px"
    for name, values in precision.compare(task):
        yield Measurement(title, task.model, name, values)


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
    sys.exit(main())
