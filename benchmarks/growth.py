"""What grows faster than the images, counted and not timed: results hold on a machine that others use as well.

Whole experiments on small pictures with random weights, as the tests of all models run them, with some images and four
times as many. Counted is what each stage has torch compute: the numbers that operators return, and of products of
matrices the multiplications. Four times as much is linear, less where a part is the same for any number of images.
Operators that grow by more than that are named, and so are Python functions that are called more than that much more
often: a loop over images inside a loop over images. ::

    python -m benchmarks.growth [--images N] [--models NAME ...] [--write]

Factorisations of matrices (principal components) are one operator, whose own work is not counted, nor what onnxruntime
and other threads than the first compute: each process here has one CPU and one thread.
"""

import argparse
import cProfile
import io
import multiprocessing
import os
import pstats
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from anomaly_api.model import ModelName
from anomaly_api.status import Stage
from anomaly_runner.context import Context
from benchmarks.tables import Table, add_write, publish
from hack.demo.auxiliary import write_auxiliary_weights
from support.backbones import write_efficientnet_b5
from support.model_forms import train_and_export
from support.model_rows import ROWS
from support.textures import write_textures

_stage = Context.stage
STAGES = ("train", "predict", "evaluate")
MOST_PROCESSES = 4
"""Some models take gigabytes."""
FACTOR = 4
MORE = 1.1
"""Growth beyond that of the images at which an operator or a function is named."""
LEAST_SHARE, LEAST_CALLS = 0.001, 1000
"""Of all that a stage computes, and calls: what is less than this is not named."""
_PRODUCTS = {"mm": 0, "bmm": 0, "matmul": 0, "linear": 0, "addmm": 1, "baddbmm": 1}
"""Products of matrices, and which of their arguments is the left factor."""


@dataclass
class Work:
    """What a stage computes: numbers by operator, and calls by Python function."""

    numbers: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds the work of every operator of this thread."""

    def __init__(self, numbers: Counter[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._numbers = numbers

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result, name = func(*args, **(kwargs or {})), func.overloadpacket.__name__
        count = sum(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))
        self._numbers[name] += count * (args[_PRODUCTS[name]].shape[-1] if name in _PRODUCTS else 1)
        return result


def work_of(name: ModelName, count: int) -> dict[str, Work]:
    """What each stage of a run computes, with this many images to train on and to test on."""
    found: dict[str, Work] = defaultdict(Work)

    @contextmanager
    def counted(context: Context, stage: Stage, total: int = 0, unit: str = "images") -> Iterator[None]:
        if stage.value not in STAGES:
            with _stage(context, stage, total, unit):
                yield
            return
        work, profile = found[stage.value], cProfile.Profile()
        with _stage(context, stage, total, unit), _Counting(work.numbers):
            profile.enable()
            try:
                yield
            finally:
                profile.disable()
        # Any: the table behind the report has no types
        table: dict[tuple[str, int, str], Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
        work.calls.update({f"{Path(file).name}:{where}": row[1] for (file, _, where), row in table.items()})

    # Counted is what torch computes: the backbone, too, which onnxruntime would.
    uncompiled = patch("anomaly_runner.models.backbone.can_run_compiled", lambda _: False)
    with tempfile.TemporaryDirectory() as root, patch.object(Context, "stage", counted), uncompiled:
        for category in ("textures", "few"):
            data = Path(root, "data", category)
            write_textures(data, train=count, good=count // 2, defects=count // 2)
        if ROWS[name].weights_from_cache:
            write_auxiliary_weights(Path(root, "weights"))
            write_efficientnet_b5(Path(root, "weights"), torch.rand(4, 3, 128, 128))
        with redirect_stdout(io.StringIO()):
            train_and_export(Path(root), name, [])
    return found


def grown(few: Counter[str], many: Counter[str], least: float) -> list[str]:
    """Names of what grows faster than the images, the largest first."""
    return [name for name, count in many.most_common() if count > max(least, MORE * FACTOR * few[name])]


def rows_of(name: ModelName, images: int) -> list[list[str]]:
    """Return the table's rows, one for each stage that has torch compute something; slow models have fewer images."""
    images = images // FACTOR if ROWS[name].few_images else images
    few, many = work_of(name, images), work_of(name, FACTOR * images)
    rows: list[list[str]] = []
    for stage in STAGES:
        one, other = few[stage], many[stage]
        first, second = one.numbers.total(), other.numbers.total()
        if first:
            operators = grown(one.numbers, other.numbers, LEAST_SHARE * second)
            functions = grown(one.calls, other.calls, LEAST_CALLS)
            named = ", ".join((*operators, *functions)) or "-"
            counts = [f"{first:.2e}", f"{second:.2e}", f"{second / first:.1f}"]
            rows.append([name, stage, f"{images}, {FACTOR * images}", *counts, named])
    return rows


def take_a_cpu(free: "SimpleQueue[int]") -> None:
    """Keep to one CPU, with one thread."""
    os.sched_setaffinity(0, [free.get()])
    torch.set_num_threads(1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--models", nargs="+", default=list(reversed(ROWS)))
    add_write(parser)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    free, cpus = context.SimpleQueue(), sorted(os.sched_getaffinity(0))[:MOST_PROCESSES]
    for cpu in cpus:
        free.put(cpu)
    rows: list[list[str]] = []
    with ProcessPoolExecutor(len(cpus), context, take_a_cpu, (free,)) as pool:
        for found in pool.map(partial(rows_of, images=options.images), options.models):
            for row in found:
                print(*row, sep="  ", flush=True)
            rows += found
    columns = ("Model", "Stage", "Images", "With the first", "With the second", "Times", "Faster")
    table = Table("growth", columns, rows, ("anomaly-operator", "anomalib", "torch"))
    publish([table], options.write)


if __name__ == "__main__":
    main()
