"""How many trials TPE and successive halving need to come near the optimum, against random points.

Near is said in three ways, all of which are printed: among the best 2 %, 1 % and 0.5 % of the space. Random points get
there with an expected median of 34, 69 and 138 trials whatever the function is. The others are divided by that, and by
the median of the random searches that were measured: that of 30 seeds is known to a third or so, and is that of the
very points which halving looks at. Intervals of 95 % of the medians are printed, from the order of the seeds, which
supposes nothing.

TPE is counted in trials, one at a time. Halving looks at all of its points on a share of the data and goes on with
the best quarter; it is counted in full trials, eight at a time, over random points, so that it is seen alone, and over
TPE's. ::

    python -m benchmarks.search_quality [--seeds N] [--jobs N] [--problems NAME...] [--write]
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from scipy.stats import binom

from anomaly_search import points
from anomaly_search.memo import Memo
from anomaly_search.schedule import Start, schedule
from anomaly_search.suggest import Suggestion, suggest
from anomaly_search.sweep import Algorithm, AlgorithmName, Fidelity, Limits, Objective, Sweep
from anomaly_search.trials import State, Trial
from benchmarks.search_problems import Point, Problem, functions, measured_grid
from benchmarks.tables import Table, add_write, publish

SHARES = (0.02, 0.01, 0.005)
MOST = 600
"""Cost at which a search is given up; the medians do not see how far beyond it would be near."""
REDUCTION = 4
PARALLEL = 8
CONFIDENCE = 0.95
NOW = datetime(2026, 1, 1, tzinfo=UTC)

Needed = tuple[float, ...]
"""Costs until a trial is near, one for each share."""


class Approach:
    """Costs until a search is near its optimum.

    Args:
        task: what is searched.
    """

    def __init__(self, task: Problem) -> None:
        self._near = [task.near(share) for share in SHARES]
        self._needed = [float(MOST)] * len(SHARES)

    @property
    def needed(self) -> Needed:
        """What it took; MOST where it did not get there."""
        return tuple(self._needed)

    def tell(self, loss: float, spent: float) -> bool:
        """Take the next full trial's loss and the cost so far; return whether it is as near as can be asked."""
        for place, near in enumerate(self._near):
            if loss <= near:
                self._needed[place] = min(self._needed[place], spent)
        return loss <= self._near[-1]


def sweep_for(task: Problem, name: AlgorithmName, seed: int) -> Sweep:
    """Return the search for the smallest loss."""
    return Sweep(task.space, Limits(100 * MOST, PARALLEL), (Objective("loss", "minimize"),), Algorithm(name, seed))


def one_by_one(task: Problem, name: AlgorithmName, seed: int) -> Needed:
    """Return the trials until one is near."""
    sweep, memo, approach = sweep_for(task, name, seed), Memo(), Approach(task)
    done: list[Trial] = []
    for number in range(MOST):
        suggestion = suggest(sweep, _needed_by(sweep, done), number, memo)
        if not isinstance(suggestion, Suggestion):
            break
        loss = task.loss(suggestion.parameters, len(task.costs) - 1)
        if approach.tell(loss, number + 1):
            break
        done.append(_ended(Trial(number, suggestion.parameters, State.RUNNING), loss))
    return approach.needed


def halving(task: Problem, name: AlgorithmName, seed: int) -> Needed:
    """Return the cost, in full trials, until one of full fidelity is near."""
    sweep = replace(sweep_for(task, name, seed), fidelity=Fidelity(task.costs, REDUCTION))
    memo, approach, spent = Memo(), Approach(task), 0.0
    done: list[Trial] = []
    while spent < MOST and (starts := schedule(sweep, done, NOW, memo=memo).start):
        for trial in _begun(sweep, starts, done, memo):
            loss = task.loss(trial.parameters, trial.rung)
            spent += task.costs[trial.rung]
            if trial.rung == len(task.costs) - 1 and approach.tell(loss, spent):
                return approach.needed
            done.append(_ended(trial, loss))
    return approach.needed


def _ended(trial: Trial, loss: float) -> Trial:
    if loss == float("inf"):
        return replace(trial, state=State.INFEASIBLE)
    return replace(trial, state=State.COMPLETE, objectives=(loss,))


def _begun(sweep: Sweep, starts: Iterable[Start], done: Sequence[Trial], memo: Memo) -> list[Trial]:
    """Return running trials: each point is suggested with the earlier ones at work."""
    begun: list[Trial] = []
    for start in starts:
        number, rung, _ = start.identity
        parameters = start.parameters or _suggested(sweep, [*done, *begun], number, memo)
        if parameters is not None:
            begun.append(Trial(number, parameters, State.RUNNING, rung=rung))
    return begun


