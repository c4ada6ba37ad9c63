"""Inference compared with a bare onnxruntime loop, for growing numbers of images.

MNIST digits; PaDiM with real ImageNet weights (tf_efficientnet_lite0), other models as in runner_experiment.py, trained
once by the runner. Loops over the same images, each in a separate process:

- bare, from memory: ``session.run`` over prepared inputs, an upper bound of the speed;
- bare, from files: the same with decoding and resizing by Pillow and normalisation first, as commonly written;
- ours: ``anomaly-runner run``; its loop is the stage predict, which also hashes files and keeps scores;
- anomalib: ``Engine.predict`` with a checkpoint (anomalib_inference.py), unless ``--skip-anomalib``.

The bare loops use the fastest on this machine of: all CPUs within an operator, batches of 8 per CPU, or of 2. Beside
each loop the whole process is measured, import and tables included. With ``--runtimes`` the same images go
through torchscript and torch::

    python -m benchmarks.inference_runtimes [--images 100 1000 10000] [--models NAME...] [--repeat N] [--runtimes]
        [--skip-anomalib]
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.networks import LEARNT, MODELS, SIDES, anomalib_names, arguments, parameters
from benchmarks.runner_experiment import PER_CLASS, Cost, measured, prepare

LITE = {"backbone": "tf_efficientnet_lite0", "layers": ["blocks.1", "blocks.2", "blocks.4"], "nFeatures": 50}
GRADIENT = ("fastflow", "efficientad")
MODES = (("operators", 8), ("batches", 8), ("batches", 2))
"""Modes of the bare loops: what the CPUs divide among them, and images per batch."""

# Run in a separate process: a child's peak memory is at least that of its parent, and torch is large.
WEIGHTS = """
import sys
from pathlib import Path
from hack.demo.weights import write_efficientnet_lite0
write_efficientnet_lite0(Path(sys.argv[1]))
"""
BARE = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np, onnxruntime
from PIL import Image
model, folder, source, mode, many, cpus, size = *sys.argv[1:5], *map(int, sys.argv[5:8])
mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
def read(file):
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR), np.float32)
    return ((pixels / 255 - mean) / std).transpose(2, 0, 1)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = cpus if mode == "operators" else 1
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
files = sorted(path for path in Path(folder).rglob("*") if path.suffix == ".png")
parts = [files[start : start + many] for start in range(0, len(files), many)]
ready = {part[0]: np.stack([read(file) for file in part]) for part in parts[:128 // many]} if source == "memory" else {}
inputs = list(ready.values())
def score(number):
    batch = inputs[number % len(inputs)] if inputs else np.stack([read(file) for file in parts[number]])
    return session.run(None, {"input": batch[: len(parts[number])]})[0]
score(0)
began = time.perf_counter()
with ThreadPoolExecutor(1 if mode == "operators" and source == "memory" else cpus) as pool:
    scores = np.concatenate(list(pool.map(score, range(len(parts)))))
print("seconds", time.perf_counter() - began)
"""


