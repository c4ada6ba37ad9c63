"""The MNIST experiment compared with plain anomalib and with the bare network, as whole processes.

Models with random weights train on nines and are tested on all digits. Sides, each in separate processes, one after the
other:

- anomaly-runner: writes the ONNX model, compared with torch on 32 images, tables and the report; no pictures;
- anomalib as its documentation shows it, with the ONNX model; draws every test image, and the same without pictures;
- bare: the network in torch, fed from memory (bare_torch.py).

Gradient models validate on the test images after each epoch on the first three sides. ``train`` and ``test`` are images
per second of those stages only. ``--grow`` runs several sizes of both sets; some models train on fewer images
(networks.LEARNT)::

    python -m benchmarks.runner_experiment [--models NAME...] [--test N] [--skip-anomalib] [--repeat N]
    python -m benchmarks.runner_experiment --grow 100 1000 10000 [--models NAME...] [--skip-anomalib]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.networks import BATCHES, EPOCHS, LEARNT, MODELS, SIDES, parameters
from hack.demo.digits import DIGITS, write_mnist_folders

ROOT = Path(__file__).parents[1]
PER_CLASS = 100
BANK = ("patchcore",)
WEIGHTS = """
import sys
from pathlib import Path
from hack.demo.auxiliary import write_auxiliary_weights
write_auxiliary_weights(Path(sys.argv[1]))
"""
# Run in a separate process: a child's peak memory is at least that of its parent, and torch is large.


@dataclass(frozen=True)
class Cost:
    """The resources that one process took."""

    seconds: float
    cpu_seconds: float
    megabytes: float
    output: str = ""


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


def measured(command: list[str], **environment: str) -> Cost:
    """Run a process to its end, and return its cost.

    Raises:
        SystemExit: the process failed.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=inherited | environment
    )
    output = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[:3]} failed:\n{output[-4000:]}")
    return Cost(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)


def manifest(task: Task) -> Path:
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
            "output": {"s3": {"uri": "s3://results"}},
        },
    }
    file = task.folder / "bench.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def ours(task: Task) -> tuple[Cost, dict[str, float]]:
    """Run anomaly-runner, and return the cost of the process and the seconds of its stages."""
    shutil.rmtree(task.folder / "results", ignore_errors=True)
    cost = measured([sys.executable, "-m", "anomaly_runner", "run", str(manifest(task)), "--local", str(task.folder)])
    report = json.loads((task.folder / "results/bench/bench/local/report.json").read_text())
    return cost, report["seconds"]


def other(task: Task, script: str, *arguments: str) -> tuple[Cost, dict[str, float]]:
    """Run another side's script, and return the cost of the process and the seconds of its stages."""
    cost = measured(
        [sys.executable, "-m", f"benchmarks.{script}", *task.arguments, *arguments],
        XDG_CACHE_HOME=str(task.folder / "weights"),
    )
    return cost, json.loads(cost.output.strip().rsplit("\n", 1)[-1])


def compare(task: Task, with_anomalib: bool) -> None:
    """Print all sides of one task, and their ratios to ours."""
    own = ours(task)
    show(task, "anomaly-runner", own)
    sides = {
        "anomalib, pictures": ("plain_anomalib", "pictures"),
        "anomalib, none": ("plain_anomalib", "none"),
        "bare torch": ("bare_torch",),
    }
    for name, command in sides.items():
        if with_anomalib or command[0] == "bare_torch":
            found = other(task, *command)
            show(task, name, found)
            ratios = (theirs / mine for theirs, mine in zip(columns(found), columns(own), strict=True))
            print(f"{'  times ours':34}" + "".join(f"{ratio:9.1f}" for ratio in ratios), flush=True)


def columns(found: tuple[Cost, dict[str, float]]) -> tuple[float, ...]:
    """Return seconds of the process, of CPU, of training and of testing, and peak memory (MB)."""
    cost, seconds = found
    return cost.seconds, cost.cpu_seconds, seconds["train"], seconds["predict"], cost.megabytes


def show(task: Task, name: str, found: tuple[Cost, dict[str, float]]) -> None:
    """Print one line."""
    whole, cpu, train, test, megabytes = columns(found)
    learnt = task.train * max(1, EPOCHS.get(task.model, 0))
    print(
        f"{task.model:12}{name:22}{whole:9.1f}{cpu:9.1f}{learnt / train:9.1f}{task.test / test:9.1f}{megabytes:9.0f}",
        flush=True,
    )


def header(train: int, test: int) -> None:
    """Print the header of the lines of one size."""
    print(f"\n{train} + {test} images, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    print(f"{'':34}{'wall s':>9}{'CPU s':>9}{'train/s':>9}{'test/s':>9}{'peak MB':>9}", flush=True)


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


def main() -> None:
    """Print all sides, and how they compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", choices=MODELS, nargs="+", default=MODELS)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--grow", type=int, nargs="+")
    parser.add_argument("--skip-anomalib", action="store_true")
    parser.add_argument("--repeat", type=int, default=1)
    options = parser.parse_args()
    sizes = [(count, count) for count in options.grow] if options.grow else [(PER_CLASS, options.test)]
    with tempfile.TemporaryDirectory() as name:
        for train, test in sizes:
            header(train, test)
            for model in options.models:
                learnt = min(train, LEARNT.get(model, train))
                task = Task(model, prepare(Path(name) / model, learnt, test), learnt, test)
                for _ in range(options.repeat):
                    compare(task, not options.skip_anomalib)
                shutil.rmtree(task.folder)


if __name__ == "__main__":
    main()
