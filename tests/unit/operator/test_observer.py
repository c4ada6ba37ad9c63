"""What a reconcile decides from: taken from the cache, and asked of the API server where that may lack something."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from anomaly_api.reasons import Reason
from anomaly_api.run import ProgressUpdate, RunIdentity, RunSummary
from anomaly_api.status import Progress, Stage
from anomaly_operator.decide.observed import ObservedState, PastJob
from anomaly_operator.observer import Observer
from anomaly_operator.resources import Manifest
from anomaly_operator.serving.progress_board import ProgressBoard
from anomaly_operator.views import JobView, RunView, job_view, pod_view
from support.objects import (
    EXPERIMENT,
    INFERENCE,
    JOB_UID,
    KEY,
    UID,
    finished_job_status,
    make_job,
    make_pod,
    make_run,
    raw_job,
    raw_pod,
    terminated_with,
)
from support.played_api import BEGIN
from support.played_parts import PlayedParts

JOB = "screws-experiment"
RUN = make_run(EXPERIMENT)
DONE = terminated_with(RunSummary(reason=Reason.COMPLETE, stage=Stage.DONE))  # at 03:09:59


class World(PlayedParts):
    """An API server, and a cache that watches nothing; it is 03:04:05."""

    def __init__(self) -> None:
        super().__init__()
        self.board = ProgressBoard(self.queue, 2.0, self.loop.time)
        self.now = BEGIN
        self.observer = Observer(self.client, self.cache, self.queue, self.board, self.clock)

    def clock(self) -> datetime:
        return self.now

    def observe(self, name: str = JOB, run: RunView = RUN) -> ObservedState:
        return self.loop.run_until_complete(self.observer.observe(run, name))

    def explain(self, state: ObservedState, run: RunView = RUN) -> str | None:
        found = self.loop.run_until_complete(self.observer.explain(run, state))
        return found.message if found else None

    def seconds_until_queued(self) -> float:
        """Let time pass until the run is added to the queue."""
        began = self.loop.time()
        key = self.loop.run_until_complete(self.queue.get())
        self.queue.done(key)
        assert key == KEY
        return round(self.loop.time() - began, 3)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.queue.shut_down()
    made.loop.close()


def test_a_run_of_which_there_is_nothing(world: World) -> None:
    assert world.observe() == ObservedState()
    assert world.api.requests == []


def test_everything_of_a_run_comes_from_the_cache(world: World) -> None:
    check = raw_job(which=(None, "check"))
    check["metadata"]["uid"] = "of-the-check"
    its_pod = raw_pod(9)
    its_pod["metadata"]["ownerReferences"][0] |= {"name": f"{JOB}-check", "uid": "of-the-check"}
    for raw in (raw_job(), check):
        world.cache.put_job(job_view(raw))
    for pod in (make_pod(2), make_pod(1), pod_view(its_pod)):
        world.cache.put_pod(pod)
    identity = RunIdentity(kind=KEY.kind, namespace=KEY.namespace, name=KEY.name, uid=UID)
    update = ProgressUpdate(run=identity, stage=Stage.TRAIN, progress=Progress(percent=42))
    world.loop.call_soon(world.board.put, KEY, JOB_UID, update)
    world.loop.run_for(0.0)
    found = world.observe()
    assert found == ObservedState(
        job=make_job(),
        pods=(make_pod(1), make_pod(2)),
        past=(PastJob(job_view(check), (pod_view(its_pod),)),),
        progress=update,
    )
    assert world.observe(f"{JOB}-check").progress is None, "another Job's pod pushed it"
    assert world.api.requests == []


def test_an_inference_is_seen_with_its_experiment(world: World) -> None:
    inference = make_run(INFERENCE)
    assert world.observer.experiment_of(inference) is None
    world.cache.put_run(RUN)
    assert world.observer.experiment_of(inference) == RUN
    assert world.observer.experiment_of(RUN) is None
    assert world.observe("screws-today-inference", inference).experiment == RUN


def test_a_job_of_somebody_else_is_seen_without_its_pods(world: World) -> None:
    foreign = make_job(owner_uid="somebody")
    world.cache.put_job(foreign)
    world.cache.put_pod(make_pod())
    found = world.observe()
    assert (found.job, found.pods) == (foreign, ())


# Pods of a finished Job ----------------------------------------------------------------------------------------------


def finished(kind: str = "Failed", failed: int = 2, succeeded: int = 0) -> JobView:
    status = finished_job_status("Failed" if kind == "Failed" else "Complete")
    return make_job(**status | {"failed": failed, "succeeded": succeeded})


@pytest.mark.parametrize(
    ("job", "known", "asks"),
    [
        (finished(failed=2), ["Failed", "Failed"], False),
        (finished(failed=1, succeeded=1), ["Failed", "Succeeded"], False),
        (finished(failed=1, succeeded=1), ["Failed", "Running"], True),
        (finished(failed=2, succeeded=1), ["Failed", "Succeeded"], True),
        (make_job(failed=2), [], False),
        (make_job(failed=2), ["Failed", "Failed", "Failed"], False),
    ],
)
def test_pods_are_asked_for_where_a_finished_job_counts_more(
    world: World, job: JobView, known: list[str], asks: bool
) -> None:
    world.cache.put_job(job)
    for number, phase in enumerate(known, 1):
        world.cache.put_pod(make_pod(number, phase=phase))
    world.observe()
    assert len(world.api.requests) == asks


def test_pods_that_the_cache_lacks_are_those_of_the_job_alone(world: World) -> None:
    world.cache.put_job(finished(failed=3))
    for number in (1, 2, 3, 4):
        raw = raw_pod(number, phase="Failed")
        raw["metadata"]["labels"] = {"batch.kubernetes.io/job-name": JOB if number < 4 else "another"}
        world.api.objects["pods", raw["metadata"]["name"]] = raw
    assert [pod.uid for pod in world.observe().pods] == ["pod-1", "pod-2", "pod-3"]
    assert world.api.requests == [("GET", "/api/v1/namespaces/vision/pods")] * 2, "two pages"


# A pod whose runner is done, and which cannot finish -----------------------------------------------------------------


def test_a_pod_that_outlives_its_runner_is_looked_at_when_its_time_is_over(world: World) -> None:
    world.cache.put_job(make_job(active=1))
    kept = make_pod(phase="Running", state=DONE)
    world.cache.put_pod(kept)
    world.now = BEGIN + timedelta(minutes=5, seconds=54 + 5)
    assert world.observe().outlived is None
    assert world.seconds_until_queued() == 10.0, "fifteen seconds, of which five are over"
    world.now += timedelta(seconds=10)
    assert world.observe().outlived == kept
    world.loop.run_for(60.0)
    assert len(world.queue) == 0, "its time is over"


# Why a run waits ------------------------------------------------------------------------------------------------------


def refusal(name: str, when: str, message: str, about: str = JOB_UID) -> Manifest:
    event = {"reason": "FailedCreate", "message": message, "lastTimestamp": when}
    return {"metadata": {"name": name, "namespace": "vision"}, "involvedObject": {"uid": about}} | event


def test_why_a_job_has_no_pod_is_read_after_a_while_and_less_and_less(world: World) -> None:
    state = ObservedState(job=make_job(startTime="2026-01-02T03:04:05Z"))
    for number, message in enumerate(("quota of two", "quota of one", "quota of three")):
        world.api.add("core-events", refusal(f"e{number}", f"2026-01-02T03:04:{6 + number % 2 * 3:02}Z", message))
    world.api.add("core-events", refusal("other", "2026-01-02T03:04:59Z", "somebody else's", "another"))
    world.now = BEGIN + timedelta(seconds=1)
    assert world.explain(state) is None
    assert world.api.requests == []
    assert world.seconds_until_queued() == 3.0
    world.now = BEGIN + timedelta(seconds=10)
    assert world.explain(state) == "quota of one"
    assert set(world.api.requests) == {("GET", "/api/v1/namespaces/vision/events")}
    assert world.seconds_until_queued() == pytest.approx(10.0, abs=0.1)


@pytest.mark.parametrize(
    "state", [ObservedState(), ObservedState(job=finished()), ObservedState(job=make_job(owner_uid="somebody"))]
)
def test_nothing_is_read_for_what_does_not_wait(world: World, state: ObservedState) -> None:
    world.now = BEGIN + timedelta(hours=1)
    assert world.explain(state) is None
    world.loop.run_for(600.0)
    assert (world.api.requests, len(world.queue)) == ([], 0)


def test_the_newest_of_many_pages_counts(world: World) -> None:
    state = ObservedState(job=make_job(startTime="2026-01-02T03:04:05Z"))
    for number in range(5):
        raw = refusal(f"e{number}", f"2026-01-02T03:04:{30 - number:02}Z", f"at {30 - number}")
        world.api.add("core-events", raw)
    world.now = BEGIN + timedelta(minutes=1)
    assert world.explain(state) == "at 30"
    assert len(world.api.requests) == 3
