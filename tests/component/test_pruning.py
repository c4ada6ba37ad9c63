"""A run whose training is ended by the operator's answer to its progress: a real training and a real server."""

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from anomaly_api import GROUP
from anomaly_api.reasons import ExitCode, Reason
from anomaly_api.run import ProgressUpdate, RunConfig, RunReport
from anomaly_api.status import Stage
from anomaly_runner import progress as progress_module
from anomaly_runner.context import Context, RunRecord
from anomaly_runner.engine import execute
from anomaly_runner.local import print_report
from anomaly_runner.locations import local_stores
from anomaly_runner.manifests import read_resource
from anomaly_runner.progress import ProgressMeter, PushReporter
from anomaly_runner.system.stop import StopSignal
from anomaly_runner.termination import FinishedRun, capture_failures
from anomaly_runner.tracking.run_results import tracked_result
from anomaly_runner.tracking.tracker import NoTracker
from support.http_server import serving
from support.optional import not_none
from support.textures import EXPERIMENT, write_manifest, write_textures

MODEL = {"name": "fastflow", "fastflow": {"backbone": "resnet18", "preTrained": False, "flowSteps": 1}}
MANY = 2000
"""Epochs that would take minutes."""


class Operator(BaseHTTPRequestHandler):
    """Ends a training as soon as its curve has two points; is away for the first time that it would."""

    pushed: list[ProgressUpdate]
    chances: int

    def do_POST(self) -> None:
        update = ProgressUpdate.model_validate_json(self.rfile.read(int(self.headers["Content-Length"])))
        self.pushed.append(update)
        if update.curve is None or len(update.curve.points) < 2:
            self.send_response(204)
            self.end_headers()
            return
        type(self).chances += 1
        if self.chances > 1:  # the first answer is lost: the connection closes
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"stop": "Pruned", "message": "0.5 is below the median 0.9"}).encode())

    def log_message(self, *arguments: object) -> None:
        pass


def short_training(document: dict[str, Any]) -> None:
    training = {"maxEpochs": MANY, "trainBatchSize": 8, "checkValEveryNEpoch": 1, "earlyStopping": {"enabled": False}}
    transforms = {"inputSize": {"height": 32, "width": 32}}
    scheduling = {"gpus": {"count": 0}}
    document["spec"] |= {"model": MODEL, "training": training, "transforms": transforms, "scheduling": scheduling}


def config_of(folder: Path) -> RunConfig:
    """The config of a run that is not a local one, so that another pod may follow."""
    config = read_resource(write_manifest(folder, EXPERIMENT, short_training), folder)
    return config.model_copy(update={"run": config.run.model_copy(update={"uid": "1234"})})


def run_beside(url: str, folder: Path) -> FinishedRun:
    config, record = config_of(folder), RunRecord()
    (folder / "token").write_text("t")
    work = folder / "work"
    work.mkdir(exist_ok=True)
    reporter = PushReporter(
        url,
        folder / "token",
        config.run,
        lambda: None,
        lambda: record.device,
        curve=lambda: record.curve,
        prune=record.prune,
    )
    with ProgressMeter([reporter]) as progress:
        context = Context(
            run=config.run,
            stores=local_stores(folder, config),
            work=work,
            progress=progress,
            stop=StopSignal(),
            tracker=NoTracker(),
            record=record,
        )
        return capture_failures(lambda: execute(config, context), context)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pruning")
    write_textures(made / "data/textures")
    return made


@pytest.fixture(scope="module")
def handler() -> type[Operator]:
    return type("Recorded", (Operator,), {"pushed": [], "chances": 0})


@pytest.fixture(scope="module")
def finished(folder: Path, handler: type[Operator]) -> FinishedRun:
    with pytest.MonkeyPatch.context() as patched, serving(handler) as url:
        patched.setattr(progress_module, "_PUSH_SECONDS", 0.02)
        return run_beside(f"{url}/v1/progress", folder)


@pytest.mark.slow
def test_a_pruned_run_is_complete_with_that_reason(finished: FinishedRun) -> None:
    summary = finished.summary
    assert (finished.exit_code, summary.reason, summary.stage) == (ExitCode.DONE, Reason.PRUNED, Stage.TRAIN)
    training = not_none(not_none(finished.report).training)
    assert 2 <= training.epochs < MANY
    assert training.pruned == "0.5 is below the median 0.9"
    assert summary.message == f"the training was ended after {training.epochs} epochs: 0.5 is below the median 0.9"


@pytest.mark.slow
def test_the_operator_saw_the_curve_grow(finished: FinishedRun, handler: type[Operator]) -> None:
    lengths = [len(update.curve.points) if update.curve else 0 for update in handler.pushed]
    assert lengths == sorted(lengths)
    assert handler.chances >= 2
    assert not_none(handler.pushed[-1].curve).metric == "imageAUROC"
    assert handler.pushed[-1].stage is Stage.DONE


@pytest.mark.slow
def test_its_report_has_the_curve_and_no_model(finished: FinishedRun, folder: Path) -> None:
    results = folder / "results/factory/textures/1234"
    assert [path.name for path in results.rglob("*") if path.is_file()] == ["report.json"]
    report = RunReport.model_validate_json((results / "report.json").read_bytes())
    assert report.summary == finished.summary
    curve, history = not_none(report.summary.curve), not_none(report.training).history["imageAUROC"]
    assert curve.epochs[-1] == not_none(report.training).epochs
    assert curve.values[-1] == pytest.approx(history[-1][1], abs=1e-6)
    assert len(curve.points) <= 32
    artifacts, metrics = not_none(report.summary.artifacts), not_none(report.summary.metrics)
    assert (artifacts.report, artifacts.model, artifacts.html) == (f"{artifacts.root}/report.json", None, None)
    assert (metrics.image, metrics.pixel) == ({}, {})
    assert metrics.performance["trainSeconds"] == report.seconds["train"]
    assert not_none(report.summary.images).train == 8
    assert report.dataset.startswith("MVTec AD: 8 good to learn from")


@pytest.mark.slow
def test_another_pod_has_nothing_to_do(finished: FinishedRun, folder: Path) -> None:
    again = run_beside("http://127.0.0.1:9/v1/progress", folder)
    assert again.exit_code is ExitCode.DONE
    assert again.summary == finished.summary


@pytest.mark.slow
def test_the_tracker_and_the_terminal_say_so(finished: FinishedRun, capsys: pytest.CaptureFixture[str]) -> None:
    report = not_none(finished.report)
    tracked = tracked_result(report, Path("/nowhere"), complete=False)
    assert not tracked.failed
    assert tracked.tags[f"{GROUP}/pruned"] == report.summary.message
    assert f"{GROUP}/failure" not in tracked.tags
    assert tracked.history == not_none(report.training).history
    print_report(report, Console(width=200))
    assert f"Pruned: {report.summary.message}" in capsys.readouterr().out
