"""The MNIST experiment beside plain anomalib and beside the bare network, in turns on one machine.

Models with random weights train on nines and are tested on all digits. Sides, each a process of its own:

- ours: writes the ONNX model, compared with torch on 32 images, metrics with intervals, tables and the report;
- anomalib as its documentation shows it: ``Engine.fit``, ``Engine.test`` with AUROC and F1, ``Engine.export`` to ONNX;
- the network alone in torch, fed from memory (bare_torch.py);
- with ``--pictures``, instead of all these: ours and anomalib with a picture of each test image.

``fit`` validates on the test images, from which anomalib has its threshold, and ``test`` scores them again; ours scores
them once. The table has the ratio with that validation and without it. Gradient models validate after each epoch on
both sides. A table for each model, with a row for each side and size::

    python -m benchmarks.runner_experiment [--models NAME...] [--quick] [--sizes TRAIN+TEST...] [--runs N] [--write]
    python -m benchmarks.runner_experiment --pictures [--models NAME...] [--quick] [--runs N] [--write]
    python -m benchmarks.runner_experiment --grow 100 1000 10000 [--models NAME...] [--write]

``--grow`` runs ours alone, with as many images to learn from as to test on (networks.LEARNT at most), for its memory.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.networks import BATCHES, EPOCHS, LEARNT, MODELS, SIDES, parameters
from benchmarks.processes import Cost, measured, run_locally
from benchmarks.tables import Spread, Table, add_write, in_turns, publish
from hack.demo.digits import DIGITS, write_mnist_folders

PER_CLASS = 100
WEIGHTS = """
import sys
from pathlib import Path
from hack.demo.auxiliary import write_auxiliary_weights
write_auxiliary_weights(Path(sys.argv[1]))
"""
# Run in a separate process: a child's peak memory is at least that of its parent, and torch is large.
OURS, ANOMALIB, OURS_DRAWN, ANOMALIB_DRAWN, ALONE = (
    "ours",
    "anomalib",
    "ours, pictures",
    "anomalib, pictures",
    "network alone",
)
BESIDE = {OURS: OURS, ANOMALIB: OURS, OURS_DRAWN: OURS_DRAWN, ANOMALIB_DRAWN: OURS_DRAWN}
"""The side of ours that does the same."""
COLUMNS = (
    "Images",
    "Side",
    "Runs",
    "Process",
    "Times ours",
    "without validation",
    "Train",
    "Validate",
    "Score",
    "Export",
    "CPU",
    "Peak memory",
)
FULL: dict[str, tuple[str, ...]] = {
    "padim": ("100+100", "100+1000"),
    "patchcore": ("50+100", "100+1000"),
    "fastflow": ("100+100", "200+400"),
    "efficientad": ("10+100", "20+200"),
}
QUICK: dict[str, tuple[str, ...]] = {
    "padim": ("50+100", "100+200"),
    "patchcore": ("20+50", "40+100"),
    "fastflow": ("20+20", "50+50"),
    "efficientad": ("4+10", "8+20"),
}
"""Images to train and to test on."""
LIBRARIES = ("anomaly-operator", "anomalib", "torch", "lightning")


@dataclass(frozen=True)
class Task:
    """One model with numbers of training and test images; ``folder`` has data/mnist and weights."""

    model: str
    folder: Path
    train: int
    test: int

    @property
    def arguments(self) -> list[str]:
        """Command-line arguments for the scripts of the other sides."""
        numbers = (SIDES.get(self.model, 224), BATCHES.get(self.model, 32), EPOCHS.get(self.model, 0))
        return [self.model, str(self.folder), *map(str, numbers)]


@dataclass(frozen=True)
class Run:
    """One process and the seconds of its parts; ``validate`` is missing where it is part of ``train``, or not done."""

    cost: Cost
    seconds: Mapping[str, float]


def manifest(task: Task, pictures: bool = False) -> Path:
    """Write the runner's experiment, and return the file."""
    side = SIDES.get(task.model, 224)
    epochs = EPOCHS.get(task.model, 0)
    training = {"maxEpochs": epochs, "checkValEveryNEpoch": 1, "earlyStopping": {"enabled": False}} if epochs else {}
    document = {
        "apiVersion": "anomalyops.io/v1alpha1",
        "kind": "AnomalyExperiment",
        "metadata": {"name": "bench", "namespace": "bench"},
        "spec": {
            "dataset": {"source": {"s3": {"uri": "s3://data"}}, "category": "mnist", "task": "classification"},
            "transforms": {"inputSize": {"height": side, "width": side}},
            "model": {
                "name": task.model,
                task.model: parameters(task.model),
                "weights": {"s3": {"uri": "s3://weights"}},
            },
            "training": training,
            "evaluation": {"visualization": {"enabled": pictures}},
            "output": {"s3": {"uri": "s3://results"}},
        },
    }
    file = task.folder / "bench.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def ours(task: Task, pictures: bool = False) -> Run:
    """Run anomaly-runner; trainings by gradient decode images in the stage before, and pictures have their own."""
    shutil.rmtree(task.folder / "results", ignore_errors=True)
    file = manifest(task, pictures)
    cost = run_locally(file, task.folder)
    report = json.loads((task.folder / "results/bench/bench/local/report.json").read_text())
    stages: dict[str, float] = report["seconds"]
    train = stages["train"] + (stages["dataset"] if EPOCHS.get(task.model) else 0)
    score = stages["predict"] + (stages["visualize"] if pictures else 0)
    return Run(cost, {"train": train, "predict": score, "export": stages["export"]})


