"""Training and inference on a GPU: this runner beside anomalib's Engine and the bare network, in one run.

PaDiM, PatchCore, FastFlow and EfficientAD with random weights, over 200 + 200 pictures of 256 px as PNG files; models
trained by gradient validate on the test pictures after each epoch, except as the bare network. Sides, one after the
other in the process of their model, each after a run over a few pictures:

- ours: the runner from files to scores, in exact float32; trainings by gradient also in TF32;
- anomalib: Folder, ``Engine.fit``, ``Engine.predict``, with torch's defaults, which are TF32 in convolutions;
- bare network: its forward passes (and steps) over tensors on the device, in exact float32: the limit of anything that
  runs it. PaDiM and PatchCore: their backbone alone.

Then the trained model in float32, TF32 and float16, and PatchCore's coreset. Ratios are in units of the first line. ::

    python -m benchmarks.gpu [--models NAME...] [--device cpu] [--quick] [--seconds N] [--lines FILE]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.gpu.run import show
from benchmarks.networks import MODELS
from hack.gpu.page import Table, tables
from hack.gpu.results import Measurement, append, read

ROOT = Path(__file__).parents[2]
CORESET = "coreset"
SIZES = {"train": 200, "test": 200, "side": 256}
QUICK = {"train": 4, "test": 4, "side": 64}


def main() -> int:
    """Run all processes, print the tables; returns the exit status: 1 where a process failed or had no time."""
    options = _options()
    lines: Path = options.lines or Path(tempfile.mkdtemp()) / "lines.jsonl"
    end = time.monotonic() + options.seconds
    names = [*(options.models or _usual_models(options.device)), CORESET]
    failed = False
    for index, name in enumerate(names):
        seconds = (end - time.monotonic()) / (len(names) - index)
        problem = _run(name, options, lines, seconds)
        if problem:
            failure = Measurement("Not measured", name, "", note=problem)
            show(failure)
            append(lines, failure)
            failed = True
    for table in tables([line for line in read(lines) if isinstance(line, Measurement)]):
        _print(table)
    return int(failed)


def _usual_models(device: str) -> tuple[str, ...]:
    """All models; on a CPU without EfficientAD, a step of which takes seconds there."""
    return tuple(name for name in MODELS if device != "cpu" or name != "efficientad")


def _run(name: str, options: argparse.Namespace, lines: Path, seconds: float) -> str:
    """Run one process, and return what went wrong, or nothing."""
    module = "benchmarks.gpu.coreset" if name == CORESET else "benchmarks.gpu.model"
    sizes = [f"--{key}={value}" for key, value in (QUICK if options.quick else SIZES).items()]
    command = [sys.executable, "-m", module, name, f"--device={options.device}", f"--lines={lines}", *sizes]
    print(f"\n{name}, at most {seconds:.0f} s", flush=True)
    try:
        code = subprocess.run(command, cwd=ROOT, check=False, timeout=max(seconds, 1)).returncode
    except subprocess.TimeoutExpired:
        return f"ended after {seconds:.0f} seconds, which was all its time"
    return f"ended with exit status {code}: see the output" if code else ""


def _print(table: Table) -> None:
    print(f"\n{table.title}")
    for row in table.rows:
        one = row.measurement
        values = (
            _with_ratio(name, one.values[name], row.ratios, row.first) for name in table.columns if name in one.values
        )
        print(f"  {one.subject:14}{one.side:18}{', '.join(values)} {one.note}".rstrip())


def _with_ratio(name: str, value: float, ratios: Mapping[str, float], first: bool) -> str:
    ratio = "" if first or name not in ratios else f" ({ratios[name]:.2f} times)"
    return f"{name} {value:.4g}{ratio}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--models", choices=MODELS, nargs="+", help="default: all, on a CPU without EfficientAD")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu tries the benchmark itself")
    parser.add_argument("--quick", action="store_true", help="a few small pictures")
    parser.add_argument("--seconds", type=float, default=600, help="time for all")
    parser.add_argument("--lines", type=Path, help="file that takes a line for each measurement")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
