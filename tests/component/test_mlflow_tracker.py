"""The MLflow tracker against a fake client that records calls, fails, and stores values like a server."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Never

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from anomaly_api.artifacts import MlflowTracking
from anomaly_api.experiment import AnomalyExperiment
from anomaly_api.parameters import PadimParameters
from anomaly_api.run import RunIdentity
from anomaly_runner.errors import Stopped, TrackingDenied, TrackingUnavailable
from anomaly_runner.tracking import mlflow_tracker
from anomaly_runner.tracking.mlflow_tracker import PARAMETERS, MlflowTracker, mlflow_target
from anomaly_runner.tracking.run_results import flat_parameters
from anomaly_runner.tracking.tracker import FAILURE_TAG, TrackedResult
from support.fake_mlflow import FakeMlflow
from support.optional import not_none

RUN = RunIdentity(kind="AnomalyExperiment", namespace="factory", name="x", uid="0-1")
SPEC = MlflowTracking(tracking_uri="http://mlflow:5000/", tags={"team": "vision"})
RESULT = TrackedResult(metrics={"image_AUROC": 0.9}, artifacts=())

pytestmark = pytest.mark.filterwarnings("ignore")  # of mlflow's own libraries


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)


def tracker(server: FakeMlflow, run: RunIdentity = RUN) -> MlflowTracker:
    return MlflowTracker(mlflow_target(run, SPEC, None), server.client)


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until


def test_a_run_from_start_to_finish(tmp_path: Path) -> None:
    server = FakeMlflow()
    picture = tmp_path / "a.png"
    found = tracker(server)
    found.start({"model.name": "padim"})
    found.finish(
        TrackedResult(
            metrics={"image_AUROC": 0.9}, artifacts=(("visualizations", picture), ("", tmp_path / "report.json"))
        )
    )
    run = server.runs["run0"]
    assert (run.status, run.name, run.metrics, run.params) == (
        "FINISHED",
        "x",
        {"image_AUROC": 0.9},
        {"model.name": "padim"},
    )
    assert run.tags == {
        "team": "vision",
        "anomalyops.io/uid": "0-1",
        "anomalyops.io/kind": "AnomalyExperiment",
        "anomalyops.io/namespace": "factory",
        "anomalyops.io/name": "x",
        "anomalyops.io/run": "1",
    }
    assert server.experiments == {"factory": "1"}
    assert {(Path(file).name, folder) for file, folder in server.calls} == {
        ("a.png", "visualizations"),
        ("report.json", None),
        (PARAMETERS, None),
    }
    assert not_none(found.status()).url == "http://mlflow:5000/#/experiments/1/runs/run0"


def test_a_retried_pod_resumes_the_same_run() -> None:
    server = FakeMlflow()
    first = tracker(server)
    first.start({})
    wait_for(first.status)
    first.fail("StorageUnavailable: gone")
    assert server.runs["run0"].status == "FAILED"
    assert server.runs["run0"].tags["anomalyops.io/failure"] == "StorageUnavailable: gone"
    second = tracker(server)
    second.start({})
    second.finish(RESULT)
    assert list(server.runs) == ["run0"]
    assert server.runs["run0"].status == "FINISHED"
    assert "anomalyops.io/failure" not in server.runs["run0"].tags


def test_a_run_that_is_being_created_when_all_fails_does_not_stay_running() -> None:
    server = FakeMlflow()
    asked, answer = threading.Event(), threading.Event()
    create = server.create_run

    def slowly(*arguments: Any, **named: Any) -> SimpleNamespace:
        asked.set()
        answer.wait(20)
        return create(*arguments, **named)

    server.create_run = slowly  # type: ignore[method-assign]
    early = tracker(server)
    early.start({})
    assert asked.wait(20)
    threading.Timer(0.1, answer.set).start()
    early.fail("Stopped: by the cluster")
    assert server.runs["run0"].status == "FAILED"
    assert server.runs["run0"].tags[FAILURE_TAG] == "Stopped: by the cluster"


def test_no_run_is_created_once_all_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    server = FakeMlflow()
    imported = threading.Event()

    def connect(uri: str) -> FakeMlflow:
        imported.wait(20)
        return server.client(uri)

    early = MlflowTracker(mlflow_target(RUN, SPEC, None), connect)
    early.start({})
    early.fail("DataInvalid: no images")  # does not wait: nothing has been asked for
    imported.set()
    early.check(lambda: None)
    assert server.runs == {}
    assert "not tracked yet: the run failed before MLflow had answered" in caplog.text


def test_a_server_that_never_answers_is_not_waited_for_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mlflow_tracker, "_LAST_ANSWER_SECONDS", 0.05)
    server = FakeMlflow()
    asked, answer = threading.Event(), threading.Event()

    def silent(name: str) -> Never:
        asked.set()
        answer.wait(20)
        raise ConnectionError("refused")

    server.get_experiment_by_name = silent  # type: ignore[method-assign]
    lost = tracker(server)
    lost.start({})
    assert asked.wait(20)
    lost.fail("Stopped: by the cluster")
    answer.set()
    assert "MLflow at http://mlflow:5000/ does not answer: a run may stay there as running" in caplog.messages


def refused(*_: object, **__: object) -> Never:
    raise MlflowException("not allowed", error_code=INVALID_PARAMETER_VALUE)


@pytest.mark.parametrize("uid", ["0-1", "local"])
def test_a_run_whose_parameters_are_refused_does_not_stay_running(uid: str) -> None:
    server = FakeMlflow()
    server.log_batch = refused  # type: ignore[method-assign]
    early = tracker(server, RUN.model_copy(update={"uid": uid}))
    early.start({"seed": "1"})
    with pytest.raises(TrackingDenied):
        early.check(lambda: None)
    early.fail("TrackingDenied: not allowed")
    assert [run.status for run in server.runs.values()] == ["FAILED"]


def test_a_server_that_refuses_the_results_has_a_failed_run() -> None:
    server = FakeMlflow()
    late = tracker(server)
    late.start({})
    wait_for(late.status)
    server.log_batch = refused  # type: ignore[method-assign]
    with pytest.raises(TrackingDenied, match="all results are stored, but"):
        late.finish(RESULT)
    assert [run.status for run in server.runs.values()] == ["FAILED"]
    assert server.runs["run0"].tags[FAILURE_TAG].startswith("TrackingDenied: ")


def test_parameters_that_fail_once_are_logged_in_the_same_run() -> None:
    server = FakeMlflow()
    log, failures = server.log_batch, [ConnectionError("reset")]

    def once(*arguments: Any, **named: Any) -> None:
        if failures:
            raise failures.pop()
        log(*arguments, **named)

    server.log_batch = once  # type: ignore[method-assign]
    local = tracker(server, RUN.model_copy(update={"uid": "local"}))
    local.start({"seed": "1"})
    local.finish(RESULT)
    assert [(run.status, run.params) for run in server.runs.values()] == [("FINISHED", {"seed": "1"})]


def test_runs_without_a_cluster_are_never_resumed() -> None:
    server = FakeMlflow()
    for _ in range(2):
        local = tracker(server, RUN.model_copy(update={"uid": "local"}))
        local.start({})
        local.finish(RESULT)
    assert len(server.runs) == 2


def test_a_server_that_comes_back_gets_all_metrics() -> None:
    server = FakeMlflow(down=2)
    late = tracker(server)
    late.start({"seed": "42"})
    wait_for(lambda: server.down == 1)
    assert late.status() is None
    late.finish(RESULT)
    assert server.runs["run0"].params == {"seed": "42"}
    assert server.runs["run0"].status == "FINISHED"


def test_a_server_that_stays_down_fails_with_tracking_unavailable() -> None:
    lost = tracker(FakeMlflow(down=100))
    lost.start({})
    with pytest.raises(TrackingUnavailable, match=r"all results are stored.*mlflow:5000.*refused"):
        lost.finish(RESULT)
    lost.fail("does not raise")


def test_the_local_store_is_a_database_in_the_folder(tmp_path: Path) -> None:
    target = mlflow_target(RUN, SPEC, tmp_path)
    assert target.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert target.artifact_root == tmp_path / "mlartifacts"


def test_parameters_are_the_spec_by_path(sample_experiment: AnomalyExperiment) -> None:
    parameters = flat_parameters(sample_experiment.spec)
    padim = sample_experiment.spec.model.parameters
    assert isinstance(padim, PadimParameters)
    assert parameters["model.padim.backbone"] == "tf_efficientnet_lite0"
    assert parameters["model.padim.layers"] == ", ".join(padim.layers)
    assert parameters["transforms.inputSize.height"] == "224"
    assert all(isinstance(value, str) for value in parameters.values())


def test_the_client_is_imported_only_in_the_background() -> None:
    assert "mlflow" not in mlflow_tracker.__dict__


def test_a_server_that_is_down_does_not_keep_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def down(uri: str) -> None:
        raise ConnectionError("refused")

    found = MlflowTracker(mlflow_target(RUN, SPEC, None), down)
    found.start({})
    found.check(lambda: None)


def test_a_server_that_does_not_answer_a_probe_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def down(uri: str) -> None:
        raise ConnectionError("refused")

    target = mlflow_target(RUN, SPEC, None)
    assert "MLflow at http://mlflow:5000/ does not take the run: refused" in not_none(
        MlflowTracker(target, down).probe(lambda: None)
    )
    silent, released = threading.Event(), threading.Event()

    def stall(uri: str) -> SimpleNamespace:
        def wait(name: str) -> None:
            silent.set()
            released.wait(30)

        return SimpleNamespace(get_experiment_by_name=wait)

    monkeypatch.setattr("anomaly_runner.tracking.mlflow_tracker._FIRST_ANSWER_SECONDS", 0.1)
    assert MlflowTracker(target, stall).probe(lambda: None) == "MLflow at http://mlflow:5000/ does not answer"
    assert silent.is_set()
    released.set()


def test_a_silent_server_does_not_keep_the_training_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomaly_runner.tracking.mlflow_tracker._FIRST_ANSWER_SECONDS", 0.0)
    answer = threading.Event()

    class Silent:
        def get_experiment_by_name(self, name: str) -> None:
            answer.wait(60)
            raise ConnectionError("refused")

    target = mlflow_target(RUN, SPEC, None)
    found = MlflowTracker(target, lambda uri: Silent())
    found.start({})
    found.check(lambda: None)
    assert found.status() is None
    answer.set()


def test_a_run_that_is_stopped_waits_no_longer() -> None:
    answer = threading.Event()

    def stop() -> None:
        raise Stopped

    target = mlflow_target(RUN, SPEC, None)
    found = MlflowTracker(target, lambda uri: answer.wait(60))
    found.start({})
    with pytest.raises(Stopped):
        found.check(stop)
    answer.set()
