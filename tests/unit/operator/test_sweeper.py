"""Sweeps on a played API server: what they use, and when that is enough."""

from collections.abc import Awaitable, Iterable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from anomaly_api.reasons import Reason
from anomaly_api.sweep_exchange import Plan
from anomaly_operator import sweeper
from anomaly_operator.decide.desired import sweep_problem
from anomaly_operator.decide.trials import SeenTrial, seen_trial
from anomaly_operator.keys import RunKey
from anomaly_operator.resources import Manifest
from anomaly_operator.search_worker import Question
from anomaly_operator.views import RunView
from anomaly_operator.work_queue import Priority
from support.objects import EXPERIMENT, INFERENCE, with_spec
from support.played_api import Fault, PlayedApi, Refused
from support.played_controllers import PlayedControllers
from support.played_loop import PlayedLoop
from support.played_operator import PlayedOperator

EXPERIMENTS = "anomalyexperiments"
GPUS = 2
UNCHECKED: Manifest = {"runPolicy": {"preflight": "Never"}}


class World:
    """An API server, its controllers, one process of the operator, and a sweep ``hunt`` over a grid of four points."""

    def __init__(self) -> None:
        self.loop = PlayedLoop()
        self.api = PlayedApi(self.loop.time)
        self.controllers = PlayedControllers(self.api)
        self.operator = PlayedOperator(self.loop, self.api)
        self.wait = self.loop.run_for
        self.wait(1.0)

    def apply(self, name: str = "hunt", policy: Manifest | None = None, **sweep: Any) -> None:
        block: Manifest = {
            "parameters": [{"path": "model.padim.nFeatures", "choices": [10, 20, 30, 40]}],
            "algorithm": {"name": "grid"},
            "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
            "final": "report",
        }
        policy, scheduling = policy or {"preflight": "Never"}, {"gpus": {"count": GPUS}}
        manifest = with_spec(EXPERIMENT, sweep=block | sweep, runPolicy=policy, scheduling=scheduling)
        self.api.add(EXPERIMENTS, manifest | {"metadata": {"name": name, "namespace": "vision"}})
        self.wait(2.0)

    def move_pods(self, end: Reason | None = None, seconds: float = 2.0) -> None:
        """Make the pods of all Jobs and start them, or end them."""
        for _ in range(2):
            for job in self.controllers.jobs():
                self.controllers.sync(job)
                for pod in self.controllers.active_pods(job):
                    if end is None:
                        self.controllers.run_pod(pod)
                    else:
                        self.controllers.end_pod(pod, end)
        self.wait(seconds)

    def end_trial(self, name: str, end: Reason, seconds: float = 2.0) -> None:
        """End the pods of one trial."""
        job = self.api.objects["jobs", f"{name}-experiment"]
        for pod in self.controllers.active_pods(job):
            self.controllers.end_pod(pod, end)
        self.controllers.sync(job)
        self.wait(seconds)

    def restart(self) -> None:
        """End the operator's process, and begin another."""
        self.operator.kill()
        self.operator = PlayedOperator(self.loop, self.api)
        self.wait(2.0)

    def remove_unseen(self, name: str) -> None:
        """Delete an experiment, of which the watch tells nothing."""
        self.operator.deaf.add(EXPERIMENTS)
        self.api.remove(EXPERIMENTS, name)
        self.operator.deaf.discard(EXPERIMENTS)

    @property
    def trials(self) -> list[str]:
        return [found["metadata"]["name"] for found in self.api.all(EXPERIMENTS) if "trial" in found["spec"]]

    def message(self, kind: str = "Reconciling") -> str:
        return next(str(found["message"]) for found in self.status["conditions"] if found["type"] == kind)

    @property
    def status(self) -> Manifest:
        return self.status_of("hunt")

    def status_of(self, name: str) -> Manifest:
        found: Manifest = self.api.objects[EXPERIMENTS, name]["status"]
        return found


@pytest.fixture
def world() -> Iterator[World]:
    with capture_logs() as logs:
        made = World()
        yield made
        made.operator.kill()
        made.loop.close()
    assert made.api.complaints == []
    assert [entry for entry in logs if entry.get("exc_info")] == [], "a defect that is retried is none the less one"


