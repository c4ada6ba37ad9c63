"""What the processes of the benchmark share: their options, and the lines that they leave."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

from hack.gpu.results import Measurement, append


@dataclass(frozen=True)
class Options:
    """Options of one process: numbers of images, their side in pixels, the device, the file that takes the lines."""

    name: str
    device: torch.device
    train: int
    test: int
    side: int
    lines: Path | None


def parsed() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--device", type=torch.device, required=True)
    for number in ("train", "test", "side"):
        parser.add_argument(f"--{number}", type=int, required=True)
    parser.add_argument("--lines", type=Path)
    return Options(**vars(parser.parse_args()))


def report(options: Options, measurement: Measurement) -> None:
    """Print a measurement, and add it to the file."""
    show(measurement)
    if options.lines:
        append(options.lines, measurement)


def show(measurement: Measurement) -> None:
    """Print a measurement in one line."""
    values = ", ".join(f"{name} {value:.4g}" for name, value in measurement.values.items())
    print(f"{measurement.table}: {measurement.subject}, {measurement.side}: {values} {measurement.note}", flush=True)