def other(task: Task, script: str, *arguments: str) -> Run:
    """Run another side's script."""
    cost = measured(
        [sys.executable, "-m", f"benchmarks.{script}", *task.arguments, *arguments],
        XDG_CACHE_HOME=str(task.folder / "weights"),
    )
    seconds: dict[str, float] = json.loads(cost.last_line)
    if EPOCHS.get(task.model) and "validate" in seconds:  # as in ours
        seconds["train"] += seconds.pop("validate")
    return Run(cost, seconds)


def sides_of(task: Task, drawn: bool) -> dict[str, Callable[[], Run]]:
    """All sides, by name; ``drawn``: those that draw pictures."""
    plain: dict[str, Callable[[], Run]] = {
        OURS: partial(ours, task),
        ANOMALIB: partial(other, task, "plain_anomalib", "none"),
        ALONE: partial(other, task, "bare_torch"),
    }
    pictures: dict[str, Callable[[], Run]] = {
        OURS_DRAWN: partial(ours, task, pictures=True),
        ANOMALIB_DRAWN: partial(other, task, "plain_anomalib", "pictures"),
    }
    return pictures if drawn else plain


def spread(runs: Sequence[Run], value: Callable[[Run], float]) -> Spread:
    """One quantity of all runs."""
    return Spread.of([value(run) for run in runs])


def rows_of(task: Task, found: Mapping[str, Sequence[Run]]) -> list[list[str]]:
    """The rows of one size."""
    sizes = f"{task.train} + {task.test}"
    whole = [
        [sizes, name, str(len(runs)), *costs(runs, found[BESIDE[name]]), *parts(runs), *resources(runs)]
        for name, runs in found.items()
        if name in BESIDE
    ]
    bare = [[sizes, ALONE, str(len(found[ALONE])), *alone(found[ALONE], found[OURS])]] if ALONE in found else []
    return whole + bare


def costs(runs: Sequence[Run], beside: Sequence[Run]) -> list[str]:
    """Seconds of the process, and in units of ours, with and without the validation of ``fit``."""
    seconds, own = (spread(these, lambda run: run.cost.seconds) for these in (runs, beside))
    without = spread(runs, lambda run: run.cost.seconds - run.seconds.get("validate", 0))
    if runs is beside:
        return [seconds.text(" s"), "1", "1"]
    return [seconds.text(" s"), seconds.over(own).text(), without.over(own).text()]


def parts(runs: Sequence[Run]) -> list[str]:
    """Medians of the parts' seconds."""
    return [middle(runs, part) for part in ("train", "validate", "predict", "export")]


def middle(runs: Sequence[Run], part: str) -> str:
    """The median of one part's seconds; a dash where it is part of another, or not done."""
    return spread(runs, lambda run: run.seconds[part]).middle(" s") if part in runs[0].seconds else "-"


def resources(runs: Sequence[Run]) -> list[str]:
    """Medians of CPU seconds and of peak memory."""
    cpu = spread(runs, lambda run: run.cost.cpu_seconds).middle(" s")
    return [cpu, spread(runs, lambda run: run.cost.megabytes / 1000).middle(" GB")]


