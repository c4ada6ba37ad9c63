"""What to start and to stop next, or that the sweep is over.

Level-triggered: everything follows from the trials that there are. So lowering `parallel` stops nothing, raising `max`
or a budget goes on after the end, and what was deleted is asked again under its own number.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from itertools import filterfalse, islice

from anomaly_api.sweep_exchange import RunOfPoint, SweepEnd
from anomaly_api.sweep_status import StopReason
from anomaly_search import points
from anomaly_search.evaluations import Evaluation, fold
from anomaly_search.memo import Memo
from anomaly_search.promotion import promotions
from anomaly_search.space import Value
from anomaly_search.stopping import no_improvement, target_reached, too_many_failed
from anomaly_search.sweep import Sweep
from anomaly_search.trials import State, Trial


@dataclass(frozen=True)
class Start:
    """A run to start. Its point's parameters, where the point has run before; else they are to be suggested."""

    identity: RunOfPoint
    parameters: Mapping[str, Value] | None = None


@dataclass(frozen=True)
class Decisions:
    """What is to be done now: nothing of it is an answer to wait for what is running.

    `stop` has the runs that are at work though the sweep is over. `waits` says why nothing more is started although the
    sweep is not over yet.
    """

    start: tuple[Start, ...] = ()
    stop: tuple[RunOfPoint, ...] = ()
    end: SweepEnd | None = None
    waits: SweepEnd | None = None


def schedule(
    sweep: Sweep,
    trials: Iterable[Trial],
    now: datetime,
    began: datetime | None = None,
    memo: Memo | None = None,
    *,
    removed_hours: float = 0.0,
) -> Decisions:
    """Decide what happens next.

    Args:
        sweep: the task, with the limits as they are now.
        trials: all runs that there are.
        now: the time.
        began: when the sweep began; by default when the first of its trials did.
        memo: what earlier calls for this sweep computed.
        removed_hours: GPU hours of runs that are no longer there.
    """
    known = tuple(trials)
    view = _View(sweep, known, fold(sweep, known, memo), now, began or _first_start(known) or now, removed_hours)
    if end := view.end_at_once():
        return Decisions(stop=tuple(_identity(trial) for trial in view.running), end=end)
    if end := no_improvement(sweep, view.evaluations):
        return _drained(view, end)
    free = max(0, sweep.limits.parallel - len(view.running))
    started, refused = _affordable(view, _wanted(view), free)
    if started or view.running:
        return Decisions(start=started, waits=refused)
    if refused is None and any(True for _ in _wanted(view)):
        return Decisions()
    return Decisions(end=refused or view.nothing_left())


@dataclass(frozen=True)
class _View:
    """The arguments of `schedule`, and what follows from them."""

    sweep: Sweep
    trials: tuple[Trial, ...]
    evaluations: tuple[Evaluation, ...]
    now: datetime
    began: datetime
    removed_hours: float

    @cached_property
    def running(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state is State.RUNNING]

    @cached_property
    def gpu_hours(self) -> float:
        return self.removed_hours + sum(trial.gpu_hours for trial in self.trials)

    @cached_property
    def expected_hours(self) -> dict[int, float]:
        """The GPU hours that a run takes at each rung, as far as can be told."""
        complete = [trial for trial in self.trials if trial.state is State.COMPLETE]
        return _expected(self.sweep, ((trial.rung, trial.gpu_hours) for trial in complete))

    @cached_property
    def expected_seconds(self) -> dict[int, float]:
        """The seconds that a run takes at each rung, as far as can be told."""
        complete = [trial for trial in self.trials if trial.state is State.COMPLETE]
        times = [(trial.rung, trial.started, trial.ended) for trial in complete]
        took = ((rung, (ended - started).total_seconds()) for rung, started, ended in times if started and ended)
        return _expected(self.sweep, took)

    def end_at_once(self) -> SweepEnd | None:
        """Return the end that does not wait for what is running."""
        return (
            too_many_failed(self.sweep, self.evaluations)
            or target_reached(self.sweep, self.evaluations)
            or self._spent()
        )

    def _spent(self) -> SweepEnd | None:
        budget = self.sweep.budget
        if budget.gpu_hours is not None and self.gpu_hours >= budget.gpu_hours:
            message = f"{self.gpu_hours:.2f} of {budget.gpu_hours:g} GPU hours are spent"
            return SweepEnd(StopReason.GPU_HOURS, message)
        if budget.wall_clock is not None and self.now - self.began >= budget.wall_clock:
            return SweepEnd(StopReason.WALL_CLOCK, f"{self.now - self.began} of {budget.wall_clock} have passed")
        return None

    def new_numbers(self) -> list[int]:
        """Return the next numbers that can be asked, the lowest first: those never asked, and those deleted.

        As many as may run at a time, but at least one, which says that the sweep is not over: no more can start now.
        """
        asked = {trial.number for trial in self.trials}
        left = filterfalse(asked.__contains__, range(self.sweep.limits.max))
        free = list(islice(left, max(1, self.sweep.limits.parallel)))
        size = points.count(self.sweep.space)
        if size is None:
            return free
        tried = {self.sweep.space.key(one.parameters) for one in self.evaluations} - {None}
        return free[: max(0, size - len(tried))]

    def nothing_left(self) -> SweepEnd:
        asked = len({trial.number for trial in self.trials})
        if asked < self.sweep.limits.max:
            return SweepEnd(StopReason.EXHAUSTED, f"all {asked} points of the space are tried")
        return SweepEnd(StopReason.MAX_TRIALS, f"all {asked} trials are done")