def _suggested(sweep: Sweep, trials: Sequence[Trial], number: int, memo: Memo) -> Point | None:
    suggestion = suggest(sweep, _needed_by(sweep, trials), number, memo)
    return suggestion.parameters if isinstance(suggestion, Suggestion) else None


def _needed_by(sweep: Sweep, trials: Sequence[Trial]) -> Sequence[Trial]:
    """Return what a suggestion depends on: random ones on nothing but their number, unless none is to be repeated."""
    return [] if sweep.algorithm.name == "random" and points.count(sweep.space) is None else trials


WAYS: dict[str, Callable[[Problem, int], Needed]] = {
    "random": lambda task, seed: one_by_one(task, "random", seed),
    "tpe": lambda task, seed: one_by_one(task, "tpe", seed),
    "halving": lambda task, seed: halving(task, "random", seed),
    "tpe + halving": lambda task, seed: halving(task, "tpe", seed),
}


def needed(task: Problem, way: str, seed: int) -> Needed:
    """Return the costs of one way until it is near."""
    return WAYS[way](task, seed)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return an interval that has the median with CONFIDENCE, whatever the values' distribution: two of the values."""
    outside = int(binom.ppf((1 - CONFIDENCE) / 2, len(values), 0.5))
    ordered = sorted(values)
    return ordered[max(0, outside - 1)], ordered[min(len(values) - 1, len(values) - outside)]


def line(way: str, share: float, expected: float, measured: float, values: Sequence[float]) -> str:
    """Return what the seeds say of one way at one share, beside both medians of random points."""
    median, (low, high) = statistics.median(values), interval(values)
    ratios = f"{median / expected:.2f} ({low / expected:.2f} to {high / expected:.2f}) of {expected:.1f}"
    others = {} if way == "random" else {"expected": expected, "measured": measured}
    missed = [name for name, other in others.items() if median > other / 2]
    verdict = f"   MISSES THE HALF of {' and '.join(missed)}" if missed else ""
    return (
        f"  best {share:5.1%}  {way:14} {median:7.1f}   {ratios}   {median / measured:.2f} of {measured:.1f}{verdict}"
    )


def lines(task: Problem, found: Mapping[str, Sequence[Needed]]) -> Iterator[str]:
    """Yield a line for each share and way."""
    for place, share in enumerate(SHARES):
        measured = statistics.median(one[place] for one in found["random"])
        for way, of_seeds in found.items():
            yield line(way, share, task.random_median(share), measured, [one[place] for one in of_seeds])


def cell(median: float, expected: float, measured: float) -> str:
    """Return a median with its shares of random's two; bold where it is more than the half of one."""
    text = f"{round(median, 1):g} ({median / expected:.2f}, {median / measured:.2f})"
    return f"**{text}**" if median > min(expected, measured) / 2 else text


def rows_of(task: Problem, found: Mapping[str, Sequence[Needed]]) -> Iterator[list[str]]:
    """Yield a row of the table for each share."""
    for place, share in enumerate(SHARES):
        medians = {way: statistics.median(one[place] for one in of_seeds) for way, of_seeds in found.items()}
        measured, expected = medians.pop("random"), task.random_median(share)
        cells = [cell(median, expected, measured) for median in medians.values()]
        yield [task.name, f"{100 * share:g} %", f"{measured:g}, {expected:.1f}", *cells]


def main() -> None:
    """Print the lines of each problem."""
    tasks = [*functions(), measured_grid()]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--problems", nargs="+", choices=[task.name for task in tasks])
    add_write(parser)
    options = parser.parse_args()
    rows: list[list[str]] = []
    print(f"medians of {options.seeds} seeds; their share of random's expected median, and of its measured one")
    with ProcessPoolExecutor(options.jobs) as pool:
        for task in tasks:
            if task.name in (options.problems or [task.name]):
                found = {way: list(pool.map(partial(needed, task, way), range(options.seeds))) for way in WAYS}
                print(task.name, *lines(task, found), sep="\n", flush=True)
                rows += rows_of(task, found)
    columns = ("Problem", "near", "Random: measured, expected", "TPE", "Halving", "TPE with halving")
    table = Table("search-quality", columns, rows, ("anomaly-operator", "optuna", "numpy", "scipy"))
    publish([table], options.write)


if __name__ == "__main__":
    main()
