"""What the process of the search is told and asked, and what becomes of it: played, for a real one takes seconds."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from datetime import timedelta
from multiprocessing.context import BaseContext
from typing import Any

import pytest
from structlog.testing import capture_logs

from anomaly_api.sweep_exchange import InvalidTrial, Plan, RunOfPoint, SweepEnd
from anomaly_api.sweep_status import StopReason
from anomaly_operator import search_worker
from anomaly_operator.decide.trials import SeenTrial
from anomaly_operator.metrics import REGISTRY
from anomaly_operator.search_worker import SearchWorker
from anomaly_search.session import decide
from support.search_questions import FEATURES, NOW, SPEC, question, trial, with_sweep


class Process(Executor):
    """A process that knows nothing of any sweep, and does its work at once."""

    made: list["Process"]

    def __init__(self, processes: int, mp_context: BaseContext) -> None:
        self.made.append(self)
        search_worker._KEPT.clear()
        self.kind = (processes, mp_context.get_start_method())
        self.work: list[Callable[..., Any]] = []
        self.told: list[tuple[bool, set[str], set[str]]] = []
        """Of each question: whether it is about a sweep that is new, the trials that are, and those that are gone."""
        self.is_dead = False
        self.shut_down: tuple[bool, bool] | None = None

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
        if self.is_dead:
            raise BrokenProcessPool
        self.work.append(work)
        done: Future[Any] = Future()
        if work is search_worker._answer:
            self.told.append((arguments[1], set(arguments[2]), set(arguments[3])))
        if work is not search_worker._load:  # which takes a second
            done.set_result(work(*arguments))
        return done

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.shut_down = (wait, cancel_futures)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    Process.made = []
    monkeypatch.setattr(search_worker, "ProcessPoolExecutor", Process)
    return Process.made


@pytest.fixture
def worker(processes: list[Process]) -> SearchWorker:
    return SearchWorker()


def records(trials: Sequence[SeenTrial]) -> list[Any]:
    return [one.record for one in trials]


async def test_one_process_is_started_by_the_first_question(worker: SearchWorker, processes: list[Process]) -> None:
    worker.forget("u")
    worker.close()
    assert not await worker.is_behind("u", question().spec, trial(0).record)
    assert processes == []
    plan = await worker.plan(question(), [])
    await worker.overview(question(), [], plan)
    await worker.plan(question(sweep_uid="another"), [])
    [process] = processes
    assert process.kind == (1, "spawn")
    answer, load = search_worker._answer, search_worker._load
    assert process.work == [answer, load, answer, answer], "what takes long to load, once the first is answered"


async def test_a_process_is_ended_without_waiting_for_it(worker: SearchWorker, processes: list[Process]) -> None:
    await worker.plan(question(), [trial(0)])
    worker.close()
    assert processes[0].shut_down == (False, True)
    assert not await worker.is_behind("u", question().spec, trial(0).record)
    assert len(processes) == 1
    await worker.plan(question(), [trial(0)])
    assert processes[1].told == [(True, {"sweep-t0"}, set())]
    assert processes[1].work == [search_worker._answer, search_worker._load]


async def test_a_process_that_has_died_is_named_and_its_successor_told_everything(
    worker: SearchWorker, processes: list[Process]
) -> None:
    trials = [trial(0, auroc=0.75), trial(1)]
    plan = await worker.plan(question(), trials)
    processes[0].is_dead = True
    with capture_logs() as logs:
        told = await worker.overview(question(), trials, plan)
    assert (told.asked, told.complete) == (4, 1)
    [entry] = logs
    assert (entry["event"], entry["log_level"], entry["sweep"]) == (
        "the process of the search ended and is started anew",
        "error",
        "sweep",
    )
    assert processes[0].shut_down == (False, True)
    assert processes[1].told == [(True, {"sweep-t0", "sweep-t1"}, set())]


async def test_only_news_is_told(worker: SearchWorker, processes: list[Process]) -> None:
    trials = [trial(0, auroc=0.75), trial(1), trial(2)]
    plan = await worker.plan(question(), trials)
    await worker.plan(question(), trials)
    await worker.plan(question(counts_hours=True), trials)
    await worker.overview(question(), trials, plan)
    await worker.plan(question(), [trials[0], replace(trials[1], version=2)])
    await worker.plan(question(), [])
    assert processes[0].told == [
        (True, {"sweep-t0", "sweep-t1", "sweep-t2"}, set()),
        (False, set(), set()),
        (False, {"sweep-t1", "sweep-t2"}, set()),  # what they have used by now
        (False, {"sweep-t1", "sweep-t2"}, set()),
        (False, {"sweep-t1"}, {"sweep-t2"}),
        (False, set(), {"sweep-t0", "sweep-t1"}),
    ]


async def test_a_sweep_that_is_forgotten_is_told_anew(worker: SearchWorker, processes: list[Process]) -> None:
    await worker.plan(question(), [])
    await worker.plan(question(sweep_uid="another"), [])
    worker.forget("u")
    worker.forget("u")
    assert processes[0].work[-2:] == [search_worker._answer, search_worker._forget]
    assert set(search_worker._KEPT) == {"another"}
    await worker.plan(question(), [])
    assert processes[0].told == [(True, set(), set())] * 3
    assert not await worker.is_behind("unknown", question().spec, trial(0).record)
    assert processes[0].work[-1] is search_worker._answer, "nobody was asked of it"


async def test_a_process_that_has_died_says_no_and_has_forgotten_everything(
    worker: SearchWorker, processes: list[Process]
) -> None:
    await worker.plan(question(), [trial(0)])
    processes[0].is_dead = True
    assert not await worker.is_behind("u", question().spec, trial(0).record)
    worker.forget("u")
    await worker.plan(question(), [trial(0)])
    assert processes[1].told == [(True, {"sweep-t0"}, set())]


async def test_a_question_without_an_answer_is_asked_again_with_all_that_it_told(
    worker: SearchWorker, processes: list[Process]
) -> None:
    await worker.plan(question(), [trial(0), trial(1)])
    with pytest.raises(ValueError, match="ExperimentSpec"):
        await worker.plan(question(spec=b"{}"), [trial(0)])
    told = await worker.overview(question(), [trial(0)], Plan())
    assert processes[0].told[1:] == [(False, set(), {"sweep-t1"}), (False, {"sweep-t0"}, {"sweep-t1"})]
    assert told.asked == 1


async def test_what_an_answer_computed_is_kept_for_the_next_one(worker: SearchWorker) -> None:
    await worker.plan(question(), [])
    assert search_worker._KEPT["u"].memo._kept
    await worker.overview(question(sweep_uid="another"), [], Plan())
    assert search_worker._KEPT["another"].memo._kept


async def test_a_plan_is_that_of_the_search(worker: SearchWorker) -> None:
    spec = with_sweep(budget={"gpuHours": 4.0, "wallClockSeconds": 7200})
    trials = [trial(0, auroc=0.75), trial(1, hours=1.0)]
    asked = question(spec, search_run=2, earlier=({FEATURES: 77},), removed_hours=0.5, began=NOW - timedelta(hours=1))
    plan = await worker.plan(asked, trials)
    expected = decide(
        spec,
        records(trials),
        NOW,
        NOW - timedelta(hours=1),
        name="sweep",
        search_run=2,
        earlier=({FEATURES: 77},),
        removed_hours=0.5,
    )
    assert plan == expected
    assert [new.name for new in plan.starts] == ["sweep-s2-t0002", "sweep-s2-t0003"]
    late = await worker.plan(asked._replace(began=NOW - timedelta(hours=2)), trials)
    assert late.end
    assert late.end.reason is StopReason.WALL_CLOCK
    spent = await worker.plan(asked._replace(removed_hours=3.0), trials)
    assert spent.end
    assert spent.end.reason is StopReason.GPU_HOURS
    first = await worker.plan(asked._replace(sweep_uid="another"), [])
    assert first.starts[0].values == {FEATURES: 77}, "the best of an earlier sweep"


async def test_what_is_over_for_another_reason_starts_nothing(worker: SearchWorker) -> None:
    end = SweepEnd(StopReason.DEADLINE_EXCEEDED, "the run took too long")
    assert await worker.plan(question(end=end), [trial(0)]) == Plan(end=end)


async def test_limits_that_change_count_from_then_on(worker: SearchWorker) -> None:
    assert len((await worker.plan(question(), [])).starts) == 3
    changed = question(with_sweep(trials={"max": 10, "parallel": 1}))
    assert len((await worker.plan(changed, [])).starts) == 1
    assert len((await worker.plan(question(), [])).starts) == 3


async def test_a_spec_that_is_as_it_was_is_the_same_object(worker: SearchWorker) -> None:
    """What was computed of it is kept by its identity."""
    await worker.plan(question(), [])
    kept = search_worker._KEPT["u"].experiment
    await worker.plan(question(), [])
    assert search_worker._KEPT["u"].experiment is kept
    await worker.plan(question(earlier=({FEATURES: 77},)), [])
    assert search_worker._KEPT["u"].earlier == ({FEATURES: 77},)


async def test_suggestions_are_counted(worker: SearchWorker) -> None:
    def counted() -> tuple[float, float]:
        names = ("anomaly_operator_search_suggestions_total", "anomaly_operator_search_seconds_count")
        suggestions, questions = (REGISTRY.get_sample_value(name) or 0.0 for name in names)
        return suggestions, questions

    suggestions, questions = counted()
    plan = await worker.plan(question(), [])
    await worker.overview(question(), [], plan)
    assert counted() == (suggestions + 3, questions + 1)


async def test_an_overview_has_what_is_about_to_start_and_what_cannot_be(worker: SearchWorker) -> None:
    trials = [trial(0, auroc=0.75), trial(1, hours=0.5)]
    plan = await worker.plan(question(), trials)
    which = RunOfPoint(9)
    plan = plan._replace(invalid=(InvalidTrial(which, "sweep-t9", {FEATURES: 50}, "none is left", SPEC),))
    told = await worker.overview(question(removed_hours=0.25), trials, plan)
    assert (told.asked, told.running, told.complete, told.infeasible) == (5, 3, 1, 1)
    assert (told.gpu_hours, told.removed_gpu_hours) == (0.75, 0.25)
    assert told.best[0].objectives == {"image.AUROC": 0.75}
    assert told.stop_reason is None


async def test_at_the_end_what_is_at_work_is_called_off_and_its_hours_stay(worker: SearchWorker) -> None:
    trials = [trial(0, hours=1.0, auroc=0.75), trial(1, hours=0.5), trial(2, hours=0.25)]
    end = SweepEnd(StopReason.TARGET_REACHED, "good enough")
    told = await worker.overview(question(removed_hours=2.0), trials, Plan(end=end))
    assert (told.asked, told.running, told.complete, told.stop_reason) == (1, 0, 1, StopReason.TARGET_REACHED)
    assert (told.gpu_hours, told.removed_gpu_hours) == (3.75, 2.75)


async def test_points_of_an_earlier_sweep_are_known_to_an_overview(worker: SearchWorker) -> None:
    asked = question(earlier=({FEATURES: 77},))
    told = await worker.overview(asked, [], await worker.plan(asked, []))
    assert told.asked == 3


async def test_a_trial_that_is_gone_or_has_changed_is_known(worker: SearchWorker) -> None:
    await worker.plan(question(), [trial(0), trial(1)])
    changed = [replace(trial(1, auroc=0.5), version=2)]
    told = await worker.overview(question(), changed, Plan())
    assert (told.asked, told.running, told.complete) == (1, 0, 1)


async def test_what_trials_at_work_have_used_is_told_though_the_plan_did_not_ask(worker: SearchWorker) -> None:
    await worker.plan(question(), [trial(0, hours=1.0)])
    later = [trial(0, hours=2.5)]  # the same resourceVersion
    plan = await worker.plan(question(), later)
    assert (await worker.overview(question(), later, plan)).gpu_hours == 2.5


async def test_a_trial_is_behind_if_its_newest_curve_is_worse_than_the_median_of_the_others(
    worker: SearchWorker,
) -> None:
    space = [{"path": "dataset.fraction", "float": {"low": 0.01, "high": 0.1}}]
    spec = with_sweep(parameters=space, pruning={"afterTrials": 3, "afterEpochs": 1}) | {"model": {"name": "fastflow"}}

    def curved(one: SeenTrial, *curve: float) -> SeenTrial:
        values, by_epoch = {"dataset.fraction": 0.05}, dict(enumerate(curve))
        return replace(one, record=one.record._replace(values=values, curve=by_epoch))

    others = [curved(trial(number, auroc=last), 0.6, last) for number, last in enumerate((0.7, 0.8, 0.9))]
    own = curved(trial(3), 0.5, 0.5)
    await worker.plan(question(spec), [*others, own])
    raw = question(spec).spec
    assert await worker.is_behind("u", raw, curved(own, 0.5, 0.75).record)
    assert not await worker.is_behind("u", raw, curved(own, 0.5, 0.85).record)
    search_worker._KEPT.clear()
    assert not await worker.is_behind("u", raw, curved(own, 0.5, 0.75).record), "it knows no others"
