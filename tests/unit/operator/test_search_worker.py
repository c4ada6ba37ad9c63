"""The process of the search: it is told what changed, and its answers are those of the search itself."""

import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from anomaly_api.sweep_exchange import Plan, SweepEnd, TrialRecord
from anomaly_api.sweep_status import StopReason
from anomaly_operator.decide.trials import SeenTrial
from anomaly_operator.search_worker import Question, SearchWorker
from anomaly_search.session import decide, overview
from support.optional import not_none

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SPEC: dict[str, Any] = {
    "dataset": {"source": {"s3": {"uri": "s3://factory"}}},
    "model": {"name": "padim"},
    "output": {"s3": {"uri": "s3://results"}},
    "sweep": {
        "parameters": [{"path": "model.padim.nFeatures", "int": {"low": 1, "high": 100}}],
        "algorithm": {"name": "random", "seed": 7},
        "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
        "trials": {"max": 10, "parallel": 3},
    },
}


@pytest.fixture
async def worker() -> AsyncIterator[SearchWorker]:
    found = SearchWorker()
    yield found
    found.close()


def question(*, counts_hours: bool = False) -> Question:
    return Question(
        sweep_uid="u",
        search="s",
        name="sweep",
        spec=json.dumps(SPEC).encode(),
        earlier=(),
        search_run=1,
        now=NOW,
        began=None,
        removed_hours=0.0,
        end=None,
        counts_hours=counts_hours,
    )


def trial(number: int, hours: float = 0.0, auroc: float | None = None, version: int = 1) -> SeenTrial:
    record = TrialRecord(
        number,
        0,
        0,
        values={"model.padim.nFeatures": 10 + number},
        state="Running" if auroc is None else "Complete",
        metrics={} if auroc is None else {"image.AUROC": auroc},
        gpu_hours=hours,
        started=NOW - timedelta(hours=1),
        ended=None if auroc is None else NOW,
    )
    return SeenTrial(f"sweep-t{number}", version, "s", 1, record)


async def test_a_plan_is_that_of_the_search_and_an_overview_has_what_it_starts(worker: SearchWorker) -> None:
    trials = [trial(0, auroc=0.75), trial(1)]
    plan = await worker.plan(question(), trials)
    assert plan == decide(SPEC, [one.record for one in trials], NOW, name="sweep")
    assert [new.which.number for new in plan.starts] == [2, 3]
    told = await worker.overview(question(), trials, plan)
    assert (told.asked, told.running, told.complete) == (4, 3, 1)
    assert told.best[0].objectives == {"image.AUROC": 0.75}


async def test_what_trials_at_work_have_used_is_told_though_the_plan_did_not_ask(worker: SearchWorker) -> None:
    await worker.plan(question(), [trial(0, hours=1.0)])
    later = [trial(0, hours=2.5)]  # the same resourceVersion
    plan = await worker.plan(question(), later)
    assert (await worker.overview(question(), later, plan)).gpu_hours == 2.5


async def test_a_process_that_ended_between_the_two_is_told_everything_again(worker: SearchWorker) -> None:
    trials = [trial(0, auroc=0.75), trial(1, hours=0.5)]
    plan = await worker.plan(question(), trials)
    worker.close()
    again = await worker.overview(question(), trials, plan)
    records = [one.record for one in trials]
    started = [TrialRecord(*new.which, values=new.values, state="Running", started=NOW) for new in plan.starts]
    assert again == overview(SPEC, [*records, *started])


async def test_a_trial_that_is_gone_or_has_changed_is_told(worker: SearchWorker) -> None:
    await worker.plan(question(), [trial(0), trial(1)])
    changed = [replace(trial(1, auroc=0.5), version=2)]
    told = await worker.overview(question(), changed, Plan())
    assert (told.asked, told.running, told.complete) == (1, 0, 1)


async def test_a_search_that_is_over_starts_nothing_and_what_called_off_trials_used_stays_counted(
    worker: SearchWorker,
) -> None:
    end = SweepEnd(StopReason.GPU_HOURS, "no GPU-hours left")
    over = question()._replace(end=end, removed_hours=4.0)
    trials = [trial(0, hours=1.0, auroc=0.75), trial(1, hours=0.5)]
    plan = await worker.plan(over, trials)
    assert plan == Plan(end=end)
    told = await worker.overview(over, trials, plan)
    assert (told.asked, told.running, told.complete, told.stop_reason) == (1, 0, 1, StopReason.GPU_HOURS)
    assert told.gpu_hours == 5.5


PRUNING = json.dumps(
    SPEC
    | {"model": {"name": "fastflow"}}
    | {
        "sweep": SPEC["sweep"]
        | {
            "parameters": [{"path": "model.fastflow.flowSteps", "int": {"low": 1, "high": 32}}],
            "pruning": {"afterTrials": 1, "afterEpochs": 0},
        }
    }
).encode()


def with_curve(seen: SeenTrial, value: float) -> SeenTrial:
    values = {"model.fastflow.flowSteps": 1 + seen.record.number}
    return replace(seen, record=seen.record._replace(values=values, curve=dict.fromkeys(range(5), value)))


async def test_a_trial_is_behind_by_its_newest_curve_alone(worker: SearchWorker) -> None:
    slow, good = (with_curve(trial(1), value).record for value in (0.5, 0.8))
    assert not await worker.is_behind("u", PRUNING, slow), "a process that knows nothing yet"
    known = [with_curve(trial(0, auroc=0.75), 0.75), with_curve(trial(1), 0.5)]
    await worker.plan(question()._replace(spec=PRUNING), known)
    assert await worker.is_behind("u", PRUNING, slow)
    assert not await worker.is_behind("u", PRUNING, good)
    assert not await worker.is_behind("another", PRUNING, slow)
    worker.forget("u")
    assert not await worker.is_behind("u", PRUNING, slow)


def kill_process(worker: SearchWorker) -> None:
    """As the kernel does where memory runs out."""
    ((pid, _),) = not_none(not_none(worker._pool)._processes).items()
    os.kill(pid, signal.SIGKILL)


async def test_a_process_that_was_killed_is_started_anew_and_costs_a_push_one_chance(worker: SearchWorker) -> None:
    asked = question()._replace(spec=PRUNING)
    known = [with_curve(trial(0, auroc=0.75), 0.75), with_curve(trial(1), 0.5)]
    plan = await worker.plan(asked, known)
    kill_process(worker)
    assert not await worker.is_behind("u", PRUNING, known[1].record)
    assert await worker.plan(asked, known) == plan
    assert await worker.is_behind("u", PRUNING, known[1].record)
    kill_process(worker)
    assert await worker.plan(asked, known) == plan
