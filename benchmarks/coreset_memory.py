"""Memory and time of PatchCore's coreset for many images at 512 px, by chunks in a given memory; prints a table.

The patches of a few real pictures (EfficientNet-Lite0 with its ImageNet weights, 4,096 of 152 numbers each) are
streamed again and again, each time with other contrasts of all channels, so that no two are equal. The backbone's own
time is not in the table. Each line is a process of its own. ::

    python -m benchmarks.coreset_memory [--images N ...] [--ratio R] [--free GB] [--write]
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from anomaly_runner.models.coreset import k_center_greedy, projected
from anomaly_runner.models.coreset_chunks import ChunkedCoreset, CoresetSize
from anomaly_runner.models.threads import TorchThreads
from benchmarks.tables import Table, add_write, publish

SIDE, PICTURES, PATCHES = 512, 8, 4096


def peak() -> int:
    """Bytes that this process had at most."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0


def stream(images: int, ratio: float, free: int) -> list[str]:
    """Reduce the patches of this many images, and return a line of the table."""
    from benchmarks.patches import gravel_patches

    threads = TorchThreads(torch.device("cpu"))
    pictures = gravel_patches(PICTURES * PATCHES, SIDE, threads).reshape(PICTURES, PATCHES, -1)
    size = CoresetSize(images * PATCHES, pictures.shape[2], ratio)
    chunk = size.largest_chunk(free)

    def pick(patches: Tensor, count: int) -> Tensor:
        return patches[k_center_greedy(projected(patches, 0), count, lambda _: None, threads)]

    before, began = peak(), time.process_time()
    with torch.inference_mode():
        torch.manual_seed(0)
        coreset = ChunkedCoreset(pick, ratio, chunk)
        for image in range(images):
            coreset.add([pictures[image % PICTURES] * (1 + 0.1 * torch.randn(size.channels))])
        bank = coreset.finish()
    cpu = time.process_time() - began
    sizes = [number / 1e9 for number in (size.exact_bytes(), size.chunked_bytes(chunk), peak() - before)]
    numbers = [f"{number:,}" for number in (images, size.rows, len(bank), chunk)]
    return [*numbers, *(f"{number:.1f} GB" for number in sizes), f"{cpu:,.0f} s"]


def main() -> None:
    """Print a line for each number of images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--ratio", type=float, default=0.001)
    parser.add_argument("--free", type=float, default=4.0, help="GB")
    parser.add_argument("--here", action="store_true", help="in this process")
    add_write(parser)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(stream(arguments.images[0], arguments.ratio, int(arguments.free * 1e9))))
        return
    rows = []
    for images in arguments.images:
        values = ["--images", str(images), "--ratio", str(arguments.ratio), "--free", str(arguments.free)]
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.coreset_memory", "--here", *values]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(*rows[-1], sep="   ", flush=True)
    columns = ("Images", "Patches", "Kept", "Chunk", "At once, estimated", "In chunks, estimated", "Peak", "CPU")
    publish([Table("coreset-memory", columns, rows, ("anomaly-operator", "torch"))], arguments.write)


if __name__ == "__main__":
    main()
