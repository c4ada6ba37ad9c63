"""The MNIST experiment beside plain anomalib, whole processes, one after the other in one run.

PaDiM, resnet18's shape with random weights, 224 px; 100 nines to learn from, 1,000 digits to test on. anomalib's
side is what its documentation shows: Folder datamodule, ``Engine.fit``, ``Engine.test``; once as it comes, which
also draws every test image, and once without pictures. Ours draws none here, but also writes the ONNX model, tables
and report. ::

    python -m benchmarks.runner_experiment [--skip-anomalib] [--repeat N] [--model padim|patchcore]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from hack.demo.digits import write_mnist_folders

ROOT = Path(__file__).parents[1]
LAYERS = {"padim": ["layer1", "layer2", "layer3"], "patchcore": ["layer2", "layer3"]}

ANOMALIB = """
import sys, warnings
warnings.simplefilter("ignore")
root, model_name, out, visualizer = sys.argv[1:5]
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import Padim, Patchcore
from lightning import seed_everything
seed_everything(42)
if model_name == "padim":
    model = Padim(backbone="resnet18", layers=["layer1", "layer2", "layer3"], pre_trained=False,
                  pre_processor=Padim.configure_pre_processor((224, 224)), visualizer=visualizer == "pictures")
else:
    model = Patchcore(backbone="resnet18", layers=["layer2", "layer3"], pre_trained=False,
                      pre_processor=Patchcore.configure_pre_processor((224, 224)), visualizer=visualizer == "pictures")
data = Folder(name="mnist", root=root, normal_dir="train/good", normal_test_dir="test/good",
              abnormal_dir=[f"test/{digit}" for digit in range(9)], num_workers=2,
              train_batch_size=32, eval_batch_size=32)
engine = Engine(default_root_dir=out, logger=False, enable_progress_bar=False)
engine.fit(model=model, datamodule=data)
print(engine.test(model=model, datamodule=data, verbose=False))
"""


@dataclass(frozen=True)
class Cost:
    """What one process took."""

    seconds: float
    cpu_seconds: float
    megabytes: float
    output: str = ""


def measured(command: list[str]) -> Cost:
    """Run a process to its end."""
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env={name: value for name, value in os.environ.items()
                                    if name != "PYTHONDONTWRITEBYTECODE"})  # fmt: skip
    output = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[:3]} failed:\n{output[-4000:]}")
    return Cost(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024,
                output)  # fmt: skip


def manifest(folder: Path, model: str) -> Path:
    """Our side's experiment."""
    parameters = {"backbone": "resnet18", "layers": LAYERS[model], "preTrained": False}
    document = {
        "apiVersion": "anomalyops.io/v1alpha1",
        "kind": "AnomalyExperiment",
        "metadata": {"name": "bench", "namespace": "bench"},
        "spec": {
            "dataset": {"source": {"s3": {"uri": "s3://data"}}, "category": "mnist", "task": "classification"},
            "transforms": {"inputSize": {"height": 224, "width": 224}},
            "model": {"name": model, model: parameters},
            "output": {"s3": {"uri": "s3://results"}},
        },
    }
    file = folder / "bench.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def main() -> None:
    """Print both sides, and how they compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--skip-anomalib", action="store_true")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--model", choices=LAYERS, default="padim")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_mnist_folders(folder / "data/mnist")
        file = manifest(folder, options.model)
        print(f"{options.model}, 100 + 1000 images, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
        print(f"{'':20}{'wall s':>9}{'CPU s':>9}{'images/s':>10}{'peak MB':>9}")
        for _ in range(options.repeat):
            ours = measured([sys.executable, "-m", "anomaly_runner", "run", str(file), "--local", str(folder)])
            show("anomaly-runner", ours)
            for pictures in () if options.skip_anomalib else ("pictures", "none"):
                theirs = measured([sys.executable, "-c", ANOMALIB, str(folder / "data/mnist"), options.model,
                                   str(folder / "anomalib"), pictures])  # fmt: skip
                show(f"anomalib, {pictures}", theirs)
                print(f"{'times':20}{theirs.seconds / ours.seconds:9.1f}{theirs.cpu_seconds / ours.cpu_seconds:9.1f}"
                      f"{'':10}{theirs.megabytes / ours.megabytes:9.1f}")  # fmt: skip


def show(name: str, cost: Cost) -> None:
    """One line."""
    print(f"{name:20}{cost.seconds:9.1f}{cost.cpu_seconds:9.1f}{1100 / cost.seconds:10.1f}{cost.megabytes:9.0f}",
          flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
