"""Sweeps in MLflow, against MLflow's own server: one run for the sweep, those of its trials nested below it."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from anomaly_api.artifacts import MlflowTracking
from anomaly_api.run import RunIdentity
from anomaly_api.sweep_status import Trial
from anomaly_runner.tracking.mlflow_client import connect
from anomaly_runner.tracking.mlflow_runs import PARENT_TAG, SEARCH_TAG, UID_TAG
from anomaly_runner.tracking.mlflow_tracker import CHANGED_TAG, MlflowTracker, mlflow_target
from anomaly_runner.tracking.tracker import FAILURE_TAG, TrackedResult
from support.demo import eventually
from support.mlflow_server import mlflow_server
from support.optional import not_none
from support.process import free_port

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of mlflow's own libraries

RESULT = TrackedResult(metrics={"image_AUROC": 0.9}, artifacts=())
AT_ONCE = 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), free_port()) as url:
        yield url


@pytest.fixture
def client(server: str) -> "MlflowClient":
    from mlflow.tracking import MlflowClient

    return MlflowClient(server)


def identity(name: str, uid: str, number: int | None = None) -> RunIdentity:
    return RunIdentity(kind="AnomalyExperiment", namespace="factory", name=name, uid=uid, number=number)


def spec(server: str) -> MlflowTracking:
    return MlflowTracking(tracking_uri=server, tags={"team": "vision"})


def trial(
    server: str, sweep: str, number: int, search: str = "s1", connecting: Callable[[str], Any] = connect
) -> MlflowTracker:
    which = Trial(sweep=sweep, sweep_uid=f"{sweep}-uid", search=search, number=number)
    run = identity(f"{sweep}-t{number:04d}", f"{sweep}-{search}-{number}")
    return MlflowTracker(mlflow_target(run, spec(server), None, trial=which), connecting)


def begun(server: str, sweep: str, number: int = 0) -> MlflowTracker:
    """The tracker of a trial whose run, and that of its sweep, are there."""
    one = trial(server, sweep, number)
    one.start({})
    one.check(lambda: None)
    return one


def older_run(client: "MlflowClient", sweep: str, milliseconds: int) -> Any:
    """Make another run of a sweep that has one, older by so much."""
    [own] = runs(client, UID_TAG, f"{sweep}-uid")
    return client.create_run(own.info.experiment_id, start_time=own.info.start_time - milliseconds, tags=own.data.tags)


def end(server: str, sweep: str, search: str = "s1", number: int | None = None) -> MlflowTracker:
    """The tracker of a sweep's last pod."""
    return MlflowTracker(mlflow_target(identity(sweep, f"{sweep}-uid", number), spec(server), None, search=search))


def runs(client: "MlflowClient", tag: str, value: str) -> list[Any]:
    experiment = not_none(client.get_experiment_by_name("factory")).experiment_id
    return list(client.search_runs([experiment], f"tags.`{tag}` = '{value}'"))


def only(found: list[Any]) -> Any | None:
    return found[0] if len(found) == 1 else None


class TogetherClient:
    """A client whose first search for the sweep's run waits until all trials have made theirs."""

    def __init__(self, uri: str, barrier: threading.Barrier) -> None:
        self._client = connect(uri)
        self._barrier: threading.Barrier | None = barrier

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def search_runs(self, experiments: list[str], query: str, **options: Any) -> Any:
        found = self._client.search_runs(experiments, query, **options)
        if "bolts-uid'" in query and self._barrier is not None:
            barrier, self._barrier = self._barrier, None
            barrier.wait(60)
        return found


def test_trials_that_begin_at_once_make_one_run_for_their_sweep(server: str, client: "MlflowClient") -> None:
    barrier = threading.Barrier(AT_ONCE)
    trackers = [
        trial(server, "bolts", number, connecting=lambda uri: TogetherClient(uri, barrier)) for number in range(AT_ONCE)
    ]
    for tracker in trackers:
        tracker.start({"model.name": "padim"})
    for tracker in trackers:
        tracker.check(lambda: None)
    parent = eventually(lambda: only(runs(client, UID_TAG, "bolts-uid")), "one run for the sweep", 60)
    assert (parent.info.run_name, parent.info.status) == ("bolts", "RUNNING")
    assert parent.data.tags["mlflow.note.content"].startswith("Sweep factory/bolts.")
    assert (parent.data.tags["team"], parent.data.tags[SEARCH_TAG]) == ("vision", "s1")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda tracker: tracker.finish(RESULT), trackers))
    children = runs(client, PARENT_TAG, parent.info.run_id)
    assert sorted(run.info.run_name for run in children) == ["bolts-t0000", "bolts-t0001", "bolts-t0002"]
    assert {run.info.status for run in children} == {"FINISHED"}
    assert [run.info.run_id for run in runs(client, UID_TAG, "bolts-uid")] == [parent.info.run_id]


def test_a_run_that_shows_up_after_a_younger_one_is_the_sweeps_soon(server: str, client: "MlflowClient") -> None:
    """Its pod asked for it first, but the server answered later; the trial that made the younger one is at work."""
    one = begun(server, "dowels")
    older = older_run(client, "dowels", 1)
    kept = eventually(lambda: only(runs(client, UID_TAG, "dowels-uid")), "one run for the sweep", 60)
    assert kept.info.run_id == older.info.run_id
    assert [run.info.run_name for run in runs(client, PARENT_TAG, older.info.run_id)] == ["dowels-t0000"]
    one.finish(RESULT)


