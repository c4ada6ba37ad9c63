"""Time from the start of the process to the first training step, and to the first inference.

Both processes run experiments like the MNIST sample on local folders; the reports of progress give the times. The first
run of each is left out: it compiles modules and fills the page cache. ::

    python -m benchmarks.runner_startup [--runs N] [--write]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml

from benchmarks.processes import ROOT
from benchmarks.runner_experiment import Task, manifest
from benchmarks.tables import Spread, Table, add_write, in_turns, publish
from hack.demo.digits import write_inference_folders, write_mnist_folders

LEARNT = 32
WATCHED = """
import sys, time
from pathlib import Path
from anomaly_runner.progress import BarReporter
class StageReporter:
    def __init__(self, console): pass
    def report(self, stage, values):
        if values.completed and stage.value in ("train", "predict"):
            print(stage.value, flush=True)
    def close(self): pass
import anomaly_runner.local
anomaly_runner.local.BarReporter = StageReporter
sys.exit(anomaly_runner.local.run_locally(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def first_step(stage: str, file: Path, folder: Path) -> float:
    """Return the seconds from the start of the process until the first batch of the stage is done.

    Raises:
        SystemExit: the run failed, or had no such stage.
    """
    began = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHED, str(file), str(folder)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    assert process.stdout
    for line in process.stdout:
        if line.strip() == stage:
            seconds = time.perf_counter() - began
            break
    else:
        raise SystemExit(f"no {stage} step")
    process.stdout.read()
    if process.wait():
        raise SystemExit("the run failed")
    return seconds


def inference_manifest(folder: Path) -> Path:
    """Write an inference with the experiment's model, and return the file."""
    document = {
        "apiVersion": "anomalyops.io/v1alpha1",
        "kind": "AnomalyInference",
        "metadata": {"name": "look", "namespace": "bench"},
        "spec": {
            "model": {"experiment": "bench"},
            "input": {"source": {"s3": {"uri": "s3://data"}}, "category": "look", "layout": "labelled"},
            "output": {"s3": {"uri": "s3://results"}},
        },
    }
    file = folder / "look.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def measure(folder: Path, runs: int) -> Table:
    """Run both in turns."""
    experiment, inference = manifest(Task("padim", folder, LEARNT, 10 * LEARNT)), inference_manifest(folder)
    sides: dict[str, Callable[[], float]] = {
        f"training, first step of {LEARNT} images": partial(first_step, "train", experiment, folder),
        "inference, first batch": partial(first_step, "predict", inference, folder),
    }
    for side in sides.values():
        side()
    found = in_turns(sides, dict.fromkeys(sides, runs), lambda name, seconds: print(f"{name}: {seconds:.2f} s"))
    rows = [[name, str(len(seconds)), Spread.of(seconds).text(" s")] for name, seconds in found.items()]
    libraries = ("anomaly-operator", "torch", "onnxruntime-gpu")
    return Table("startup", ("From the start of the process to", "Runs", "Seconds"), rows, libraries)


def main() -> None:
    """Measure both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=3)
    add_write(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_mnist_folders(folder / "data/mnist", per_class=LEARNT)
        write_inference_folders(folder / "data/look")
        publish([measure(folder, options.runs)], options.write)


if __name__ == "__main__":
    main()
