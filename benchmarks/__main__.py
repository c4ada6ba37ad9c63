"""Run all benchmarks, one after the other, and write their tables into the page; ``--quick`` tries each once."""

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.processes import ROOT


@dataclass(frozen=True)
class Benchmark:
    """One call of a module of this folder.

    Attributes:
        module: its name.
        full: arguments for the tables of the page.
        quick: those with which it takes seconds, which shows that it works and measures nothing.
    """

    module: str
    quick: str
    full: str = ""

    def command(self, quick: bool) -> list[str]:
        """The command line; only the full one writes."""
        arguments = self.quick if quick else f"{self.full} --write"
        return [sys.executable, "-m", f"benchmarks.{self.module}", *shlex.split(arguments)]


BENCHMARKS = (
    Benchmark("runner_experiment", "--models padim --sizes 20+20 --runs 1"),
    Benchmark("runner_experiment", "--models padim --pictures --sizes 20+20 --runs 1", "--models padim --pictures"),
    Benchmark(
        "runner_experiment", "--grow 6 --models padim patchcore", "--grow 100 1000 10000 --models padim patchcore"
    ),
    Benchmark("visualize", "--images 2 --sides 64 --runs 1"),
    Benchmark("picture_costs", "--images 1 --runs 1"),
    Benchmark("inference_runtimes", "--models padim --quick --images 4 8 --runs 1"),
    Benchmark("runner_startup", "--runs 1"),
    Benchmark("busy_node", "--models padim --at-once 1 2 --images 5 --runs 1"),
    Benchmark("coreset", "--patches 2000 --seconds 1 --runs 1"),
    Benchmark("coreset_quality", "--seeds 1 --train 8 --chunks 2 --times 2", "--seeds 6 --times 2"),
    Benchmark("coreset_memory", "--images 10"),
    Benchmark("patchcore_large", "--images 4 --side 64 --ratio 0.1"),
    Benchmark("bank_search", "--rows 2000"),
    Benchmark("growth", "--models padim --images 4"),
    Benchmark("storage_transport", "--files 20 --large 1 --runs 1"),
    Benchmark("false_alarms", "--seeds 1"),
    Benchmark("search_quality", "--seeds 1 --problems 'Branin, 2'"),
    Benchmark("search_suggestion", "--repeat 1"),
    Benchmark("operator_apply", "--resources 5 --runs 1"),
    Benchmark("operator_sweeps", "--trials 10 --parallel 5 --seconds 1"),
    Benchmark("sweep_overhead", "--images 60 --trials 2", "--images 60 600"),
    Benchmark("sweep_overhead", "--images 60 --trials 2 --cache", "--images 600 --cache"),
)
"""In the order of the page. The last four need a cluster, and sweep_overhead the images in it."""


def run(benchmarks: Sequence[Benchmark], quick: bool) -> Iterator[tuple[str, float, int]]:
    """Run benchmarks; yields what was run, its seconds and its exit status. One that fails stops no other."""
    for benchmark in benchmarks:
        command = benchmark.command(quick)
        line = shlex.join(["python", *command[1:]])
        print(f"\n{line}", flush=True)
        began = time.perf_counter()
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        yield line, time.perf_counter() - began, status


def main() -> int:
    """Run all benchmarks or some; returns the exit status, 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smallest sizes; minutes in all, and writes nothing")
    modules = list(dict.fromkeys(benchmark.module for benchmark in BENCHMARKS))
    parser.add_argument(
        "--only", nargs="+", choices=modules, metavar="MODULE", default=modules, help=", ".join(modules)
    )
    options = parser.parse_args()
    chosen = [benchmark for benchmark in BENCHMARKS if benchmark.module in options.only]
    found = list(run(chosen, options.quick))
    print()
    for line, seconds, status in found:
        print(f"{seconds:7.0f} s  {f'FAILED ({status})' if status else 'done'}  {line}")
    return 1 if any(status for *_, status in found) else 0


if __name__ == "__main__":
    sys.exit(main())
