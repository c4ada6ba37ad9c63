"""What is logged to MLflow, in which order and pieces, what is tried again, and how a run ends."""

import tempfile
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Never

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_ALREADY_EXISTS

from anomaly_api.artifacts import MlflowTracking
from anomaly_api.run import RunIdentity
from anomaly_api.sweep_status import Trial
from anomaly_runner.errors import InternalError, StorageUnavailable, TrackingDenied, TrackingUnavailable
from anomaly_runner.tracking import mlflow_tracker
from anomaly_runner.tracking.mlflow_runs import Sought
from anomaly_runner.tracking.mlflow_tracker import (
    CHANGED_TAG,
    NOT_FINITE_TAG,
    PARAMETERS,
    MlflowTarget,
    MlflowTracker,
    mlflow_target,
)
from anomaly_runner.tracking.tracker import FAILURE_TAG, TrackedDataset, TrackedResult
from support.fake_mlflow import FakeMlflow
from support.model_manifests import model_manifest
from support.optional import not_none

RUN = RunIdentity(kind="AnomalyExperiment", namespace="factory", name="screws", uid="0-1")
SPEC = MlflowTracking(tracking_uri="http://mlflow:5000/")
RESULT = TrackedResult(metrics={"image_AUROC": 0.9}, artifacts=())
NEVER = 3600.0
"""Longer than any test."""

pytestmark = pytest.mark.filterwarnings("ignore")  # of mlflow's own libraries


@pytest.fixture
def server() -> FakeMlflow:
    return FakeMlflow()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, in seconds, which are not made; metrics are logged only when a test says so."""
    made = list[float]()
    monkeypatch.setattr("tenacity.nap.time.sleep", made.append)
    monkeypatch.setattr(mlflow_tracker, "_FLUSH_SECONDS", NEVER)
    return made


def tracker(server: FakeMlflow, **fields: Any) -> MlflowTracker:
    return MlflowTracker(mlflow_target(RUN, SPEC.model_copy(update=fields), None), server.client)


def started(server: FakeMlflow, parameters: dict[str, str] | None = None, **fields: Any) -> MlflowTracker:
    """A tracker whose run is there."""
    found = tracker(server, **fields)
    found.start(parameters or {})
    found.check(lambda: None)
    return found


def the_run(server: FakeMlflow) -> SimpleNamespace:
    (run,) = server.runs.values()
    return run


def refused(*_: object, **__: object) -> Never:
    raise MlflowException("not allowed", error_code=INVALID_PARAMETER_VALUE)


def lost(*_: object, **__: object) -> Never:
    raise ConnectionError("reset")


# What is logged, and in which order


def test_a_run_is_there_with_its_parameters_before_the_training(server: FakeMlflow) -> None:
    started(server, {"seed": "1"})
    assert server.asked == [
        "get_experiment_by_name",
        "create_experiment",
        "search_runs",
        "create_run",
        "log_batch",
        "log_artifact",
    ]
    assert the_run(server).params == {"seed": "1"}
    assert [(Path(file).name, folder) for file, folder in server.calls] == [(PARAMETERS, None)]
    assert server.texts == {PARAMETERS: '{\n  "seed": "1"\n}'}


def test_a_server_is_talked_to_beside_the_training_and_keeps_no_process_alive(server: FakeMlflow) -> None:
    started(server)
    assert tracker(server).probe(lambda: None) is None
    assert [(thread.name, thread.daemon) for thread in server.threads] == [("mlflow", True)] * 2


DATASET = TrackedDataset(name="d", digest="0" * 64, kind="s3", uri="s3://d", images={}, context="training")


def test_a_run_ends_after_everything_else(server: FakeMlflow, tmp_path: Path) -> None:
    found = started(server)
    found.log_metrics(1, {"trainLoss": 0.5})
    server.asked.clear()
    found.finish(
        TrackedResult(
            metrics={"image_AUROC": 0.9},
            artifacts=(("", tmp_path / "report.json"), ("pictures", tmp_path / "a.jpg")),
            history={"trainLoss": ((1, 0.5), (2, 0.25))},
            dataset=DATASET,
            tags={"a:b": "x" * 6000},
        )
    )
    assert server.asked == [
        "set_tag",
        "log_inputs",
        "log_batch",  # what was queued
        "get_metric_history",
        "log_batch",  # what is missing of the history
        "log_batch",  # the final values
        "log_artifact",
        "log_artifact",
        "set_terminated",
    ]
    run = the_run(server)
    assert run.points == [("trainLoss", 1, 0.5), ("trainLoss", 2, 0.25), ("image_AUROC", 0, 0.9)]
    assert run.status == "FINISHED"
    assert len(run.tags["a_U003A_b"]) == 5000
    assert [(one.dataset.name, one.dataset.digest) for one in run.datasets] == [("d", "0" * 32)]
    assert {(Path(file).name, folder) for file, folder in server.calls[1:]} == {
        ("report.json", None),
        ("a.jpg", "pictures"),
    }


def test_a_run_that_failed_with_results_ends_as_failed(server: FakeMlflow) -> None:
    started(server).finish(TrackedResult(metrics={}, artifacts=(), failed=True))
    assert the_run(server).status == "FAILED"


def test_many_values_are_sent_in_pieces(server: FakeMlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow takes 100 parameters and 1,000 metrics at once."""
    sent = list[tuple[int, int]]()
    log = server.log_batch

    def counted(run_id: str, metrics: Any = (), params: Any = ()) -> None:
        sent.append((len(params), len(metrics)))
        log(run_id, metrics, params)

    monkeypatch.setattr(server, "log_batch", counted)
    found = started(server, {f"p{number}": str(number) for number in range(250)})
    for step in range(1001):
        found.log_metrics(step, {"trainLoss": step / 8})
    found.finish(TrackedResult(metrics={}, artifacts=()))
    assert sent == [(100, 0), (100, 0), (50, 0), (0, 500), (0, 500), (0, 1)]
    run = the_run(server)
    assert run.params == {f"p{number}": str(number) for number in range(250)}
    assert run.points == [("trainLoss", step, step / 8) for step in range(1001)]


