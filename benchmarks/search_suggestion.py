"""What a suggestion, a decision and a summary cost with many past trials, and the memory that they take.

Eight parameters, of which two exist under conditions, and eight trials at work. As in the operator, a memo knows the
answers of before, since the last of which one trial is another. Each measurement in a process of its own; the first of
each kind is left out, since it imports. Times are the CPU's: other processes do not count. ::

    python -m benchmarks.search_suggestion [--repeat N] [--write]
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from anomaly_search import points
from anomaly_search.memo import Memo
from anomaly_search.schedule import schedule
from anomaly_search.space import Choices, Condition, FloatRange, IntRange, Parameter, Space
from anomaly_search.suggest import suggest
from anomaly_search.summary import summary
from anomaly_search.sweep import Algorithm, AlgorithmName, Limits, Objective, Sweep
from anomaly_search.trials import State, Trial
from benchmarks.tables import Spread, Table, add_write, publish

NUMBERS = (100, 1_000, 10_000)
RUNNING = 8
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
NUMERIC = (
    *(Parameter(f"x{place}", FloatRange(-5, 5)) for place in range(4)),
    Parameter("rate", FloatRange(1e-5, 1, log=True)),
    Parameter("k", IntRange(1, 64, log=True)),
    Parameter("n", IntRange(1, 1000)),
    Parameter("width", IntRange(8, 512, step=8)),
)
MIXED = (
    Parameter("model", Choices(("patchcore", "padim", "stfpm"))),
    Parameter("ratio", FloatRange(0.001, 1, log=True), Condition("model", ("patchcore",))),
    Parameter("features", IntRange(10, 550), Condition("model", ("padim",))),
    *NUMERIC[:5],
)
CASES: dict[str, tuple[AlgorithmName, tuple[Parameter, ...], int]] = {
    "random": ("random", MIXED, 1),
    "sobol": ("sobol", MIXED, 1),
    "tpe": ("tpe", MIXED, 1),
    "tpe, two objectives": ("tpe", MIXED, 2),
    "cmaes": ("cmaes", NUMERIC, 1),
}


def history(parameters: tuple[Parameter, ...], objectives: int, number: int) -> list[Trial]:
    """Return random trials, the last of them at work."""
    generator = np.random.default_rng(0)
    space = Space(parameters)
    done = []
    for place in range(number + RUNNING):
        point = points.from_unit(space, generator.random(len(parameters)).tolist())
        ended = BEGIN + timedelta(seconds=place)
        values = tuple(generator.random(objectives).tolist())
        at_work = place >= number
        state = State.RUNNING if at_work else State.COMPLETE
        done.append(
            Trial(place, point, state, () if at_work else values, started=BEGIN, ended=None if at_work else ended)
        )
    return done


def milliseconds(work: Callable[[], object], repeat: int) -> list[float]:
    """Return the times of the CPU, without the first."""
    took = []
    for _ in range(repeat + 1):
        began = time.process_time()
        work()
        took.append((time.process_time() - began) * 1000)
    return took[1:]


def measure(case: str, number: int, repeat: int) -> dict[str, list[float]]:
    """Return the milliseconds of each kind of work, and the peak memory in MiB before the summary."""
    algorithm, parameters, objectives = CASES[case]
    aims = tuple(Objective(f"m{place}") for place in range(objectives))
    sweep = Sweep(Space(parameters), Limits(100_000, 2 * RUNNING), aims, Algorithm(algorithm))
    done, memo, places = history(parameters, objectives, number), Memo(), itertools.count()
    now = BEGIN + timedelta(days=1)

    def news() -> list[Trial]:
        place = next(places)
        done[place] = replace(done[place], ended=now)
        return done

    return {
        "suggest": milliseconds(lambda: suggest(sweep, news(), len(done), memo), repeat),
        "schedule": milliseconds(lambda: schedule(sweep, news(), now, memo=memo), repeat),
        "memory": [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024],
        "summary": milliseconds(lambda: summary(sweep, news(), memo), repeat),
    }


def in_own_process(case: str, number: int, repeat: int) -> dict[str, list[float]]:
    """Return what `measure` does in a new process."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.search_suggestion",
        "--one",
        case,
        str(number),
        "--repeat",
        str(repeat),
    ]
    answer: dict[str, list[float]] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return answer


def main() -> None:
    """Print a line a case and a number."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=5)
    add_write(parser)
    parser.add_argument("--one", nargs=2, metavar=("CASE", "TRIALS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]), options.repeat)))
        return
    found = {case: [in_own_process(case, number, options.repeat) for number in NUMBERS] for case in CASES}
    columns = ("Past trials", *(f"{number:,}" for number in NUMBERS))
    libraries = ("anomaly-operator", "optuna", "numpy", "scipy")
    table = Table("search-suggestion", columns, list(rows_of(found)), libraries, f"{options.repeat} runs each.")
    publish([table], options.write)


def rows_of(found: Mapping[str, Sequence[Mapping[str, Sequence[float]]]]) -> Iterator[list[str]]:
    """The rows: a suggestion of each case, then what does not depend on it, of TPE's process."""
    for case, numbers in found.items():
        yield [f"a suggestion, {case}", *(Spread.of(one["suggest"]).text(" ms") for one in numbers)]
    for name, kind in (("what happens next", "schedule"), ("the summary, with importances", "summary")):
        yield [name, *(Spread.of(one[kind]).text(" ms") for one in found["tpe"])]
    for case in ("random", "tpe", "cmaes"):
        yield [f"memory of the process, {case}", *(f"{one['memory'][0]:.0f} MiB" for one in found[case])]


if __name__ == "__main__":
    main()