def test_the_last_pod_continues_the_sweeps_run(server: str, client: "MlflowClient") -> None:
    first = trial(server, "nuts", 0)
    first.start({})
    first.finish(RESULT)
    [parent] = runs(client, UID_TAG, "nuts-uid")
    last = end(server, "nuts")
    last.start({"model.name": "padim"})
    last.finish(TrackedResult(metrics={"image_AUROC": 0.95}, artifacts=()))
    assert not_none(last.status()).run_id == parent.info.run_id
    run = client.get_run(parent.info.run_id)
    assert (run.info.status, run.data.metrics, run.data.params) == (
        "FINISHED",
        {"image_AUROC": 0.95},
        {"model.name": "padim"},
    )


def test_the_last_trial_that_is_stopped_ends_the_sweeps_run(server: str, client: "MlflowClient") -> None:
    trials = [begun(server, "hooks", number) for number in range(3)]
    [parent] = runs(client, UID_TAG, "hooks-uid")
    trials[0].finish(RESULT)
    trials[1].fail("Preempted: stopped by the cluster", stopped=True)
    assert client.get_run(parent.info.run_id).info.status == "RUNNING", "another one is at work"
    trials[2].fail("Preempted: stopped by the cluster", stopped=True)
    ended = client.get_run(parent.info.run_id)
    assert ended.info.status == "KILLED"
    assert "Preempted: stopped by the cluster" in ended.data.tags[FAILURE_TAG]
    children = runs(client, PARENT_TAG, parent.info.run_id)
    assert sorted(run.info.status for run in children) == ["FINISHED", "KILLED", "KILLED"]


def test_a_sweep_that_is_resumed_goes_on_in_its_run(server: str, client: "MlflowClient") -> None:
    stopped = begun(server, "eyes")
    stopped.fail("Preempted: stopped by the cluster", stopped=True)
    begun(server, "eyes")
    [parent] = runs(client, UID_TAG, "eyes-uid")
    assert parent.info.status == "RUNNING"
    assert FAILURE_TAG not in parent.data.tags


def test_a_trial_that_fails_leaves_its_sweep_at_work(server: str, client: "MlflowClient") -> None:
    one = begun(server, "clips")
    one.fail("DataInvalid: no images")
    [parent] = runs(client, UID_TAG, "clips-uid")
    assert parent.info.status == "RUNNING"
    assert [run.info.status for run in runs(client, PARENT_TAG, parent.info.run_id)] == ["FAILED"]


def test_a_search_that_goes_on_keeps_its_run_though_another_point_wins(server: str, client: "MlflowClient") -> None:
    for winner, number in (("padim", None), ("patchcore", 2)):
        one = trial(server, "washers", 0 if number is None else 1)
        one.start({})
        one.finish(RESULT)
        last = end(server, "washers", number=number)
        last.start({"model.name": winner, f"model.{winner}.backbone": "resnet18"})
        last.finish(RESULT)
    [run] = runs(client, UID_TAG, "washers-uid")
    assert run.data.params == {
        "model.name": "padim",
        "model.padim.backbone": "resnet18",
        "model.patchcore.backbone": "resnet18",
    }
    assert "model.name" in run.data.tags[CHANGED_TAG]
    assert "backbone" not in run.data.tags[CHANGED_TAG]
    assert len(runs(client, PARENT_TAG, run.info.run_id)) == 2


def test_another_search_of_the_same_resource_has_a_run_of_its_own(server: str, client: "MlflowClient") -> None:
    for search in ("s1", "s2"):
        one = trial(server, "rivets", 0, search)
        one.start({})
        one.finish(RESULT)
    found = runs(client, UID_TAG, "rivets-uid")
    assert sorted(run.data.tags[SEARCH_TAG] for run in found) == ["s1", "s2"]
    assert [len(runs(client, PARENT_TAG, run.info.run_id)) for run in found] == [1, 1]


def test_an_older_run_that_shows_up_later_takes_the_trial_over(server: str, client: "MlflowClient") -> None:
    """The clock of the pod that made it is behind."""
    one = begun(server, "pins")
    older = older_run(client, "pins", 5000)
    one.finish(RESULT)
    assert [run.info.run_id for run in runs(client, UID_TAG, "pins-uid")] == [older.info.run_id]
    assert [run.info.run_name for run in runs(client, PARENT_TAG, older.info.run_id)] == ["pins-t0000"]


def test_a_resources_second_run_with_other_parameters_is_another_one(server: str, client: "MlflowClient") -> None:
    for number, model in ((None, "padim"), (2, "patchcore")):
        again = MlflowTracker(mlflow_target(identity("screws", "screws-uid", number), spec(server), None))
        again.start({"model.name": model})
        again.finish(RESULT)
    assert sorted(run.data.params["model.name"] for run in runs(client, UID_TAG, "screws-uid")) == [
        "padim",
        "patchcore",
    ]