def test_only_what_no_pod_has_logged_is_logged_at_the_end(server: FakeMlflow) -> None:
    found = started(server)
    server.log_batch("run0", metrics=[SimpleNamespace(key="trainLoss", step=1, value=0.5)])
    found.finish(
        TrackedResult(metrics={}, artifacts=(), history={"trainLoss": ((1, 0.5), (2, 0.25)), "imageAUROC": ((1, 0.9),)})
    )
    assert the_run(server).points == [("trainLoss", 1, 0.5), ("trainLoss", 2, 0.25), ("imageAUROC", 1, 0.9)]


def test_values_that_are_no_numbers_are_told_once_in_a_tag(server: FakeMlflow) -> None:
    found = started(server)
    found.log_metrics(3, {"trainLoss": float("inf"), "imageAUROC": 0.5})
    history = {"trainLoss": ((3, float("inf")),)}
    found.finish(TrackedResult(metrics={"image_AUROC": float("nan")}, artifacts=(), history=history))
    run = the_run(server)
    assert run.tags[NOT_FINITE_TAG] == "trainLoss at step 3: inf; image_AUROC at step 0: nan"
    assert run.points == [("imageAUROC", 3, 0.5)]


def test_metrics_that_come_while_others_are_sent_are_sent_next(
    server: FakeMlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, log = started(server), server.log_batch

    def meanwhile(run_id: str, metrics: Any = (), params: Any = ()) -> None:
        monkeypatch.setattr(server, "log_batch", log)
        found.log_metrics(2, {"trainLoss": 0.25})
        log(run_id, metrics, params)

    found.log_metrics(1, {"trainLoss": 0.5})
    monkeypatch.setattr(server, "log_batch", meanwhile)
    assert found._try_flush()
    assert the_run(server).points == [("trainLoss", 1, 0.5)]
    assert found._try_flush()
    assert the_run(server).points == [("trainLoss", 1, 0.5), ("trainLoss", 2, 0.25)]


def test_metrics_that_are_not_taken_stay_in_the_queue(server: FakeMlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    found, log = started(server), server.log_batch
    found.log_metrics(1, {"trainLoss": 0.5})
    monkeypatch.setattr(server, "log_batch", lost)
    assert not found._try_flush()
    monkeypatch.setattr(server, "log_batch", log)
    found.finish(TrackedResult(metrics={}, artifacts=()))
    assert the_run(server).points == [("trainLoss", 1, 0.5)]


def test_pieces_that_were_taken_are_not_sent_again(server: FakeMlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    found, log, answers = started(server), server.log_batch, [True, False]

    def sometimes(run_id: str, metrics: Any = (), params: Any = ()) -> None:
        if not answers.pop(0):
            raise ConnectionError("reset")
        log(run_id, metrics, params)

    for step in range(501):
        found.log_metrics(step, {"trainLoss": step / 8})
    monkeypatch.setattr(server, "log_batch", sometimes)
    assert not found._try_flush()
    monkeypatch.setattr(server, "log_batch", log)
    assert found._try_flush()
    assert the_run(server).points == [("trainLoss", step, step / 8) for step in range(501)]


@pytest.mark.parametrize(("answers", "pause"), [(True, 5.0), (False, 60.0)])
def test_a_server_that_did_not_answer_is_asked_again_after_a_minute(
    server: FakeMlflow, monkeypatch: pytest.MonkeyPatch, answers: bool, pause: float
) -> None:
    waited = list[float]()

    class Finished(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(not_none(timeout))
            return len(waited) == 2

    monkeypatch.setattr(mlflow_tracker, "_FLUSH_SECONDS", 5.0)
    found = MlflowTracker(mlflow_target(RUN, SPEC, None), server.client if answers else lost)
    found._finished = Finished()
    found._flush_until_finished()
    assert waited == [pause, pause]


def test_the_parameters_are_a_file_once(server: FakeMlflow) -> None:
    found = started(server, {"seed": "1"})
    assert found._try_flush()
    found.finish(RESULT)
    assert [Path(file).name for file, _ in server.calls] == [PARAMETERS]


def test_a_search_that_goes_on_names_the_parameters_that_changed(
    server: FakeMlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"model.name": "padim", "seed": "2", "task": "classification"}
    data = {"run0": SimpleNamespace(data=SimpleNamespace(params=known))}
    monkeypatch.setattr(server, "get_run", data.__getitem__, raising=False)
    last = MlflowTracker(mlflow_target(RUN, SPEC, None, search="s1"), server.client)
    last.start(
        {"model.name": "patchcore", "seed": "1", "task": "classification", "model.patchcore.backbone": "resnet18"}
    )
    last.check(lambda: None)
    run = the_run(server)
    assert run.params == {"model.patchcore.backbone": "resnet18"}
    assert run.tags[CHANGED_TAG] == (
        f"as in {PARAMETERS}, not as an earlier end of the search had them: model.name, seed"
    )


# What is tried again


def test_results_are_tried_three_times_with_growing_pauses(
    server: FakeMlflow, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    found = started(server)
    monkeypatch.setattr(server, "log_batch", lost)
    with pytest.raises(
        TrackingUnavailable, match=r"all results are stored, but MLflow at http://mlflow:5000/ does not"
    ):
        found.finish(RESULT)
    assert pauses == [1, 2]
    assert the_run(server).status == "RUNNING", "another pod may go on"


def test_a_refusal_is_final_and_ends_the_run(
    server: FakeMlflow, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    found = started(server)
    monkeypatch.setattr(server, "log_batch", refused)
    with pytest.raises(TrackingDenied, match="all results are stored, but MLflow at http://mlflow:5000/ refuses the"):
        found.finish(RESULT)
    assert pauses == []
    assert the_run(server).status == "FAILED"
    assert the_run(server).tags[FAILURE_TAG].startswith("TrackingDenied: MLflow at http://mlflow:5000/ refuses the run")


def broken(*_: object, **__: object) -> Never:
    raise KeyError("a fault of ours")


def test_a_fault_of_this_program_is_told_as_one_and_tried_once(
    server: FakeMlflow, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    found = started(server)
    monkeypatch.setattr(server, "log_batch", broken)
    with pytest.raises(InternalError, match=r"all results are stored, but tracking ended .* \(KeyError: 'a fault of"):
        found.finish(RESULT)
    assert pauses == []
    assert the_run(server).status == "FAILED"
    assert the_run(server).tags[FAILURE_TAG].startswith("InternalError: tracking ended with a fault of this program")


def test_a_fault_during_the_training_is_logged_with_its_place_and_does_not_end_it(
    server: FakeMlflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "log_batch", broken)
    started(server, {"model": "padim"})
    assert "not tracked yet: tracking ended with a fault of this program" in caplog.text
    assert "in broken" in caplog.text, "the traceback"


def test_what_a_server_does_has_no_traceback(
    server: FakeMlflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "log_batch", lost)
    started(server, {"model": "padim"}).fail("Diverged")
    assert caplog.messages == ["not tracked yet: MLflow at http://mlflow:5000/ does not take the run: reset"]
    assert "Traceback" not in caplog.text


def test_a_fault_in_a_probe_is_no_answer_of_the_server(server: FakeMlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "get_experiment_by_name", broken)
    with pytest.raises(InternalError, match="a fault of this program") as raised:
        tracker(server).probe(lambda: None)
    assert isinstance(raised.value.__cause__, KeyError), "its place goes to the log"


def test_a_message_fits_a_condition(server: FakeMlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    def lengthy(*_: object, **__: object) -> Never:
        raise MlflowException("x" * 5000, error_code=INVALID_PARAMETER_VALUE)

    found = started(server)
    monkeypatch.setattr(server, "log_batch", lengthy)
    with pytest.raises(TrackingDenied) as raised:
        found.finish(RESULT)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("status", "raised", "said"),
    [
        (500, TrackingUnavailable, "takes the run but not its files: its artifact store may be read-only or full"),
        (403, TrackingDenied, "MLflow at http://mlflow:5000/ refuses the account (403)"),
        (404, TrackingDenied, "refuses the run"),
    ],
)
def test_a_file_that_is_not_taken_is_told(
    server: FakeMlflow, monkeypatch: pytest.MonkeyPatch, status: int, raised: type[Exception], said: str
) -> None:
    from requests import HTTPError, Response

    def fails(*_: object, **__: object) -> Never:
        response = Response()
        response.status_code = status
        raise HTTPError(str(status), response=response)

    found = started(server)
    monkeypatch.setattr(server, "log_artifact", fails)
    with pytest.raises(raised) as failure:
        found.finish(TrackedResult(metrics={}, artifacts=(("", Path("report.json")),)))
    assert said in str(failure.value)


@pytest.fixture
def full_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of the tracker, on a disk that is full: the kernel refuses what is written to its files."""
    for name in (PARAMETERS, "MLmodel"):
        (tmp_path / name).symlink_to("/dev/full")
    monkeypatch.setattr(tempfile, "TemporaryDirectory", lambda: nullcontext(str(tmp_path)))
    return tmp_path


@pytest.mark.usefixtures("full_folder")
def test_a_full_disk_of_this_machine_is_not_blamed_on_the_server(
    server: FakeMlflow, caplog: pytest.LogCaptureFixture, pauses: list[float]
) -> None:
    """Another pod, perhaps on another node, may have room; it goes on in the run that is ended until then."""
    found = started(server)
    assert "not tracked yet: the disk that this run writes to is full: ask for more ephemeral-storage" in caplog.text
    with pytest.raises(
        StorageUnavailable, match="all results are stored, but the disk that this run writes to is full"
    ):
        found.finish(RESULT)
    assert pauses == [], "it stays full"
    assert the_run(server).status == "FAILED"
    assert the_run(server).tags[FAILURE_TAG].startswith("StorageUnavailable: the disk that this run writes to is full")


def test_a_full_disk_is_told_where_the_model_is_described(server: FakeMlflow, request: pytest.FixtureRequest) -> None:
    found = started(server)
    request.getfixturevalue("full_folder")
    with pytest.raises(
        StorageUnavailable, match="all results are stored, but the disk that this run writes to is full"
    ):
        found.finish(with_model())


# How a run ends that has no results


@pytest.mark.parametrize(("stopped", "status"), [(False, "FAILED"), (True, "KILLED")])
def test_a_run_without_results_says_why(server: FakeMlflow, stopped: bool, status: str) -> None:
    started(server).fail("x" * 6000, stopped=stopped)
    run = the_run(server)
    assert run.status == status
    assert len(run.tags[FAILURE_TAG]) == 5000
    assert run.tags[FAILURE_TAG].endswith("x... (6000 characters)")


def test_the_last_metrics_of_a_training_that_failed_are_kept(server: FakeMlflow) -> None:
    """Those since the last flush, which often show why."""
    found = started(server)
    found.log_metrics(7, {"trainLoss": 1e30})
    found.fail("Diverged: scores are not finite")
    assert the_run(server).points == [("trainLoss", 7, 1e30)]
    assert the_run(server).status == "FAILED"


def test_last_metrics_that_are_not_taken_do_not_keep_the_run_open(
    server: FakeMlflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = started(server)
    found.log_metrics(7, {"trainLoss": 0.5})
    monkeypatch.setattr(server, "log_batch", refused)
    found.fail("Diverged: scores are not finite")
    assert the_run(server).status == "FAILED"
    assert "lacks the last metrics of the training: " in caplog.text


def test_a_server_that_takes_no_end_is_asked_for_nothing_more(
    server: FakeMlflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = started(server)
    found.log_metrics(7, {"trainLoss": 0.5})
    monkeypatch.setattr(server, "set_tag", lost)
    found.fail("Stopped: by the cluster", stopped=True)
    assert "was not told of the failure: reset" in caplog.text
    assert the_run(server).points == []


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ("set_tag", "MLflow at http://mlflow:5000/ was not told of the failure: 'a fault of ours'"),
        ("log_batch", "MLflow at http://mlflow:5000/ lacks the last metrics of the training: 'a fault of ours'"),
    ],
)
def test_a_fault_at_the_end_of_a_failed_run_is_logged_with_its_place(
    server: FakeMlflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, request_: str, told: str
) -> None:
    found = started(server)
    found.log_metrics(7, {"trainLoss": 0.5})
    monkeypatch.setattr(server, request_, broken)
    found.fail("Diverged: scores are not finite")
    (record,) = caplog.records
    assert record.message == told
    assert "in broken" in caplog.text, "the traceback"


def test_a_run_that_was_never_created_needs_no_end(server: FakeMlflow) -> None:
    tracker(server).fail("DataInvalid: no images")
    assert server.asked == []


def test_a_thread_that_hangs_does_not_share_its_metrics(server: FakeMlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be sending them at this moment."""
    found, answer = started(server), threading.Event()
    monkeypatch.setattr(mlflow_tracker, "_LAST_ANSWER_SECONDS", 0.01)
    hanging = threading.Thread(target=answer.wait, daemon=True)
    hanging.start()
    found._thread = hanging
    found.log_metrics(7, {"trainLoss": 0.5})
    found.fail("Diverged: scores are not finite")
    answer.set()
    hanging.join()
    assert (the_run(server).status, the_run(server).points) == ("FAILED", [])


class SweepServer(FakeMlflow):
    """Its trials at work are found by their parent."""

    def search_runs(self, experiments: Any, query: str, order_by: Any = (), max_results: int = 0) -> Any:
        if "mlflow.parentRunId" not in query:
            found = super().search_runs(experiments, query, order_by)
            for run in found:
                run.info.status = run.status
            return found
        assert max_results == 1
        return [run for run in self.runs.values() if "mlflow.parentRunId" in run.tags and run.status == "RUNNING"]

    def delete_run(self, run_id: str) -> None:
        del self.runs[run_id]


def trial(server: FakeMlflow, number: int) -> MlflowTracker:
    which = Trial(sweep="bolts", sweep_uid="s", search="s1", number=number)
    run = RunIdentity(kind="AnomalyExperiment", namespace="factory", name=f"bolts-t{number}", uid=str(number))
    found = MlflowTracker(mlflow_target(run, SPEC, None, trial=which), server.client)
    found.start({})
    found.check(lambda: None)
    return found


def status_of(server: FakeMlflow, name: str) -> str:
    return next(str(run.status) for run in server.runs.values() if run.name == name)


@pytest.mark.parametrize(("stopped", "sweep"), [(True, "KILLED"), (False, "RUNNING")])
def test_a_sweep_ends_with_its_last_trial_only_if_that_was_stopped(stopped: bool, sweep: str) -> None:
    server = SweepServer()
    first, last = trial(server, 0), trial(server, 1)
    parent = next(run_id for run_id, run in server.runs.items() if run.name == "bolts")
    assert {run.tags.get("mlflow.parentRunId") for run in server.runs.values()} == {None, parent}
    first.fail("Stopped: by somebody", stopped=True)
    assert status_of(server, "bolts") == "RUNNING"
    last.fail("the last word", stopped=stopped)
    assert status_of(server, "bolts") == sweep
    told = server.runs[parent].tags.get(FAILURE_TAG)
    assert told == ("no trial is at work any longer; the last one: the last word" if stopped else None)


def test_a_trial_that_made_its_sweeps_run_looks_once_more_for_an_older_one() -> None:
    server = SweepServer()
    one = trial(server, 0)
    [child, parent] = server.runs
    older = server.create_run("1", run_name="bolts", tags=dict(server.runs[parent].tags))
    older.info.start_time = -1
    assert one._try_flush()
    assert parent not in server.runs
    assert server.runs[child].tags["mlflow.parentRunId"] == older.info.run_id
    server.asked.clear()
    assert one._try_flush()
    assert server.asked == [], "it is settled"
    oldest = server.create_run("1", run_name="bolts", tags=dict(older.tags))
    oldest.info.start_time = -2
    one.finish(RESULT)
    assert server.runs[child].tags["mlflow.parentRunId"] == oldest.info.run_id, "clocks differ"
    server.asked.clear()
    assert trial(server, 1)._try_flush()
    assert server.asked.count("search_runs") == 2, "its own run and the sweep's, which was there"


# Asking without creating anything


def test_a_probe_asks_for_the_experiment_alone(server: FakeMlflow, tmp_path: Path) -> None:
    asking = tracker(server)
    assert asking.probe(lambda: None) is None
    asking.fail("DataInvalid: no images")
    assert server.asked == ["get_experiment_by_name"]
    local = MlflowTracker(mlflow_target(RUN, SPEC, tmp_path), server.client)
    assert local.probe(lambda: None) is None
    assert len(server.asked) == 1, "a database that is not there is not made"
    (tmp_path / "mlflow.db").touch()
    assert local.probe(lambda: None) is None
    assert server.asked == ["get_experiment_by_name"] * 2


def test_a_probe_is_refused_as_a_run_would_be(server: FakeMlflow, tmp_path: Path) -> None:
    def elsewhere(name: str) -> SimpleNamespace:
        assert name == "factory"
        return SimpleNamespace(experiment_id="1", lifecycle_stage="active", artifact_location="/elsewhere")

    (tmp_path / "mlflow.db").touch()
    server.get_experiment_by_name = elsewhere  # type: ignore[method-assign]
    told = f"factory at sqlite:///{tmp_path}/mlflow.db keeps its artifacts at /elsewhere, outside of {tmp_path}"
    with pytest.raises(TrackingDenied, match=told):
        MlflowTracker(mlflow_target(RUN, SPEC, tmp_path), server.client).probe(lambda: None)
    run = MlflowTracker(mlflow_target(RUN, SPEC, tmp_path), server.client)
    run.start({})
    with pytest.raises(TrackingDenied, match=told):
        run.check(lambda: None)


# Waiting for the first answer


def test_a_silent_server_is_waited_for_30_seconds_from_the_first_request(
    server: FakeMlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not from the start: importing MLflow takes seconds. A local database always answers."""
    clock, polls, wanted = [100.0], list[float](), list[float]()

    class Answered(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            polls.append(not_none(timeout))
            clock[0] += 10
            if len(polls) == 3:
                found._asked_at = clock[0]
            return len(polls) > 20

    def still_wanted() -> None:
        wanted.append(clock[0])

    monkeypatch.setattr(mlflow_tracker, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    found = tracker(server)
    found._answered = Answered()
    assert not found._wait_for_answer(still_wanted)
    assert set(polls) == {0.5}
    # Asked at 130: after 160, for the first time more than 30 seconds ago.
    assert (clock[0], len(wanted)) == (170.0, 7)
    polls.clear()
    local = MlflowTracker(mlflow_target(RUN, SPEC, Path("/nowhere")), server.client)
    found = local
    local._answered = Answered()
    assert local._wait_for_answer(still_wanted)


# Names and places


def target(**fields: Any) -> MlflowTarget:
    return mlflow_target(RUN, SPEC.model_copy(update=fields), None)


def test_names_are_those_of_the_resource_unless_others_are_asked_for() -> None:
    plain = target()
    assert (plain.experiment, plain.name, plain.tags, plain.register) == ("factory", "screws", {}, None)
    assert (plain.sweep, plain.search, plain.artifact_root, plain.run) == (None, None, None, RUN)
    assert plain.uri == "http://mlflow:5000/"
    named = target(experiment_name="lab", run_name="monday", tags={"team": "vision"}, register_model="screws")
    assert (named.experiment, named.name, named.tags) == ("lab", "monday", {"team": "vision"})
    assert named.register == "screws"
    assert named.all_tags == {
        "team": "vision",
        "anomalyops.io/uid": "0-1",
        "anomalyops.io/kind": "AnomalyExperiment",
        "anomalyops.io/namespace": "factory",
        "anomalyops.io/name": "screws",
        "anomalyops.io/run": "1",
    }
    again = mlflow_target(RUN.model_copy(update={"number": 3}), SPEC, None)
    assert again.all_tags["anomalyops.io/run"] == "3"


def test_the_last_run_of_a_sweep_is_told_by_its_search() -> None:
    tags = mlflow_target(RUN, SPEC, None, search="s1").all_tags
    assert tags["anomalyops.io/search"] == "s1"
    assert "anomalyops.io/run" not in tags


def test_a_trial_is_below_its_sweep_if_the_sweep_is_known() -> None:
    which = Trial(sweep="bolts", sweep_uid="s", search="s1", number=0)
    sweep = RunIdentity(kind="AnomalyExperiment", namespace="factory", name="bolts", uid="s")
    assert mlflow_target(RUN, SPEC, None, trial=which).sweep == Sought(run=sweep, search="s1")
    unknown = which.model_copy(update={"sweep_uid": None})
    assert mlflow_target(RUN, SPEC, None, trial=unknown).sweep is None


@pytest.mark.parametrize("uri", ["http://mlflow:5000/X", "http://mlflow:5000/X/"])
def test_a_run_has_a_page(server: FakeMlflow, uri: str) -> None:
    found = started(server, tracking_uri=uri)
    status = not_none(found.status())
    assert (status.run_id, status.url) == ("run0", "http://mlflow:5000/X/#/experiments/1/runs/run0")


def test_a_local_database_has_no_pages(server: FakeMlflow, tmp_path: Path) -> None:
    local = MlflowTracker(mlflow_target(RUN, SPEC, tmp_path), server.client)
    local.start({})
    local.check(lambda: None)
    assert not_none(local.status()).url is None


# The model

MANIFEST = model_manifest(RUN)


class Registry(FakeMlflow):
    """With a model registry."""

    def __init__(self, *, known: bool = False, versions: tuple[SimpleNamespace, ...] = ()) -> None:
        super().__init__()
        self.known, self.versions = known, versions
        self.made: list[tuple[Any, ...]] = []

    def search_model_versions(self, query: str) -> list[SimpleNamespace]:
        assert query == "run_id = 'run0'"
        return list(self.versions)

    def create_registered_model(self, name: str, tags: dict[str, str]) -> None:
        self.made.append((name, tags))
        if self.known:
            raise MlflowException("exists", error_code=RESOURCE_ALREADY_EXISTS)

    def get_run(self, run_id: str) -> SimpleNamespace:
        return SimpleNamespace(info=SimpleNamespace(artifact_uri=f"mlflow-artifacts:/1/{run_id}/artifacts"))

    def create_model_version(self, *arguments: Any, **named: Any) -> SimpleNamespace:
        self.made.append((*arguments, named))
        return SimpleNamespace(version=4)


def with_model() -> TrackedResult:
    return TrackedResult(metrics={}, artifacts=(), model=MANIFEST)


def test_a_model_is_described_and_registered_only_where_that_is_asked_for() -> None:
    server = Registry()
    found = started(server)
    found.finish(with_model())
    described = {(Path(file).name, folder) for file, folder in server.calls[1:]}
    assert described == {("MLmodel", "model"), ("requirements.txt", "model")}
    assert (server.made, not_none(found.status()).model) == ([], None)
    assert "run_id: run0\n" in server.texts["MLmodel"]


@pytest.mark.parametrize("known", [False, True])
def test_a_registered_model_is_of_the_files_of_its_run(known: bool) -> None:
    server = Registry(known=known)
    found = started(server, register_model="screws")
    found.finish(with_model())
    assert not_none(found.status()).model == "models:/screws/4"
    tags, source = target().all_tags, "mlflow-artifacts:/1/run0/artifacts/model"
    assert server.made == [
        ("screws", {"anomalyops.io/kind": "AnomalyExperiment"}),
        ("screws", source, "run0", {"tags": tags, "await_creation_for": 60}),
    ]


def test_a_version_of_an_earlier_attempt_is_taken() -> None:
    others = (SimpleNamespace(name="bolts", version=9), SimpleNamespace(name="screws", version=2))
    server = Registry(versions=others)
    found = started(server, register_model="screws")
    found.finish(with_model())
    assert (not_none(found.status()).model, server.made) == ("models:/screws/2", [])


def test_a_registry_that_refuses_the_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Registry()
    monkeypatch.setattr(server, "create_registered_model", refused)
    with pytest.raises(TrackingDenied, match="not allowed"):
        started(server, register_model="screws").finish(with_model())
    assert the_run(server).status == "FAILED"