def test_gpu_hours_are_overspent_by_seconds(world: World) -> None:
    """Nine minutes and a half of four GPUs, of which nothing else tells that they are over."""
    budget = 4 * 570 / 3600
    world.apply(trials={"parallel": 2}, budget={"gpuHours": budget})
    world.move_pods()
    world.wait(560)
    assert world.status["phase"] == "Running"
    world.wait(20)
    assert world.status["sweep"]["stopReason"] == "GpuHours"
    assert budget <= world.status["sweep"]["gpuHours"] <= budget + 4 * 3 / 3600


def test_hours_of_a_trial_that_is_gone_count_to_the_second(world: World) -> None:
    """After 430 seconds of two GPUs another 570 of its successor."""
    world.apply(trials={"parallel": 1}, budget={"gpuHours": GPUS * 1000 / 3600})
    world.move_pods(seconds=430)
    world.api.remove(EXPERIMENTS, "hunt-t0000")
    world.api.collect_garbage()
    world.wait(2.0)
    world.move_pods()
    world.wait(560)
    assert world.status["phase"] == "Running"
    world.wait(20)
    assert world.status["sweep"]["stopReason"] == "GpuHours"


def test_gpus_of_a_trial_that_has_just_been_made_count_beside_those_at_work(world: World) -> None:
    """4 seconds of two GPUs, then 30 of four."""
    world.apply(trials={"parallel": 1}, budget={"gpuHours": (2 * 4 + 4 * 30) / 3600})
    world.move_pods()
    world.api.change(EXPERIMENTS, "hunt", {"spec": {"sweep": {"trials": {"parallel": 2}}}})
    world.wait(2)
    world.move_pods()
    world.wait(25)
    assert "stopReason" not in world.status["sweep"]
    world.wait(6)
    assert world.status["sweep"]["stopReason"] == "GpuHours"


def test_a_trial_uses_as_many_gpus_as_its_point_says(world: World) -> None:
    space = [{"path": "scheduling.gpus.count", "choices": [8, 4]}]
    world.apply(parameters=space, trials={"parallel": 1}, budget={"gpuHours": 8 * 30 / 3600})
    world.move_pods()
    world.wait(24)
    assert "stopReason" not in world.status["sweep"]
    world.wait(8)
    assert world.status["sweep"]["stopReason"] == "GpuHours"


@pytest.mark.parametrize(
    ("limits", "counts"),
    [({}, False), ({"budget": {"wallClockSeconds": 7200}}, False), ({"budget": {"gpuHours": 9.0}}, True)],
)
def test_what_trials_have_used_so_far_is_asked_for_by_a_budget_of_gpu_hours_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, limits: Manifest, counts: bool
) -> None:
    plan, asked = world.operator.search.plan, []

    def spied(question: Question, trials: Iterable[SeenTrial]) -> Awaitable[Plan]:
        asked.append(question.counts_hours)
        return plan(question, trials)

    monkeypatch.setattr(world.operator.search, "plan", spied)
    world.apply(trials={"parallel": 1}, **limits)
    assert set(asked) == {counts}


def test_what_waits_uses_no_gpu_hours(world: World) -> None:
    world.apply(trials={"parallel": 1, "max": 1}, budget={"gpuHours": 1.2})
    world.wait(3600)
    assert world.status["phase"] == "Running", "its trial has had no pod"
    world.move_pods()
    world.wait(900 - 2)
    world.api.change(EXPERIMENTS, "hunt", {"spec": {"runPolicy": {"suspend": True}}})
    world.wait(5)
    world.move_pods(seconds=5)
    world.wait(3600)
    assert world.status["phase"] == "Suspended"
    world.api.change(EXPERIMENTS, "hunt", {"spec": {"runPolicy": {"suspend": False}}})
    world.wait(5)
    world.move_pods(seconds=900)
    world.move_pods(Reason.COMPLETE)
    assert world.status["sweep"]["complete"] == 1
    assert world.status["sweep"]["gpuHours"] == pytest.approx(GPUS * 1800 / 3600, abs=GPUS * 15 / 3600)


