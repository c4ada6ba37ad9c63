"""PatchCore's coreset beside anomalib's ``KCenterGreedy``, on real patches and on the CPU; prints a table.

Both pick a tenth of the patches, in turns. anomalib's time is that of its first steps, which all cost the same, times
their number: it is bounded. "Same projection" is ours on anomalib's projected patches, whose picks must be the same;
they are compared over all steps that anomalib did. ::

    python -m benchmarks.coreset [--patches N ...] [--seconds S] [--runs N] [--write]
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anomaly_runner.models.coreset import k_center_greedy, projected, projected_always
from anomaly_runner.models.threads import TorchThreads
from benchmarks.patches import gravel_patches
from benchmarks.processes import measured
from benchmarks.tables import Spread, Table, add_write, in_turns, publish

SEED, SIDE, SHARE = 7, 256, 0.1
FEWEST_STEPS = 50


class Anomalib:
    """anomalib's own class, stopped after some time.

    Args:
        patches: (N, D).
        seconds: after which no step begins, once there were a few.
    """

    def __init__(self, patches: Tensor, seconds: float) -> None:
        from anomalib.models.components import KCenterGreedy

        seed_everything()
        self._greedy: Any = KCenterGreedy(embedding=patches, sampling_ratio=SHARE)
        self._update, self._until = self._greedy.update_distances, seconds
        self._greedy.update_distances = self._step
        self.picked: list[int] = []
        self._began = 0.0

    def run(self) -> float:
        """Return the seconds of all steps, as far as they had to be done."""
        self._began = began = time.perf_counter()
        try:
            self.picked = self._greedy.select_coreset_idxs()
            return time.perf_counter() - began
        except TimeoutError:
            # the first step also projects the patches
            return (self._began - began) + (time.perf_counter() - self._began) * self._steps_in_all / len(self.picked)

    @property
    def _steps_in_all(self) -> int:
        return int(self._greedy.coreset_size)

    def _step(self, cluster_center: Tensor) -> None:
        if not self.picked:
            self._began = time.perf_counter()
        elif len(self.picked) >= FEWEST_STEPS and time.perf_counter() - self._began > self._until:
            raise TimeoutError
        self.picked.append(int(cluster_center))
        self._update(cluster_center=cluster_center)


def seed_everything() -> None:
    """Draw the same random numbers on both sides."""
    torch.manual_seed(SEED)
    np.random.seed(SEED)


def ours(patches: Tensor, threads: TorchThreads, project: Callable[[Tensor], Tensor]) -> tuple[float, list[int]]:
    """Seconds and picks of ours."""
    seed_everything()
    began = time.perf_counter()
    picked = k_center_greedy(project(patches), int(len(patches) * SHARE), lambda _: None, threads)
    return time.perf_counter() - began, picked.tolist()


def by_anomalib(patches: Tensor, seconds: float) -> tuple[float, list[int]]:
    """Seconds of all steps, and the picks of those that were done.

    A process of its own has torch's threads and allocator as anomalib leaves them; ours sets both otherwise.
    """
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, patches.numpy())
        command_line = [sys.executable, "-m", "benchmarks.coreset", "--anomalib", file.name, "--seconds", str(seconds)]
        took, picked = json.loads(measured(command_line).last_line)
    return took, picked


def run_anomalib(file: Path, seconds: float) -> None:
    """Print what ``by_anomalib`` returns."""
    reference = Anomalib(torch.from_numpy(np.load(file)), seconds)
    with torch.inference_mode():
        print("\n" + json.dumps([reference.run(), reference.picked]))


def row(patches: Tensor, seconds: float, runs: int) -> list[str]:
    """A line of the table."""
    threads = TorchThreads(torch.device("cpu"))
    sides = {
        "ours": partial(ours, patches, threads, partial(projected, seed=SEED)),
        "same": partial(ours, patches, threads, partial(projected_always, seed=SEED)),
        "anomalib": partial(by_anomalib, patches, seconds),
    }
    found = in_turns(
        sides, dict.fromkeys(sides, runs), lambda name, one: print(f"{name:10}{one[0]:10.1f} s", flush=True)
    )
    plain, same, theirs = (Spread.of([took for took, _ in found[name]]) for name in sides)
    picked, expected = found["same"][0][1], max((picks for _, picks in found["anomalib"]), key=len)
    equal = "yes" if picked[: len(expected)] == expected else "NO"
    ratios = f"{theirs.over(plain).text()}", f"{theirs.over(same).text()}"
    cells = [plain.text(" s"), same.text(" s"), theirs.text(" s"), *ratios]
    return [f"{len(patches):,}", f"{len(picked):,}", *cells, f"{equal}, {len(expected):,}"]


def main() -> None:
    """Measure all numbers of patches, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--patches", type=int, nargs="+", default=[25_000, 50_000, 100_000, 200_000])
    parser.add_argument("--seconds", type=float, default=60, help="of anomalib's steps, for each number of patches")
    parser.add_argument("--runs", type=int, default=3)
    add_write(parser)
    parser.add_argument("--anomalib", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.anomalib:
        run_anomalib(arguments.anomalib, arguments.seconds)
        return
    patches = gravel_patches(max(arguments.patches), SIDE, TorchThreads(torch.device("cpu")))
    with torch.inference_mode():
        projected_always(patches[:1000], SEED)  # the first call loads libraries
        rows = [
            row(patches[torch.randperm(len(patches))[:count]], arguments.seconds, arguments.runs)
            for count in arguments.patches
        ]
    columns = (
        "Patches",
        "Kept",
        "Ours",
        "Same projection",
        "anomalib",
        "Times ours",
        "Times same projection",
        "Same picks",
    )
    table = Table("coreset", columns, rows, ("anomaly-operator", "anomalib", "torch"), f"{arguments.runs} runs each.")
    publish([table], arguments.write)


if __name__ == "__main__":
    main()