def document(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest of a resource."""
    return {
        "apiVersion": "anomalyops.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "bench"},
        "spec": spec | {"output": {"s3": {"uri": "s3://results"}, "keepCheckpoint": True}},
    }


@dataclass(frozen=True)
class Trained:
    """A trained model; ``root`` has data/mnist, weights and results."""

    name: str
    root: Path

    @property
    def side(self) -> int:
        """Side of the input in pixels."""
        return SIDES.get(self.name, 224)

    @property
    def onnx(self) -> Path:
        """Path of the exported model."""
        return self.root / "results/bench/bench/local/model.onnx"


def train(folder: Path, name: str) -> Trained:
    """Train and export a model; gradient models for two steps."""
    trained = Trained(name, prepare(folder, LEARNT.get(name, PER_CLASS), PER_CLASS))
    measured([sys.executable, "-c", WEIGHTS, str(trained.root / "weights")])
    run(
        trained.root,
        document(
            "AnomalyExperiment",
            "bench",
            {
                "dataset": {"source": {"s3": {"uri": "s3://data"}}, "category": "mnist", "task": "classification"},
                "transforms": {"inputSize": {"height": trained.side, "width": trained.side}},
                "model": {
                    "name": name,
                    "weights": {"s3": {"uri": "s3://weights"}},
                    name: LITE if name == "padim" else parameters(name),
                },
                "training": {"maxSteps": 2, "earlyStopping": {"enabled": False}} if name in GRADIENT else {},
                "export": {"types": ["onnx", "torchscript"]},
            },
        ),
    )
    return trained


def run(root: Path, resource: dict[str, Any]) -> Cost:
    """Run a resource without a cluster, and return its cost."""
    file = root / f"{resource['metadata']['name']}.yaml"
    file.write_text(yaml.safe_dump(resource))
    return measured([sys.executable, "-m", "anomaly_runner", "run", str(file), "--local", str(root)])


def repeat_images(root: Path, count: int) -> Path:
    """Make a folder with ``count`` test images, repeated if there are fewer, and return it."""
    folder = root / f"data/images-{count}"
    files = sorted((root / "data/mnist/test").rglob("*.png"))
    folder.mkdir(parents=True)
    for index in range(count):
        source = files[index % len(files)]
        os.link(source, folder / f"{index:06d}-{source.parent.name}.png")
    return folder


def bare(trained: Trained, folder: Path, source: str) -> tuple[float, Cost]:
    """Return seconds of the loop and cost of the whole process, for the fastest mode."""
    found = [bare_in(trained, folder, source, mode) for mode in MODES]
    return min(found, key=lambda one: one[0])


def bare_in(trained: Trained, folder: Path, source: str, mode: tuple[str, int]) -> tuple[float, Cost]:
    """Return seconds of the loop and cost of the whole process, for one mode."""
    sharing, many = mode
    cpus = len(os.sched_getaffinity(0))
    cost = measured(
        [
            sys.executable,
            "-c",
            BARE,
            str(trained.onnx),
            str(folder),
            source,
            sharing,
            str(many),
            str(cpus),
            str(trained.side),
        ]
    )
    return timed(cost)


def timed(cost: Cost) -> tuple[float, Cost]:
    """Return the seconds that a process printed for its loop, and its cost."""
    return float(cost.output.rsplit("seconds", 1)[1]), cost


def ours(root: Path, folder: Path, runtime: str) -> tuple[float, Cost]:
    """Return seconds of the stage predict and cost of the whole process."""
    name = f"look-{runtime}"
    cost = run(
        root,
        document(
            "AnomalyInference",
            name,
            {
                "model": {"experiment": "bench"},
                "runtime": runtime,
                "input": {"source": {"s3": {"uri": "s3://data"}}, "category": folder.name, "layout": "flat"},
            },
        ),
    )
    report = json.loads((root / f"results/bench/{name}/local/report.json").read_text())
    shutil.rmtree(root / f"results/bench/{name}")
    return report["seconds"]["predict"], cost


def by_anomalib(trained: Trained, what: str, *folder: str) -> Cost:
    """Run ``train`` or ``predict`` of anomalib_inference.py, and return its cost."""
    given = anomalib_names(LITE) | {"pre_trained": False} if trained.name == "padim" else arguments(trained.name)
    return measured(
        [
            sys.executable,
            "-m",
            "benchmarks.anomalib_inference",
            what,
            trained.name,
            str(trained.root),
            str(trained.side),
            json.dumps(given),
            *folder,
        ],
        XDG_CACHE_HOME=str(trained.root / "weights"),
    )


def show(name: str, images: int, found: Iterable[tuple[float, Cost]]) -> float:
    """Print one line for the fastest of several runs, and return the loop's images per second."""
    seconds, cost = min(found, key=lambda one: one[0])
    print(
        f"{name:24}{images:8}{images / seconds:12.1f}{images / cost.seconds:12.1f}{cost.cpu_seconds:10.1f}"
        f"{cost.megabytes:10.0f}",
        flush=True,
    )
    return images / seconds


def compare(trained: Trained, images: int, repeat: int, runtimes: Iterable[str], with_anomalib: bool) -> None:
    """Print all lines for one number of images."""
    root, turns = trained.root, range(repeat)
    folder = repeat_images(root, images)
    memory = show("bare, from memory", images, [bare(trained, folder, "memory") for _ in turns])
    files = show("bare, from files", images, [bare(trained, folder, "files") for _ in turns])
    own = show("ours, onnx", images, [ours(root, folder, "onnx") for _ in turns])
    print(f"{'ours / bare':24}{images:8}{own / memory:12.1%} of memory, {own / files:.1%} of files", flush=True)
    for runtime in runtimes:
        show(f"ours, {runtime}", images, [ours(root, folder, runtime) for _ in turns])
    if with_anomalib:
        theirs = show("anomalib", images, [timed(by_anomalib(trained, "predict", str(folder))) for _ in turns])
        print(f"{'ours / anomalib':24}{images:8}{own / theirs:12.1f} times", flush=True)
    shutil.rmtree(folder)


def main() -> None:
    """Print all comparisons."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--models", choices=MODELS, nargs="+", default=["padim"])
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--runtimes", action="store_true")
    parser.add_argument("--skip-anomalib", action="store_true")
    options = parser.parse_args()
    runtimes = ("torchscript", "torch") if options.runtimes else ()
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            trained = train(Path(folder) / name, name)
            if not options.skip_anomalib:
                by_anomalib(trained, "train")
            print(f"\n{name}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
            print(f"{'':24}{'images':>8}{'loop im/s':>12}{'whole im/s':>12}{'CPU s':>10}{'peak MB':>10}")
            for images in options.images:
                compare(trained, images, options.repeat, runtimes, not options.skip_anomalib)


if __name__ == "__main__":
    main()
