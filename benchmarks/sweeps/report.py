"""The figures of sweeps in the operator, by what they are of."""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.sweeps.observer import Observer, Sample
from benchmarks.sweeps.probe import CHAIN, Probe
from benchmarks.sweeps.processes import Usage
from benchmarks.sweeps.times import Delay, percentiles, quantile

EDGE = 100
"""Trials at either end of a sweep that are compared: whether the delay grows."""
STRETCH = 1000
"""Trials that are looked at together between the two."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What was measured."""

    arguments: argparse.Namespace
    observer: Observer
    probe: Probe
    usage: Usage
    took: float
    """Seconds."""
    written: Mapping[str, float]
    """The operator's writes."""
    sweeps: Sequence[dict[str, Any]]
    """The sweeps' objects at the end."""


Line = tuple[str, str]
"""What a figure is of, and the figure."""


def report(run: Run) -> Iterator[Line]:
    """Yield everything."""
    arguments = run.arguments
    total = run.observer.ended
    yield "sweeps x trials, parallel", f"{arguments.sweeps} x {arguments.trials}, {arguments.parallel} each"
    yield "of them over at the start", f"{arguments.before}"
    yield "algorithm, mean seconds of a pod", f"{arguments.algorithm}, {arguments.seconds:g}"
    yield "trials that ended, in", f"{total}, {run.took:.0f} s ({total / run.took:.1f} a second)"
    yield from _usage(run.usage, run.took)
    yield from _delays(run.observer, run.probe, arguments.parallel)
    yield from _search(run.observer.samples, total)
    yield from _writes(run.written, total)
    largest = max(len(json.dumps(one, separators=(",", ":"))) for one in run.sweeps)
    yield "object of a sweep, largest", f"{largest / 1024:.1f} KiB"


def print_lines(lines: Iterable[Line]) -> None:
    """Print one figure per line."""
    for name, told in lines:
        print(name.ljust(34), told)


def _usage(usage: Usage, took: float) -> Iterator[Line]:
    for name, used in usage.used.items():
        memory = f", {used.peak:.0f} MiB at most" if used.peak else ""
        yield f"{name}: CPU", f"{used.cpu:.1f} s ({100 * used.cpu / took:.0f} %){memory}"


def _delays(observer: Observer, probe: Probe, parallel: int) -> Iterator[Line]:
    yield "API server: GET, p50 / p95", percentiles(probe.reads)
    chains = [took for _, took in probe.chains]
    yield f"API server: {CHAIN} writes, p50 / p95", percentiles(chains)
    times = list(observer.times.values())
    yield "end to the next trial, p50 / p95", percentiles(_seconds(one.delays(parallel, one.made) for one in times))
    delays = [one.delays(parallel, one.jobs) for one in times]
    known = _seconds(delays)
    yield "end to the next Job, p50 / p95", percentiles(known)
    yield "  p95 beyond that of the writes", f"{quantile(known, 0.95) - quantile(chains, 0.95):.2f} s"
    if len(times) == 1 and len(known) > 2 * EDGE:
        yield from _growth(delays[0], probe)


def _growth(delays: Sequence[Delay], probe: Probe) -> Iterator[Line]:
    last = len(delays)
    stretches = [(place, min(place + STRETCH, last - EDGE)) for place in range(EDGE, last - EDGE, STRETCH)]
    for begin, end in ((0, EDGE), *stretches, (last - EDGE, last)):
        stretch = delays[begin:end]
        writes = probe.between(stretch[0].at, stretch[-1].at)
        yield f"  ends {begin} to {end}", f"{percentiles(_seconds([stretch]))}; {CHAIN} writes {percentiles(writes)}"


def _seconds(delays: Iterable[Iterable[Delay]]) -> list[float]:
    return [delay.seconds for one in delays for delay in one]


def _search(samples: Sequence[Sample], total: int) -> Iterator[Line]:
    """Yield the mean time of the search's answers, with their wait for others: of all, and of the last tenth."""
    late = next((sample for sample in samples if sample.ended >= 0.9 * total), samples[-1])
    early = next((sample for sample in samples if sample.ended >= 0.1 * total), samples[0])
    for what, first, last in (
        ("first tenth", samples[0], early),
        ("last tenth", late, samples[-1]),
        ("all", samples[0], samples[-1]),
    ):
        seconds, answers = last.seconds - first.seconds, last.answers - first.answers
        suggested = last.suggested - first.suggested
        told = f"{1000 * seconds / max(answers, 1):.0f} ms, {suggested / max(answers, 1):.2f} suggestions"
        yield f"search: an answer, {what}", told


def _writes(found: Mapping[str, float], total: int) -> Iterator[Line]:
    yield "API writes a trial", f"{sum(found.values()) / total:.2f}"
    for name, count in sorted(found.items(), key=lambda item: -item[1]):
        yield f"  {name}", f"{count / total:.3f}"
