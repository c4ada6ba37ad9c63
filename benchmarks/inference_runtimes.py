"""Inference beside bare onnxruntime and beside anomalib's three ways, as whole processes in turns on one machine.

MNIST digits; PaDiM with real ImageNet weights (tf_efficientnet_lite0), other models as in runner_experiment.py, trained
once by each program. Every side scores the same files, in a process of its own:

- ours: ``anomaly-runner run``, which also hashes files, and writes tables, metrics and a report;
- onnxruntime, files: ``session.run`` of our ONNX model over files that Pillow decodes and resizes, as commonly written;
- onnxruntime, memory: the same over inputs in memory;
- anomalib: ``Engine.predict``, ``TorchInferencer``, ``OpenVINOInferencer`` (anomalib_inference.py), which keep nothing;
- with ``--runtimes`` ours on torchscript and on torch.

The bare loops use the fastest on this machine of: all CPUs within an operator, batches of 8 per CPU, or of 2. There is
one clock for all sides, that of the whole process, and two numbers of images: the images between the two, divided by
the seconds between the two, is the speed of the loop, free of imports, loading and the start of workers. ::

    python -m benchmarks.inference_runtimes [--models NAME...] [--images FEW MANY] [--runs N] [--learnt N] [--quick]
        [--runtimes] [--write]
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

from anomaly_runner.system.machine import cpu_limit
from benchmarks.networks import LEARNT, MODELS, SIDES, anomalib_names, arguments, parameters
from benchmarks.processes import Cost, measured, run_locally
from benchmarks.runner_experiment import PER_CLASS, prepare
from benchmarks.tables import Spread, Table, add_write, in_turns, publish

LITE = {"backbone": "tf_efficientnet_lite0", "layers": ["blocks.1", "blocks.2", "blocks.4"], "nFeatures": 50}
GRADIENT = ("fastflow", "efficientad")
MODES = (("operators", 8), ("batches", 8), ("batches", 2))
"""Modes of the bare loops: what the CPUs divide among them, and images per batch."""
TESTED = 50
"""Test images, which are repeated: anomalib validates on all of them."""
WITHOUT_OPENVINO = ("patchcore",)
"""Models whose export by anomalib 2.7 takes batches of two, which its inferencer, with one image, cannot run."""
OURS = "ours"
LIBRARIES = ("anomaly-operator", "anomalib", "onnxruntime-gpu", "openvino", "torch")

# Run in a separate process: a child's peak memory is at least that of its parent, and torch is large.
WEIGHTS = """
import sys
from pathlib import Path
from hack.demo.weights import write_efficientnet_lite0
write_efficientnet_lite0(Path(sys.argv[1]))
"""
BARE = """
import sys
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
ready = {part[0]: np.stack([read(file) for file in part]) for part in parts[:48 // many]} if source == "memory" else {}
inputs = list(ready.values())
def score(number):
    batch = inputs[number % len(inputs)] if inputs else np.stack([read(file) for file in parts[number]])
    return session.run(None, {"input": batch[: len(parts[number])]})[0]
with ThreadPoolExecutor(1 if mode == "operators" and source == "memory" else cpus) as pool:
    scores = np.concatenate(list(pool.map(score, range(len(parts)))))
print(len(scores))
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


def train(folder: Path, name: str, learnt: int) -> Trained:
    """Train and export a model with each program; gradient models for two steps."""
    trained = Trained(name, prepare(folder, min(learnt, LEARNT.get(name, learnt)), TESTED))
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
    by_anomalib(trained, "train")
    return trained


def run(root: Path, resource: dict[str, Any]) -> Cost:
    """Run a resource without a cluster, and return its cost."""
    file = root / f"{resource['metadata']['name']}.yaml"
    file.write_text(yaml.safe_dump(resource))
    return run_locally(file, root)


def repeat_images(root: Path, count: int) -> Path:
    """Make a folder with ``count`` test images, repeated if there are fewer, and return it."""
    folder = root / f"data/images-{count}"
    files = sorted((root / "data/mnist/test").rglob("*.png"))
    folder.mkdir(parents=True)
    for index in range(count):
        source = files[index % len(files)]
        os.link(source, folder / f"{index:06d}-{source.parent.name}.png")
    return folder


def bare(trained: Trained, source: str, mode: tuple[str, int], folder: Path) -> Cost:
    """Run the bare loop in one mode."""
    values = (trained.onnx, folder, source, *mode, cpu_limit(), trained.side)
    return measured([sys.executable, "-c", BARE, *map(str, values)])


def fastest_mode(trained: Trained, source: str, folder: Path) -> tuple[str, int]:
    """The mode in which the bare loop takes the shortest time, of one run each."""
    return min(MODES, key=lambda mode: bare(trained, source, mode, folder).seconds)


def ours(root: Path, runtime: str, folder: Path) -> Cost:
    """Run anomaly-runner."""
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
    shutil.rmtree(root / f"results/bench/{name}")
    return cost


def by_anomalib(trained: Trained, what: str, *folder: Path) -> Cost:
    """Run a command of anomalib_inference.py."""
    given = anomalib_names(LITE) | {"pre_trained": False} if trained.name == "padim" else arguments(trained.name)
    values = (what, trained.name, trained.root, trained.side, json.dumps(given), *folder)
    return measured(
        [sys.executable, "-m", "benchmarks.anomalib_inference", *map(str, values)],
        XDG_CACHE_HOME=str(trained.root / "weights"),
    )


def sides_of(trained: Trained, folder: Path, runtimes: Sequence[str]) -> Mapping[str, Callable[[Path], Cost]]:
    """All sides, by name; ``folder`` has the images with which the bare loops find their fastest modes, many."""
    bare_sides = {
        f"onnxruntime, {source}": partial(bare, trained, source, fastest_mode(trained, source, folder))
        for source in ("files", "memory")
    }
    anomalibs = {
        "anomalib `Engine.predict`": "engine",
        "anomalib `TorchInferencer`": "torch",
        "anomalib `OpenVINOInferencer`": "openvino",
    }
    if trained.name in WITHOUT_OPENVINO:
        del anomalibs["anomalib `OpenVINOInferencer`"]
    return (
        {OURS: partial(ours, trained.root, "onnx")}
        | {f"ours, {runtime}": partial(ours, trained.root, runtime) for runtime in runtimes}
        | bare_sides
        | {name: partial(by_anomalib, trained, what) for name, what in anomalibs.items()}
    )


@dataclass(frozen=True)
class Pair:
    """The same side with few and with many images."""

    few: Cost
    many: Cost

    def per_second(self, images: int) -> float:
        """Images a second of the loop; ``images`` is how many more there are with many."""
        return images / (self.many.seconds - self.few.seconds)


def both(side: Callable[[Path], Cost], folders: Sequence[Path]) -> Pair:
    """Run a side with few and with many images."""
    return Pair(*(side(folder) for folder in folders))


def spread(pairs: Sequence[Pair], value: Callable[[Pair], float]) -> Spread:
    """One quantity of all turns."""
    return Spread.of([value(pair) for pair in pairs])


def row(name: str, pairs: Sequence[Pair], own: Sequence[Pair], more: int) -> list[str]:
    """A line of the table."""
    few, many, speed = (
        spread(pairs, value)
        for value in (lambda pair: pair.few.seconds, lambda pair: pair.many.seconds, lambda pair: pair.per_second(more))
    )
    whole = spread(own, lambda pair: pair.many.seconds)
    loop = spread(own, lambda pair: pair.per_second(more))
    ratios = ["1", "1"] if pairs is own else [many.over(whole).text(), loop.over(speed).text()]
    cpu = spread(pairs, lambda pair: pair.many.cpu_seconds).middle(" s")
    memory = spread(pairs, lambda pair: pair.many.megabytes / 1000).middle(" GB")
    times = [few.text(" s"), many.text(" s"), speed.text()]
    return [name, str(len(pairs)), *times, *ratios, cpu, memory]


def told(name: str, pair: Pair) -> None:
    """Print one turn of a side."""
    print(f"{name:32}{pair.few.seconds:8.2f} s{pair.many.seconds:8.2f} s", flush=True)


def compare(trained: Trained, images: Sequence[int], runs: int, runtimes: Sequence[str]) -> Table:
    """Measure all sides of one model."""
    folders = [repeat_images(trained.root, count) for count in images]
    sides = {name: partial(both, side, folders) for name, side in sides_of(trained, folders[-1], runtimes).items()}
    found: Mapping[str, Sequence[Pair]] = in_turns(sides, dict.fromkeys(sides, runs), told)
    few, many = images
    columns = ("Side", "Runs", f"Process, {few:,} images", f"{many:,} images", "Images a second between")
    more = (f"Process of {many:,}, times ours", "A loop's image, times ours", "CPU", "Peak memory")
    rows = [row(name, pairs, found[OURS], many - few) for name, pairs in found.items()]
    return Table(f"inference-{trained.name}", (*columns, *more), rows, LIBRARIES)


def main() -> None:
    """Measure all models, and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", choices=MODELS, nargs="+", default=MODELS)
    parser.add_argument("--images", type=int, nargs=2, metavar=("FEW", "MANY"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--learnt", type=int, help="training images: anomalib needs 11 GB for 20 of PatchCore's")
    parser.add_argument(
        "--quick", action="store_true", help="100 and 500 images, learnt from 30, instead of 1,000 and 100"
    )
    parser.add_argument("--runtimes", action="store_true")
    add_write(parser)
    options = parser.parse_args()
    images = options.images or ((100, 500) if options.quick else (100, 1000))
    runtimes = ("torchscript", "torch") if options.runtimes else ()
    learnt = options.learnt or (30 if options.quick else PER_CLASS)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            trained = train(Path(folder) / name, name, learnt)
            publish([compare(trained, images, options.runs, runtimes)], options.write)


if __name__ == "__main__":
    main()