@pytest.mark.parametrize("goes", ["at once", "slowly", "before"])
def test_a_trial_that_goes_when_its_sweep_goes_on_is_counted_once(world: World, goes: str) -> None:
    world.apply(trials={"parallel": 2, "max": 2})
    world.move_pods(seconds=1800)
    world.move_pods(Reason.COMPLETE)
    world.move_pods(Reason.COMPLETE)
    assert world.status["phase"] == "Complete"
    assert world.status["sweep"]["gpuHours"] == pytest.approx(2.0, abs=0.02)
    (world.api.remove_slowly if goes == "slowly" else world.api.remove)(EXPERIMENTS, "hunt-t0000")
    world.wait(60 if goes == "before" else 0)
    world.api.change(EXPERIMENTS, "hunt", {"spec": {"sweep": {"trials": {"max": 3}}}})
    world.wait(3)
    world.api.finish_deletions()
    world.api.collect_garbage()
    world.wait(60)
    assert world.status["sweep"]["removedGpuHours"] == pytest.approx(1.0, abs=0.01)
    world.move_pods(seconds=1800)
    world.move_pods(Reason.COMPLETE)
    found = world.status["sweep"]
    assert (found["asked"], found["complete"]) == (3, 3)
    # Two that were there, one of which has gone and ran again, and a third one.
    assert found["gpuHours"] == pytest.approx(4.0, abs=0.05)


def test_a_search_goes_on_without_the_sweep_that_it_began_with(world: World) -> None:
    world.apply(trials={"parallel": 4})
    for _ in range(2):
        world.move_pods()
        world.move_pods(Reason.COMPLETE)
    assert world.status["phase"] == "Complete"
    best = [one["values"] for one in world.status["sweep"]["best"]]
    assert len(best) == 4
    world.apply("later", trials={"parallel": 1}, start={"fromExperiment": {"name": "hunt", "top": 2}})
    world.move_pods()
    world.api.remove(EXPERIMENTS, "hunt")
    for _ in range(8):
        world.move_pods()
        world.move_pods(Reason.COMPLETE)
    told = world.status_of("later")
    assert (told["phase"], told["sweep"]["complete"]) == ("Complete", 4)
    trials = [world.api.objects[EXPERIMENTS, f"later-t{number:04d}"]["spec"]["trial"]["values"] for number in range(4)]
    assert trials[:2] == best[:2] == told["sweep"]["earlier"]
    assert sorted(map(str, trials)) == sorted(map(str, best)), "each point of the grid once"


def test_what_is_kept_of_a_sweep_goes_once_it_is_over_or_deleted(world: World) -> None:
    kept = world.operator.search._told
    own = world.operator.replica.controller._reconciler._sweeper
    world.apply(trials={"parallel": 2, "max": 2})
    assert len(kept) == len(own._kept) == 1
    for _ in range(2):
        world.move_pods()
        world.move_pods(Reason.COMPLETE)
    assert (world.status["phase"], kept) == ("Complete", {})
    world.apply("another")
    assert len(kept) == 1
    world.apply("not begun", policy={"preflight": "Never", "suspend": True})
    for name in ("another", "not begun"):
        world.api.remove(EXPERIMENTS, name)
    world.wait(2.0)
    world.api.collect_garbage()
    world.wait(2.0)
    assert (kept, own._kept, world.operator.cache._removed_trials) == ({}, {}, {})


def test_a_sweep_that_is_made_anew_under_its_name_has_nothing_of_the_first_one(world: World) -> None:
    world.apply(trials={"parallel": 1})
    world.move_pods(seconds=1800)
    kept, [first] = world.operator.search._told, world.operator.search._told
    world.api.remove(EXPERIMENTS, "hunt")
    world.apply(trials={"parallel": 1})
    assert world.message().startswith("an AnomalyExperiment hunt-t0000 exists that is no trial of this sweep")
    assert len(kept) == 1
    assert first not in kept
    world.api.collect_garbage()
    world.wait(61.0)
    assert world.trials == ["hunt-t0000"]
    assert world.status["sweep"].get("removedGpuHours", 0.0) == 0.0


