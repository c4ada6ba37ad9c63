"""The process of the search: its answers are those of the search itself, and one that is killed is started anew."""

import os
import signal
from collections.abc import AsyncIterator

import pytest

from anomaly_api.sweep_exchange import TrialRecord
from anomaly_operator.search_worker import SearchWorker
from anomaly_search.session import decide, overview
from support.search_questions import NOW, SPEC, question, trial


@pytest.fixture
async def worker() -> AsyncIterator[SearchWorker]:
    found = SearchWorker()
    yield found
    found.close()


async def test_a_plan_is_that_of_the_search_and_an_overview_has_what_it_starts(worker: SearchWorker) -> None:
    trials = [trial(0, auroc=0.75), trial(1)]
    plan = await worker.plan(question(), trials)
    assert plan == decide(SPEC, [one.record for one in trials], NOW, name="sweep")
    assert [new.which.number for new in plan.starts] == [2, 3]
    told = await worker.overview(question(), trials, plan)
    assert (told.asked, told.running, told.complete) == (4, 3, 1)
    assert told.best[0].objectives == {"image.AUROC": 0.75}


async def test_a_process_that_is_killed_between_the_two_is_told_everything_again(worker: SearchWorker) -> None:
    trials = [trial(0, auroc=0.75), trial(1, hours=0.5)]
    plan = await worker.plan(question(), trials)
    assert worker._pool
    [process] = worker._pool._processes
    os.kill(process, signal.SIGKILL)
    again = await worker.overview(question(), trials, plan)
    records = [one.record for one in trials]
    started = [TrialRecord(*new.which, values=new.values, state="Running") for new in plan.starts]
    assert again == overview(SPEC, [*records, *started])
    assert process not in worker._pool._processes
