"""The search in a process of its own: a suggestion takes up to half a second, and Optuna 40 MB, of which the operator's
own process sees nothing. The process is started by the first sweep.

It keeps what it was told of the trials of each sweep, so that only news is sent; a new process is told everything.
"""

import asyncio
import contextlib
import json
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import structlog

from anomaly_api.sweep_exchange import Plan, SweepEnd, TrialRecord
from anomaly_api.sweep_status import StopReason, SweepStatus
from anomaly_operator.decide.trials import SeenTrial
from anomaly_operator.metrics import SEARCH_SECONDS, SEARCH_SUGGESTIONS

log = structlog.get_logger()

T = TypeVar("T")


class Question(NamedTuple):
    """What a search is asked."""

    sweep_uid: str
    name: str
    """Name of the sweep's resource, from which those of its trials are made."""
    spec: bytes
    """The experiment's spec, with the sweep, as JSON."""
    earlier: tuple[dict[str, Any], ...]
    """Points of an earlier sweep that are tried first."""
    search_run: int
    now: datetime
    began: datetime | None
    removed_hours: float
    """GPU-hours of trials that are no longer there."""
    end: SweepEnd | None
    """Why the search is over, where it cannot know it itself."""
    counts_hours: bool
    """Whether what trials at work have used so far decides something."""


class SearchWorker:
    """The process, from the first question until ``close``."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._told: dict[str, dict[str, int]] = {}  # UID of a sweep -> which version of each trial, by name
        self._lock = asyncio.Lock()

    async def plan(self, question: Question, trials: Iterable[SeenTrial]) -> Plan:
        """Return what is to be done."""
        with SEARCH_SECONDS.time():
            answer = await self._asked(question, list(trials), question.counts_hours, _plan)
        SEARCH_SUGGESTIONS.inc(len(answer.starts))
        return answer

    async def overview(self, question: Question, trials: Iterable[SeenTrial], plan: Plan) -> SweepStatus:
        """Return what the status says, with what the plan starts."""
        return await self._asked(question, list(trials), True, _overview, plan)

    async def _asked(
        self, question: Question, known: Sequence[SeenTrial], hours: bool, work: Callable[..., T], *more: Any
    ) -> T:
        async with self._lock:
            try:
                return await self._ask(question, known, hours, work, *more)
            except BrokenProcessPool:
                log.error("the process of the search ended and is started anew", sweep=question.name)
                self.close()
                return await self._ask(question, known, hours, work, *more)

    async def is_behind(self, sweep_uid: str, spec: bytes, record: TrialRecord) -> bool:
        """Whether a trial at work should be stopped because its curve is behind those of the sweep's others.

        A process that knows nothing of the sweep yet says no, and so does one that has ended: the next push asks again.
        """
        async with self._lock:
            if sweep_uid not in self._told or self._pool is None:
                return False
            with contextlib.suppress(BrokenProcessPool):
                return await self._run(_is_behind, sweep_uid, spec, record)
            return False

    async def _ask(
        self, question: Question, known: Sequence[SeenTrial], hours: bool, work: Callable[..., T], *more: Any
    ) -> T:
        told = self._told.get(question.sweep_uid)
        versions = dict(told or {})
        # What a trial at work has used is news each time, where anybody asks for it.
        news = {
            trial.name: trial
            for trial in known
            if versions.get(trial.name) != trial.version or (hours and not trial.is_over)
        }
        versions |= {name: trial.version for name, trial in news.items()}
        gone = list(versions.keys() - {trial.name for trial in known})
        for name in gone:
            del versions[name]
        records = {name: trial.record for name, trial in news.items()}
        answer: T = await self._run(_answer, question, told is None, records, gone, work, *more)
        self._told[question.sweep_uid] = versions
        return answer

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        pool = self._pool or ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        is_new, self._pool = self._pool is None, pool
        answer = await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)
        if is_new:
            pool.submit(_load)
        return answer

    def forget(self, sweep_uid: str) -> None:
        """Let the process forget a sweep that is over or deleted; one that has ended has forgotten all of them."""
        if self._told.pop(sweep_uid, None) is not None and self._pool:
            with contextlib.suppress(BrokenProcessPool):
                self._pool.submit(_forget, sweep_uid)

    def close(self) -> None:
        """End the process; the next question starts another."""
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = None
        self._told.clear()


class _Kept:
    """In the search's process: a sweep, its trials by name, and what was computed of them."""

    def __init__(self, question: Question) -> None:
        from anomaly_search.memo import Memo

        self.memo = Memo()
        self.trials: dict[str, TrialRecord] = {}
        self._read: tuple[bytes, tuple[dict[str, Any], ...]] | None = None
        self.read(question)

    def read(self, question: Question) -> None:
        """Take the spec, whose limits may have changed; an unchanged one stays the same object, as the memo wants."""
        if (question.spec, question.earlier) != self._read:
            self._read = question.spec, question.earlier
            self.experiment, self.earlier = json.loads(question.spec), question.earlier