def test_trials_that_have_not_changed_are_not_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[RunView] = []

    def counted(trial: RunView) -> SeenTrial:
        read.append(trial)
        return seen_trial(trial)

    monkeypatch.setattr(sweeper, "seen_trial", counted)
    world.apply(trials={"parallel": 3})
    world.move_pods(seconds=65.0)
    assert {trial.key.name for trial in read} == {*world.trials}
    read.clear()
    world.wait(200.0)
    assert read == [], "they are looked at every minute"
    world.end_trial("hunt-t0001", Reason.COMPLETE)
    assert {trial.key.name for trial in read} == {"hunt-t0001"}


def test_a_sweep_is_checked_once_and_in_a_thread(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a large one takes seconds, in which everybody else would wait."""
    run, in_threads = world.loop.run_in_executor, 0

    def checks() -> int:
        return sweep_problem.cache_info().misses

    def counted(*work: Any) -> Any:
        nonlocal in_threads
        before, done = checks(), run(*work)
        in_threads += checks() - before
        return done

    monkeypatch.setattr(world.loop, "run_in_executor", counted)
    sweep_problem.cache_clear()
    world.apply()
    assert (checks(), in_threads) == (1, 1)


def test_the_check_of_a_sweep_goes_as_the_policy_says_while_it_searches(world: World) -> None:
    world.apply(policy={"preflight": "Always", "ttlSecondsAfterFinished": 60})
    world.move_pods()
    world.move_pods(Reason.COMPLETE)
    assert world.status["phase"] == "Running"
    assert (EXPERIMENTS, "hunt-t0000") in world.api.objects
    assert world.api.objects["jobs", "hunt-experiment-check"]["spec"]["ttlSecondsAfterFinished"] == 60


def test_trials_at_work_are_deleted_once_the_search_is_over(world: World) -> None:
    world.apply(trials={"parallel": 3, "maxFailed": 0})
    world.move_pods()
    world.end_trial("hunt-t0001", Reason.DATA_INVALID)
    assert world.status["sweep"]["stopReason"] == "MaxFailed"
    assert world.trials == ["hunt-t0001"]
    world.wait(120.0)
    assert world.trials == ["hunt-t0001"], "and none is made"


def test_trials_at_work_of_an_earlier_search_are_deleted_and_its_best_one_is_tried_first(world: World) -> None:
    world.apply(trials={"parallel": 1})
    world.move_pods()
    world.end_trial("hunt-t0000", Reason.COMPLETE)
    assert world.trials == ["hunt-t0000", "hunt-t0001"]
    world.move_pods(seconds=1800)
    world.api.change(EXPERIMENTS, "hunt", {"spec": {"runPolicy": {"suspend": True}}})
    world.move_pods(seconds=5.0)
    space = [{"path": "model.padim.nFeatures", "choices": [30, 20, 10]}]
    world.api.change(EXPERIMENTS, "hunt", {"spec": {"runPolicy": {"suspend": False}, "sweep": {"parameters": space}}})
    world.wait(5.0)
    assert "hunt-t0001" not in world.trials
    assert "hunt-t0000" in world.trials, "what is measured stays"
    [new] = set(world.trials) - {"hunt-t0000"}
    assert world.api.objects[EXPERIMENTS, new]["spec"]["trial"]["values"] == {"model.padim.nFeatures": 10}
    assert world.status["sweep"].get("removedGpuHours", 0.0) == 0.0, "what is gone was no trial of this search"


def test_what_is_gone_is_deleted_once_and_whoever_needs_it_is_told_at_once(world: World) -> None:
    """The next reconcile may come before the watch tells of it, and so may the end of another trial."""
    world.apply(trials={"parallel": 3, "maxFailed": 0})
    world.move_pods()
    user = {"model": {"experiment": "hunt-t0002"}} | UNCHECKED
    world.api.add("anomalyinferences", with_spec(INFERENCE, **user))
    world.wait(2.0)
    world.remove_unseen("hunt-t0000")
    world.operator.delay(EXPERIMENTS, 60.0)
    world.api.requests.clear()
    world.end_trial("hunt-t0001", Reason.DATA_INVALID, seconds=10.0)
    assert world.trials == ["hunt-t0001"]
    deleted = [path.rpartition("/")[2] for method, path in world.api.requests if method == "DELETE"]
    assert deleted == ["hunt-t0000", "hunt-t0002"]
    told = world.api.objects["anomalyinferences", "screws-today"]["status"]["conditions"]
    assert "ExperimentNotFound" in {condition["reason"] for condition in told}


def test_a_trial_that_is_being_deleted_is_not_deleted_again(world: World) -> None:
    world.apply(trials={"parallel": 3, "maxFailed": 0})
    world.move_pods()
    world.api.remove_slowly(EXPERIMENTS, "hunt-t0000")
    world.end_trial("hunt-t0001", Reason.DATA_INVALID)
    assert world.trials == ["hunt-t0000", "hunt-t0001"]


def test_a_sweep_that_cannot_be_read_keeps_its_trials(world: World) -> None:
    world.apply(trials={"parallel": 2})
    world.move_pods()
    world.api.change(EXPERIMENTS, "hunt", {"spec": {"sweep": {"algorithm": {"name": "of a later release"}}}})
    world.wait(5.0)
    assert world.message("Stalled")
    assert world.trials == ["hunt-t0000", "hunt-t0001"]


def test_a_new_trial_has_its_job_before_the_watch_tells_of_it_and_before_what_can_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = world.operator.queue.add
    added: dict[str, Priority] = {}

    def spied(key: RunKey, priority: Priority = Priority.NORMAL) -> None:
        added.setdefault(key.name, priority)
        add(key, priority)

    world.apply(trials={"parallel": 1})
    world.move_pods()
    world.operator.delay(EXPERIMENTS, 60.0)
    monkeypatch.setattr(world.operator.queue, "add", spied)
    world.end_trial("hunt-t0000", Reason.COMPLETE)
    assert ("jobs", "hunt-t0001-experiment") in world.api.objects
    assert added["hunt-t0001"] is Priority.URGENT


def test_trials_are_made_once_though_one_of_them_has_to_wait(world: World) -> None:
    """The second is told to come back in two seconds, while the first fails at once: its name is not free yet."""
    world.apply(trials={"parallel": 2})
    world.api.remove_slowly(EXPERIMENTS, "hunt-t0000")
    world.wait(2.0)
    world.api.requests.clear()
    world.api.faults += [Fault.COMPACTED, Fault.TOO_MANY]  # the first is none but for a LIST
    world.api.remove(EXPERIMENTS, "hunt-t0001")
    world.wait(1.5)
    made = [path for method, path in world.api.requests if method == "POST" and path.endswith(EXPERIMENTS)]
    assert len(made) == 2
    world.wait(2.0)
    assert "hunt-t0001" in world.trials


def test_another_process_goes_on_with_a_search(world: World) -> None:
    """It knows when the search began, and what trials have used, though one of them is being deleted."""
    world.apply(trials={"parallel": 2})
    world.move_pods(seconds=1800)
    world.end_trial("hunt-t0000", Reason.COMPLETE)
    world.api.remove_slowly(EXPERIMENTS, "hunt-t0001")
    world.restart()
    assert (world.status["sweep"]["complete"], world.status["sweep"]["asked"]) == (1, 3)
    world.api.finish_deletions()
    world.wait(30.0)
    assert world.status["sweep"]["removedGpuHours"] == pytest.approx(GPUS * 0.5, abs=0.02)


def test_what_a_search_waits_for_is_told(world: World) -> None:
    """Half an hour of two GPUs is a GPU-hour: of two and a half no third one is begun beside the second."""
    world.apply(trials={"parallel": 2}, budget={"gpuHours": 2.5})
    world.move_pods(seconds=1800)
    world.end_trial("hunt-t0000", Reason.COMPLETE)
    assert world.message().startswith("one more trial would exceed 2.5 GPU hours")
    assert (world.trials, world.status["phase"]) == (["hunt-t0000", "hunt-t0001"], "Running")


@pytest.mark.parametrize(
    ("policy", "sweep", "reason"),
    [
        ({}, {"budget": {"wallClockSeconds": 100}}, "WallClock"),
        ({"activeDeadlineSeconds": 100}, {}, "DeadlineExceeded"),
    ],
)
def test_a_search_whose_time_is_over_ends_though_nothing_happens(
    world: World, policy: Manifest, sweep: Manifest, reason: str
) -> None:
    world.apply(policy={"preflight": "Never"} | policy, trials={"parallel": 1}, **sweep)
    world.move_pods()
    world.wait(95.0)
    assert "stopReason" not in world.status["sweep"]
    world.wait(5.0)
    assert (world.status["sweep"]["stopReason"], world.trials) == (reason, [])


def test_trials_are_suspended_with_their_sweep_and_resumed_with_it(world: World) -> None:
    def suspended() -> list[bool]:
        return [
            world.api.objects[EXPERIMENTS, name]["spec"]["runPolicy"].get("suspend", False) for name in world.trials
        ]

    world.apply(trials={"parallel": 2})
    world.move_pods()
    for name in ("hunt-t0000", "hunt"):  # one of them by itself, at the same time
        world.api.change(EXPERIMENTS, name, {"spec": {"runPolicy": {"suspend": True}}})
    world.wait(0.5)
    assert suspended() == [True, True]
    assert world.status["phase"] == "Running", "their pods are still there"
    world.move_pods(seconds=5.0)
    assert (world.status["phase"], world.status["sweep"]["asked"]) == ("Suspended", 2)
    assert world.trials == ["hunt-t0000", "hunt-t0001"]
    world.api.change(EXPERIMENTS, "hunt", {"spec": {"runPolicy": {"suspend": False}}})
    world.wait(5.0)
    assert (suspended(), world.status["phase"]) == ([False, False], "Running")


def test_a_trial_that_is_gone_keeps_no_other_from_being_suspended(world: World) -> None:
    world.apply(trials={"parallel": 2})
    world.move_pods()
    world.remove_unseen("hunt-t0000")
    world.api.change(EXPERIMENTS, "hunt", {"spec": {"runPolicy": {"suspend": True}}})
    world.wait(2.0)
    assert world.api.objects[EXPERIMENTS, "hunt-t0001"]["spec"]["runPolicy"]["suspend"] is True


def test_a_trial_that_is_refused_is_told_and_tried_again_within_a_minute(world: World) -> None:
    def refuse(method: str, plural: str, stored: Manifest | None, _: Manifest) -> None:
        if plural == EXPERIMENTS and stored is None:
            raise Refused(403, "exceeded quota: experiments")

    world.api.judges.append(refuse)
    world.apply(trials={"parallel": 1})
    assert world.message() == "trial hunt-t0000 was refused: exceeded quota: experiments"
    world.api.judges.clear()
    world.wait(61.0)
    assert world.trials == ["hunt-t0000"]
    assert "refused" not in world.message()


def test_an_experiment_that_has_the_name_of_a_trial_is_left_alone_and_told(world: World) -> None:
    foreign = world.api.add(EXPERIMENTS, EXPERIMENT | {"metadata": {"name": "hunt-t0000", "namespace": "vision"}})
    world.apply(trials={"parallel": 1})
    told = "an AnomalyExperiment hunt-t0000 exists that is no trial of this sweep; delete or rename it"
    assert world.message() == told
    assert world.api.objects[EXPERIMENTS, "hunt-t0000"]["metadata"]["uid"] == foreign["metadata"]["uid"]
    world.api.remove(EXPERIMENTS, "hunt-t0000")
    world.api.collect_garbage()
    world.wait(61.0)
    assert world.trials == ["hunt-t0000"]


def test_a_trial_whose_creation_was_not_answered_is_one_of_the_sweep(world: World) -> None:
    world.api.faults.append(Fault.ANSWER_LOST)
    world.apply(trials={"parallel": 1})
    world.wait(60.0)
    assert (world.trials, world.status["sweep"]["asked"]) == (["hunt-t0000"], 1)
    assert "0 trials complete, 1 running" in world.message()


def test_a_trial_is_made_anew_once_the_deleted_one_of_its_name_is_gone(world: World) -> None:
    world.apply(trials={"parallel": 1})
    first = world.api.objects[EXPERIMENTS, "hunt-t0000"]["metadata"]["uid"]
    world.api.remove_slowly(EXPERIMENTS, "hunt-t0000")
    world.wait(10.0)
    assert world.api.objects[EXPERIMENTS, "hunt-t0000"]["metadata"]["uid"] == first
    world.api.finish_deletions()
    world.wait(30.0)
    assert world.api.objects[EXPERIMENTS, "hunt-t0000"]["metadata"]["uid"] != first


def test_trials_that_end_at_once_are_told_in_one_update(world: World) -> None:
    world.apply(trials={"parallel": 3})
    world.move_pods()
    world.wait(5.0)
    world.api.writes.clear()
    for number in range(3):
        world.end_trial(f"hunt-t000{number}", Reason.COMPLETE, seconds=0.1)
    world.wait(0.6)
    assert world.api.writes.count(("PUT", f"{EXPERIMENTS}/hunt")) == 1, "of the first, after a longer pause"
    world.wait(1.0)
    assert world.api.writes.count(("PUT", f"{EXPERIMENTS}/hunt")) == 2
    assert world.status["sweep"]["complete"] == 3


@pytest.mark.parametrize(
    ("sweeps", "limits", "pause"),
    [
        (1, {}, 1.0),
        (3, {}, 3.0),  # all together write no more than one does
        (3, {"MOST_SWEEPS": 2}, 2.0),
        (1, {"TRIALS_FOR_A_SECOND": 1}, 4.0),  # of four trials
        (2, {"TRIALS_FOR_A_SECOND": 1}, 4.0),
    ],
)
def test_a_status_is_told_less_often_of_many_trials_and_beside_other_sweeps(
    world: World, monkeypatch: pytest.MonkeyPatch, sweeps: int, limits: dict[str, int], pause: float
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(sweeper, name, value)
    for number in range(1, sweeps):
        world.apply(f"other-{number}", trials={"parallel": 1, "max": 1})
    world.apply(trials={"parallel": 2})
    world.move_pods(seconds=10.0)
    world.end_trial("hunt-t0000", Reason.COMPLETE, seconds=0.2)
    assert world.status["sweep"]["complete"] == 1, "after a longer pause it is told at once"
    world.end_trial("hunt-t0001", Reason.DATA_INVALID, seconds=pause - 0.4)
    assert world.status["sweep"]["failed"] == 0
    world.wait(0.8)
    assert world.status["sweep"]["failed"] == 1


def test_hours_of_a_trial_that_is_deleted_while_the_search_goes_on_count(world: World) -> None:
    world.apply(trials={"parallel": 1})
    world.move_pods(seconds=1800)
    world.move_pods(Reason.COMPLETE)
    world.move_pods(seconds=60)
    world.api.remove(EXPERIMENTS, "hunt-t0000")
    world.api.collect_garbage()
    world.wait(5.0)
    found = world.status["sweep"]
    assert found["removedGpuHours"] == pytest.approx(GPUS * 0.5, abs=0.01)
    assert found["gpuHours"] == pytest.approx(GPUS * 0.5 + GPUS * 65 / 3600, abs=0.01)


def test_hours_of_trials_that_are_deleted_at_work_count(world: World) -> None:
    """Two within a second, of which one status tells."""
    world.apply(trials={"parallel": 2})
    world.move_pods(seconds=1800)
    for name in ("hunt-t0000", "hunt-t0001"):
        world.api.remove(EXPERIMENTS, name)
        world.wait(0.3)
    world.api.collect_garbage()
    world.wait(5.0)
    assert world.status["sweep"]["removedGpuHours"] == pytest.approx(GPUS * 0.5 * 2, abs=0.01)


def test_a_trial_that_cannot_be_read_is_named_and_stops_nothing(world: World) -> None:
    world.apply(trials={"parallel": 2, "max": 2})
    world.move_pods()
    world.api.change(EXPERIMENTS, "hunt-t0000", {"status": {"phase": "Melted"}})
    with capture_logs() as logs:
        world.end_trial("hunt-t0001", Reason.COMPLETE)
    assert world.status["sweep"]["complete"] == 1
    told = [entry for entry in logs if entry["event"] == "a trial cannot be read"]
    assert {entry["trial"] for entry in told} == {"AnomalyExperiment vision/hunt-t0000"}
    assert "Melted" in told[0]["message"]