def alone(runs: Sequence[Run], beside: Sequence[Run]) -> list[str]:
    """What the network alone takes, whose process is no experiment: both parts, and together in units of ours."""
    both, own = (spread(these, lambda run: run.seconds["train"] + run.seconds["predict"]) for these in (runs, beside))
    done = f"{both.over(own).text()} of train and score"
    return ["-", done, "-", middle(runs, "train"), "-", middle(runs, "predict"), "-", "-", "-"]


def told(task: Task, name: str, run: Run) -> None:
    """Print one run."""
    seconds = ", ".join(f"{part} {value:.1f}" for part, value in run.seconds.items())
    size = f"{task.train} + {task.test}"
    print(f"{task.model:12}{size:12}{name:20}{run.cost.seconds:8.1f} s ({seconds})", flush=True)


def repeat(folder: Path, count: int) -> None:
    """Make a folder hold ``count`` images, by removing some or linking the same ones again."""
    files = sorted(folder.glob("*.png"))
    for file in files[count:]:
        file.unlink()
    for index in range(len(files), count):
        os.link(files[index % len(files)], folder / f"again-{index:06d}.png")


def prepare(root: Path, train: int, test: int) -> Path:
    """Write a folder with images and weights, and return it; ``test`` is rounded to ten classes of equal size."""
    folder = root / f"{train}-{test}"
    write_mnist_folders(folder / "data/mnist", PER_CLASS)
    repeat(folder / "data/mnist/train/good", train)
    for name in ("good", *(str(digit) for digit in DIGITS if digit != 9)):
        repeat(folder / "data/mnist/test" / name, test // 10)
    measured([sys.executable, "-c", WEIGHTS, str(folder / "weights")])
    return folder


def compare(root: Path, model: str, sizes: Sequence[str], runs: Mapping[str, int], drawn: bool) -> Table:
    """Measure all sides of one model, or those with pictures."""
    rows: list[list[str]] = []
    for size in sizes:
        train, test = map(int, size.split("+"))
        task = Task(model, prepare(root / model, train, test), train, test)
        rows += rows_of(task, in_turns(sides_of(task, drawn), runs, partial(told, task)))
        shutil.rmtree(task.folder)
    return Table(f"experiment-{model}{'-pictures' if drawn else ''}", COLUMNS, rows, LIBRARIES)


def grow(root: Path, models: Sequence[str], counts: Sequence[int]) -> Table:
    """Run ours alone with growing sets, for its peak memory."""
    rows: list[list[str]] = []
    for model in models:
        for count in counts:
            learnt = min(count, LEARNT.get(model, count))
            task = Task(model, prepare(root / model, learnt, count), learnt, count)
            run = ours(task)
            told(task, OURS, run)
            rows.append([model, f"{learnt:,}", f"{count:,}", f"{run.cost.megabytes / 1000:.2f} GB"])
            shutil.rmtree(task.folder)
    return Table("experiment-memory", ("Model", "Train", "Test", "Peak memory"), rows, LIBRARIES)


def main() -> None:
    """Measure all models, and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", choices=MODELS, nargs="+", default=MODELS)
    parser.add_argument("--sizes", nargs="+", metavar="TRAIN+TEST", help="instead of each model's own")
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--runs", type=int, default=3, help="of each side")
    parser.add_argument("--slow-runs", type=int, help="of the sides of anomalib, where fewer are wanted")
    parser.add_argument("--pictures", action="store_true", help="the sides that draw pictures")
    parser.add_argument("--grow", type=int, nargs="+", metavar="IMAGES")
    add_write(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.grow:
            publish([grow(Path(name), options.models, options.grow)], options.write)
            return
        for model in options.models:
            sizes = options.sizes or (QUICK if options.quick else FULL)[model]
            table = compare(Path(name), model, sizes, turns(options), options.pictures)
            publish([table], options.write)


def turns(options: Any) -> dict[str, int]:
    """In how many turns each side takes part."""
    slow = options.runs if options.slow_runs is None else options.slow_runs
    return dict.fromkeys((OURS, ALONE, OURS_DRAWN), options.runs) | dict.fromkeys((ANOMALIB, ANOMALIB_DRAWN), slow)


if __name__ == "__main__":
    main()