def _drained(view: _View, end: SweepEnd) -> Decisions:
    """Let what is running end: it is paid for, and may yet turn the decision."""
    return Decisions(waits=end) if view.running else Decisions(end=end)


def _wanted(view: _View) -> Iterator[Start]:
    """Yield what would be started with slots and budget without limit, the most useful first."""
    numbers = view.new_numbers()
    for evaluation, rung in promotions(view.sweep, view.evaluations, all_asked=not numbers):
        yield Start(RunOfPoint(evaluation.number, rung), evaluation.parameters)
    unfinished = [one for one in view.evaluations if one.state is State.RUNNING]
    for one in unfinished:
        if all(trial.state is not State.RUNNING for trial in one.trials):
            yield from _missing(view.sweep, one, 1)
    for number in numbers:
        yield Start(RunOfPoint(number))
    yield from _fillers(view, unfinished)


def _fillers(view: _View, unfinished: Sequence[Evaluation]) -> Iterator[Start]:
    """Yield replicates before the earlier ones have ended, for slots that nothing else can use."""
    for one in unfinished:
        at_work = any(trial.state is State.RUNNING for trial in one.trials)
        missing = list(_missing(view.sweep, one, view.sweep.replicates.count))
        yield from missing if at_work else missing[1:]


def _missing(sweep: Sweep, one: Evaluation, most: int) -> Iterator[Start]:
    there = {trial.replicate for trial in one.trials}
    missing = [replicate for replicate in range(sweep.replicates.count) if replicate not in there]
    for replicate in missing[:most]:
        yield Start(RunOfPoint(one.number, one.rung, replicate), one.parameters)


def _affordable(view: _View, wanted: Iterable[Start], free: int) -> tuple[tuple[Start, ...], SweepEnd | None]:
    """Take as many as have a free slot and a place in the budget; and why no more, if it is the budget."""
    taken: list[Start] = []
    # Without a budget it decides nothing what trials take, which is a look at all of them.
    counts_hours = view.sweep.budget.gpu_hours is not None
    committed = _committed(view) if counts_hours else 0.0
    for start in wanted:
        if len(taken) >= free:
            break
        cost = view.expected_hours[start.identity.rung] if counts_hours else 0.0
        if refused := _refused(view, start.identity.rung, committed + cost):
            return tuple(taken), refused
        committed += cost
        taken.append(start)
    return tuple(taken), None


def _refused(view: _View, rung: int, committed: float) -> SweepEnd | None:
    budget = view.sweep.budget
    if budget.gpu_hours is not None and committed > budget.gpu_hours:
        message = f"one more trial would exceed {budget.gpu_hours:g} GPU hours, {view.gpu_hours:.2f} are spent"
        return SweepEnd(StopReason.GPU_HOURS, message)
    if budget.wall_clock is None:
        return None
    expected = timedelta(seconds=view.expected_seconds[rung])
    if view.now - view.began + expected > budget.wall_clock:
        return SweepEnd(StopReason.WALL_CLOCK, f"one more trial would not be done within {budget.wall_clock}")
    return None


def _committed(view: _View) -> float:
    """Return the GPU hours that are spent, and those that what is running will need."""
    rest = (max(0.0, view.expected_hours[trial.rung] - trial.gpu_hours) for trial in view.running)
    return view.gpu_hours + sum(rest)


def _expected(sweep: Sweep, values: Iterable[tuple[int, float]]) -> dict[int, float]:
    """Return the mean of complete runs at each rung.

    Where none has ended, it is that of the rung below, in proportion to the fidelities; 0 while nothing has ended.
    """
    grouped: dict[int, list[float]] = defaultdict(list)
    for rung, value in values:
        grouped[rung].append(value)
    expected: dict[int, float] = {}
    for rung in range(sweep.rungs):
        below = expected.get(rung - 1, 0.0) * _growth(sweep, rung)
        expected[rung] = statistics.fmean(grouped[rung]) if rung in grouped else below
    return expected


def _growth(sweep: Sweep, rung: int) -> float:
    """Return how many times a rung's fidelity is that of the one below; 1 where it is no share or count."""
    if sweep.fidelity is None or rung == 0:
        return 1.0
    below, here = sweep.fidelity.values[rung - 1 : rung + 1]
    return here / below if below > 0 else 1.0


def _first_start(trials: Iterable[Trial]) -> datetime | None:
    return min((trial.started for trial in trials if trial.started), default=None)


def _identity(trial: Trial) -> RunOfPoint:
    return RunOfPoint(trial.number, trial.rung, trial.replicate)
