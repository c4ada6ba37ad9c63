"""A run in a pod, from its mounted config to its exit code, with the work itself played."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anomaly_api.run import RunConfig, RunSummary
from anomaly_api.status import Curve, Device, Stage
from anomaly_api.storage import LocationRole
from anomaly_runner import in_cluster
from anomaly_runner.context import Context, RunRecord
from anomaly_runner.errors import RunFailed, Stopped, StorageDenied
from anomaly_runner.preflight.checked import Checked
from anomaly_runner.progress import LogReporter
from anomaly_runner.storage import FolderStore
from support import objects
from support.contexts import RUN

CONFIG = RunConfig.model_validate({"run": RUN, "experiment": objects.EXPERIMENT["spec"]})
URL = "http://operator:8080/v1/progress"
DONE = Checked(RunSummary(reason="Complete", stage=Stage.CHECK), {})

Work = Callable[[RunConfig, Context], Checked]


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders of a pod: its config, and a store for its output."""
    (tmp_path / "run.json").write_text(json.dumps(CONFIG.to_json_object()))
    stores = {LocationRole.OUTPUT: FolderStore(tmp_path / "output")}
    monkeypatch.setattr(in_cluster, "pod_stores", lambda _: stores)
    monkeypatch.delenv("HF_HOME", raising=False)
    return tmp_path


def run(pod: Path, monkeypatch: pytest.MonkeyPatch, work: Work) -> tuple[int, dict[str, Any]]:
    """Exit code and termination message of a pod that does this."""
    monkeypatch.setattr(in_cluster, "execute", work)
    code = in_cluster.run_in_pod(pod / "run.json", pod / "work", pod / "end", {})
    return code, json.loads((pod / "end").read_text())


def test_the_work_gets_what_the_pod_has(pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def work(config: RunConfig, context: Context) -> Checked:
        seen.append((config, context.run, context.work, context.work.is_dir(), *context.stores))
        seen.append(os.environ["HF_HOME"])
        return DONE

    code, told = run(pod, monkeypatch, work)
    assert (code, told["reason"]) == (0, "Complete")
    assert seen == [(CONFIG, RUN, pod / "work", True, LocationRole.OUTPUT), str(pod / "work/huggingface")]


def test_the_users_own_cache_of_the_hub_is_kept(pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "/own")
    run(pod, monkeypatch, lambda *_: DONE)
    assert os.environ["HF_HOME"] == "/own"


@pytest.mark.parametrize(("error", "code"), [(StorageDenied("403"), 12), (Stopped(), 143), (OSError("no"), 1)])
def test_a_failure_is_the_exit_code_and_the_message(
    error: Exception, code: int, pod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(_: RunConfig, context: Context) -> Checked:
        context.progress.enter(Stage.FETCH, 3, "images")
        raise error

    found, told = run(pod, monkeypatch, work)
    assert (found, told["stage"]) == (code, "fetch")
    assert told["reason"] == (error.reason.value if isinstance(error, RunFailed) else "InternalError")
    assert str(error) in told["message"]


@pytest.mark.parametrize("content", [None, "{}"], ids=["missing", "of another version"])
def test_a_config_that_cannot_be_read_is_told(
    content: str | None, pod: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (pod / "run.json").unlink()
    if content is not None:
        (pod / "run.json").write_text(content)
    code, told = run(pod, monkeypatch, lambda *_: DONE)
    assert (code, told["reason"], told["stage"]) == (10, "InvalidConfig", "starting")
    assert str(pod / "run.json") in told["message"]
    assert [record.levelno for record in caplog.records if record.message == "run failed"] == [logging.ERROR]


def test_progress_is_pushed_where_there_is_somebody_to_push_it_to(pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushers: list[Any] = []

    class Pusher:
        def __init__(self, *given: Any, **more: Any) -> None:
            pushers.append((given, more))

        def close(self) -> None:
            """Nothing to release."""

        def report(self, *_: Any) -> None:
            """Nobody looks."""

    monkeypatch.setattr(in_cluster, "PushReporter", Pusher)
    tracker, record = in_cluster.tracker_of(CONFIG, None), RunRecord()
    (alone,) = in_cluster._reporters(CONFIG, tracker, record, {})
    assert isinstance(alone, LogReporter)
    first, second = in_cluster._reporters(CONFIG, tracker, record, {"ANOMALY_PROGRESS_URL": URL})
    assert (type(first), type(second)) == (LogReporter, Pusher)
    ((url, token, run_of, mlflow, device), more) = pushers[0]
    assert (url, token, run_of) == (URL, Path("/var/run/secrets/anomalyops.io/token"), RUN)
    assert (mlflow(), device(), more["curve"]()) == (None, None, None)
    record.device = Device(name="CPU", provider="torch cpu")
    record.curve = Curve(metric="trainLoss", epochs=(1,), values=(0.5,))
    assert (device(), more["curve"]()) == (record.device, record.curve)
    more["prune"]("others are better")
    assert record.pruned == "others are better"
