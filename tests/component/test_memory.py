"""Requirements that a run checks before it starts: PatchCore's memory and disk space."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anomaly_runner.errors import StorageUnavailable
from anomaly_runner.models.coreset_chunks import CoresetSize
from anomaly_runner.system.scratch import allocate_array
from anomaly_runner.training.synthetic_painter import painter_memory

GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_ARENA_MAX": "1"}
"""What is freed leaves the process, or is there for all its threads: its peak does not depend on the gaps of each."""
ROOM = 50_000_000
"""For what does not grow; the runner adds more."""
ROOM_FOR_CHUNKS = 75_000_000
"""The same where chunk after chunk is reduced: a reduction leaves some 50 MB behind, the next one no more."""
FIT = """
import re, sys
from pathlib import Path
import torch
from anomaly_runner.models.patchcore import Patchcore
from anomaly_runner.models import threads
def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
def fit(patches, channels, ratio, chunk):
    model = Patchcore.__new__(Patchcore)
    torch.nn.Module.__init__(model)
    model.ratio, model._seed, model._check, model._chunk = ratio, 0, lambda _: None, chunk
    model._threads = threads.TorchThreads(torch.device('cpu'))
    model._patches = model._collection()
    centres, part = torch.randn(20, channels), patches // 40
    for _ in range(40):
        model.observe([centres[torch.randint(20, (part,))] + 0.01 * torch.randn(part, channels)])
    model.finish()
rows, channels, ratio, chunk = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
# What the libraries load for products of such widths takes 160 MB, once.
fit(10_000, channels, ratio, 2_500)
before = peak()
fit(rows, channels, ratio, chunk)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "ratio"), [(64, 0.002), (384, 0.002), (1024, 0.05)])
def test_the_memory_estimate_of_patchcore_is_its_peak(
    channels: int, ratio: float, measured: Callable[[str], None]
) -> None:
    size = CoresetSize(40_000 if ratio > 0.01 else 160_000, channels, ratio)
    peak, estimate = peak_of_fit(size, size.rows), size.exact_bytes()
    sizes = f"{peak / 1e6:.0f} MB, estimated {estimate / 1e6:.0f} MB"
    measured(f"PatchCore's coreset of {size.rows} patches of {channels} channels: {sizes}")
    assert peak <= estimate + ROOM
    assert estimate <= 1.5 * peak


PAINT = """
import sys
import numpy as np
from PIL import Image
from anomaly_api.dataset import SyntheticDefects
from anomaly_runner import experiment
from anomaly_runner.system.machine import used_memory
from anomaly_runner.training.synthetic_painter import SyntheticPainter
side = int(sys.argv[1])
image = Image.fromarray(np.random.default_rng(0).integers(90, 160, (side, side, 3)).astype(np.uint8))
experiment.TorchThreads(experiment.choose_device().device)
before = used_memory()
SyntheticPainter(SyntheticDefects(), 42)(image, "one")
print(used_memory() - before)
"""


def test_the_estimate_of_synthetic_defects_is_what_the_first_one_takes(measured: Callable[[str], None]) -> None:
    side = 1024
    command = [sys.executable, "-W", "ignore", "-c", PAINT, str(side)]
    taken = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    estimate = painter_memory((side, side))
    measured(f"a synthetic defect at {side} px: {taken / 1e6:.0f} MB, estimated {estimate / 1e6:.0f} MB")
    assert 0.7 * taken <= estimate <= 1.1 * taken


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.01, 0.1])
def test_chunks_bound_the_memory_of_patchcore(ratio: float, measured: Callable[[str], None]) -> None:
    size, chunk = CoresetSize(160_000, 384, ratio), 20_000
    peak, estimate, exact = peak_of_fit(size, chunk), size.chunked_bytes(chunk), size.exact_bytes()
    sizes = f"{peak / 1e6:.0f} MB, estimated {estimate / 1e6:.0f} MB, at once {exact / 1e6:.0f} MB"
    measured(f"PatchCore's coreset of {size.rows} patches in chunks of {chunk}, {ratio} kept: {sizes}")
    assert peak <= estimate + ROOM_FOR_CHUNKS
    assert peak < exact / 2


def peak_of_fit(size: CoresetSize, chunk: int) -> int:
    """Bytes by which a process grows while it fits a PatchCore."""
    arguments = [str(size.rows), str(size.channels), str(size.ratio), str(chunk)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FIT, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | GIVEN_BACK,
    )
    return int(done.stdout)


def test_an_array_in_a_file(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        values = allocate_array(file, (3, 2))
    values[1] = 5
    assert np.array_equal(values, [[0, 0], [5, 5], [0, 0]])


def test_a_full_disk_fails_before_anything_is_written(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file, pytest.raises(StorageUnavailable, match=r"1000000\.00 GB.*ephemeral"):
        allocate_array(file, (250_000, 1_000_000_000))
