"""The tests of ``tests/gpu``, then the benchmarks of ``benchmarks/gpu``, in at most 20 minutes, with a page of results.

Each part is a process of its own with a share of the time, and writes its results line by line. The page is written
after each part, so that one which fails or runs out of time costs its own rest alone. Started by ``hack/gpu/run``; the
exit status is 1 where a part failed or had no time, and where a GPU was asked for and there is none.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from hack.gpu import page
from hack.gpu.page import Part

ROOT = Path(__file__).parents[2]
INTERRUPTED = "interrupted"
_GRACE_SECONDS = 20
"""Time for pytest to end by itself when it is interrupted."""
_RESERVE_SECONDS = 15
"""Time for the page."""
_TESTS_SHARE = 0.6
"""Largest share of the time that the tests may take."""


@dataclass(frozen=True)
class Options:
    """The command line's options."""

    out: Path
    device: str
    quick: bool
    minutes: float
    parts: tuple[str, ...]


def main() -> int:
    """Run the parts, write the page; returns the exit status."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl+C: what is running ends, and the page is written
    end = time.monotonic() + options.minutes * 60 - _RESERVE_SECONDS
    machine = _machine()
    done: list[Part] = []
    for name in options.parts:
        left = end - time.monotonic()
        share = _TESTS_SHARE if name == "tests" and len(options.parts) > 1 else 1.0
        done.append(_run(name, options, left * share))
        page.write(options.out, options.device, machine, done)
        if done[-1].problem == INTERRUPTED:
            break
    print(f"\nresults: {options.out / page.FILE}")
    for part in done:
        print(f"{part.name}: {part.summary}")
    absent = options.device == "cuda" and not page.has_gpu(machine)
    if absent:
        print("torch sees no GPU, so nothing was checked; --device cpu tries the command itself", file=sys.stderr)
    return 1 if absent or any(part.problem or part.failed for part in done) else 0


def _machine() -> dict[str, str]:
    command = [sys.executable, "-m", "hack.gpu.machine"]
    found = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    if found.returncode:
        return {"GPU": "unknown: see the output of the command"}
    described: dict[str, str] = json.loads(found.stdout)
    return described


def _run(name: str, options: Options, seconds: float) -> Part:
    """Run one part for so many seconds at most, with its output on this one's and its lines in a file."""
    lines = options.out / f"{name}.jsonl"
    lines.unlink(missing_ok=True)
    command = _command(name, options, lines, seconds)
    print(f"\n{name}, at most {seconds / 60:.1f} minutes: {' '.join(command[1:])}", flush=True)
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    problem = _wait(process, max(seconds, 1))
    return Part(name, lines, time.monotonic() - began, problem)


def _command(name: str, options: Options, lines: Path, seconds: float) -> list[str]:
    common = [f"--device={options.device}", f"--lines={lines}"]
    if name == "benchmarks":
        quick = ["--quick"] if options.quick else []
        return [sys.executable, "-m", "benchmarks.gpu", *common, *quick, f"--seconds={seconds:.0f}"]
    # libraries of other versions than those of constraints.txt warn of other things: shown here, not failures
    pytest = [sys.executable, "-m", "pytest", "tests/gpu", "-v", "-W", "default", "-p", "no:cacheprovider"]
    return [*pytest, "--timeout=240", *common]


def _wait(process: subprocess.Popen[bytes], seconds: float) -> str:
    """Wait for the process, end it when its time is up, and return what went wrong, or nothing.

    It leads a process group, so that its own processes end with it.
    """
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        _end(process)
        return f"ended after {seconds:.0f} seconds, which was all its time"
    except KeyboardInterrupt:
        _end(process)
        return INTERRUPTED
    return f"ended with exit status {code}" if code else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="hack/gpu/run", description=__doc__.partition("\n")[0])
    default = Path(os.environ.get("OUT") or ROOT / "gpu-results")
    parser.add_argument("--out", type=Path, default=default, help="folder of the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu tries the command itself")
    parser.add_argument("--quick", action="store_true", help="few images in the benchmarks")
    parser.add_argument("--minutes", type=float, default=19, help="time for all, without the installation")
    parser.add_argument("--part", choices=("tests", "benchmarks"), help="one part alone")
    given = parser.parse_args()
    parts = (given.part,) if given.part else ("tests", "benchmarks")
    return Options(given.out.resolve(), given.device, given.quick, given.minutes, parts)


if __name__ == "__main__":
    sys.exit(main())