_KEPT: dict[str, _Kept] = {}
"""By UID of the sweep."""


def _answer(
    question: Question,
    anew: bool,
    news: dict[str, TrialRecord],
    gone: Sequence[str],
    work: Callable[..., T],
    *more: Any,
) -> T:
    if anew:
        _KEPT[question.sweep_uid] = _Kept(question)
    kept = _KEPT[question.sweep_uid]
    kept.read(question)
    kept.trials.update(news)
    for name in gone:
        kept.trials.pop(name, None)
    return work(kept, question, list(kept.trials.values()), *more)


def _plan(kept: _Kept, question: Question, records: Sequence[TrialRecord]) -> Plan:
    from anomaly_search.session import decide

    if question.end:
        return Plan(end=question.end)
    return decide(
        kept.experiment,
        records,
        question.now,
        question.began,
        name=question.name,
        search_run=question.search_run,
        earlier=kept.earlier,
        removed_hours=question.removed_hours,
        memo=kept.memo,
    )


def _overview(kept: _Kept, question: Question, records: Sequence[TrialRecord], plan: Plan) -> SweepStatus:
    records = [*records, *(impossible.record() for impossible in plan.invalid)]
    if plan.end:
        return _final_overview(kept, question, records, plan.end)
    # What is about to start counts as asked and running.
    started = [TrialRecord(*new.which, values=new.values, state="Running") for new in plan.starts]
    return _overview_of(kept, [*records, *started], question.removed_hours)


def _final_overview(kept: _Kept, question: Question, records: Sequence[TrialRecord], end: SweepEnd) -> SweepStatus:
    """Return what is told at the end: trials at work will be deleted, and what they used stays counted."""
    over = [one for one in records if one.state != "Running"]
    called_off = sum(one.gpu_hours for one in records if one.state == "Running")
    return _overview_of(kept, over, question.removed_hours + called_off, end.reason)


def _overview_of(
    kept: _Kept, records: Sequence[TrialRecord], removed_hours: float, stop: StopReason | None = None
) -> SweepStatus:
    from anomaly_search.session import overview

    return overview(kept.experiment, records, stop, earlier=kept.earlier, removed_hours=removed_hours, memo=kept.memo)


def _load() -> None:
    """Load what only later answers need, while the first trials run."""
    from anomaly_search.session import load

    load()


def _is_behind(sweep_uid: str, spec: bytes, record: TrialRecord) -> bool:
    from anomaly_search.session import falling_behind

    known = _KEPT[sweep_uid].trials.values() if sweep_uid in _KEPT else ()
    others = [other for other in known if other.which != record.which]
    return record.which in falling_behind(json.loads(spec), [*others, record])


def _forget(sweep_uid: str) -> None:
    del _KEPT[sweep_uid]
