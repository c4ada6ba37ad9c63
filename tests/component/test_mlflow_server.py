"""The MLflow tracker against MLflow's own server: metrics, dataset, model and registry, retries and outages."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from anomaly_api.artifacts import MlflowTracking
from anomaly_api.model import Model
from anomaly_api.run import ExportedModel, ModelManifest, RunIdentity, RunReport
from anomaly_api.status import ThresholdValues
from anomaly_runner.exporting.onnx_writer import write_onnx
from anomaly_runner.local import run_locally
from anomaly_runner.system.digest import digest
from anomaly_runner.tracking.mlflow_tracker import MlflowTracker, mlflow_target
from anomaly_runner.tracking.tracker import MODEL_FOLDER, TrackedDataset, TrackedResult
from support.mlflow_server import mlflow_server
from support.model_manifests import model_manifest
from support.optional import not_none
from support.process import free_port
from support.textures import EXPERIMENT, Document, write_manifest

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of mlflow's own libraries

RUN = RunIdentity(kind="AnomalyExperiment", namespace="factory", name="screws", uid="0-1")
HISTORY = {"trainLoss": ((10, 0.5), (20, 0.25)), "imageAUROC": ((20, 0.75),)}
DATASET = TrackedDataset(
    name="screws",
    digest="ab" * 32,
    kind="s3",
    uri="s3://data/screws",
    images={"train": 8, "predicted": 4},
    context="training",
)


Point = tuple[str, int, float]
"""Name, step and value."""


class Brightness(nn.Module):
    """A model with the outputs of our exports: scores and maps."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = images.mean(1, keepdim=True)
        return maps.amax((1, 2, 3)), maps


@pytest.fixture
def tracked_result(tmp_path: Path) -> TrackedResult:
    """The result of a run with a trained model."""
    write_onnx(Brightness().eval(), torch.zeros(2, 3, 16, 24), tmp_path)
    file = tmp_path / "model.onnx"
    manifest = model_manifest(
        RUN,
        input_height=16,
        input_width=24,
        normalization="imagenet",
        exports=(ExportedModel(format="onnx", file=file.name, sha256=digest(file)),),
        thresholds=ThresholdValues(image=1.0),
        score_normalization="minMax",
        task="segmentation",
        definition=Model(name="padim"),
    )
    (tmp_path / "model.json").write_text(manifest.model_dump_json(by_alias=True))
    files = [(MODEL_FOLDER, file), (MODEL_FOLDER, tmp_path / "model.json")]
    return TrackedResult(
        metrics={"image_AUROC": 0.875}, artifacts=tuple(files), history=HISTORY, dataset=DATASET, model=manifest
    )


def tracker(server: str, register: str | None = None, uid: str = "0-1", number: int | None = None) -> MlflowTracker:
    spec = MlflowTracking(tracking_uri=server, register_model=register)
    return MlflowTracker(mlflow_target(RUN.model_copy(update={"uid": uid, "number": number}), spec, None))


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_metrics_are_logged_during_the_training_and_only_once(
    server: str, client: "MlflowClient", tracked_result: TrackedResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anomaly_runner.tracking.mlflow_tracker._FLUSH_SECONDS", 0.05)
    found = tracker(server, uid="live")
    found.start({"seed": "1"})
    found.log_metrics(10, {"trainLoss": 0.5})
    wait_for(lambda: found.status() and client.get_metric_history(not_none(found.status()).run_id, "trainLoss"))
    run_id = not_none(found.status()).run_id
    assert client.get_run(run_id).info.status == "RUNNING"
    found.finish(tracked_result)
    losses = client.get_metric_history(run_id, "trainLoss")
    assert [(point.step, point.value) for point in losses] == [(10, 0.5), (20, 0.25)]
    assert [point.value for point in client.get_metric_history(run_id, "imageAUROC")] == [0.75]
    run = client.get_run(run_id)
    assert (run.info.status, run.data.metrics["image_AUROC"], run.data.params) == ("FINISHED", 0.875, {"seed": "1"})


def test_the_images_are_logged_as_a_dataset_with_their_digest(
    server: str, client: "MlflowClient", tracked_result: TrackedResult
) -> None:
    found = tracker(server, uid="images")
    found.start({})
    found.finish(tracked_result)
    [entry] = client.get_run(not_none(found.status()).run_id).inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.source_type) == ("screws", "s3")
    assert json.loads(entry.dataset.source) == {"uri": "s3://data/screws"}
    assert json.loads(entry.dataset.profile) == {"images": {"train": 8, "predicted": 4}, "sha256": "ab" * 32}
    assert entry.dataset.digest * 2 == "ab" * 32
    assert {tag.key: tag.value for tag in entry.tags} == {"mlflow.data.context": "training"}


def test_later_runs_of_a_resource_are_runs_of_their_own(
    server: str, client: "MlflowClient", tracked_result: TrackedResult
) -> None:
    ids = []
    for number, seed in ((None, "1"), (None, "1"), (2, "2"), (2, "2"), (3, "3")):  # MLflow lets no parameter change
        found = tracker(server, uid="again", number=number)
        found.start({"seed": seed})
        found.finish(tracked_result)
        ids.append(not_none(found.status()).run_id)
    assert (ids[0], ids[2]) == (ids[1], ids[3]), "a retried pod goes on with its run"
    assert len(set(ids)) == 3
    runs = [client.get_run(run_id).data for run_id in (ids[0], ids[2], ids[4])]
    assert [run.params["seed"] for run in runs] == ["1", "2", "3"]
    assert [run.tags["anomalyops.io/run"] for run in runs] == ["1", "2", "3"]


def test_a_registered_model_runs_in_mlflow_alone_and_is_registered_once(
    server: str, client: "MlflowClient", tracked_result: TrackedResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):  # a retried pod
        found = tracker(server, "screws", uid="registered")
        found.start({})
        found.finish(tracked_result)
    assert not_none(found.status()).model == "models:/screws/1"
    [version] = client.search_model_versions("name = 'screws'")
    assert (version.run_id, version.status) == (not_none(found.status()).run_id, "READY")
    assert version.tags["anomalyops.io/uid"] == "registered"

    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    model = mlflow.pyfunc.load_model("models:/screws/1")
    assert [item.name for item in model.metadata.signature.outputs.inputs] == ["pred_score", "anomaly_map"]
    images = np.random.default_rng(0).random((5, 3, 16, 24), np.float32)
    answer = model.predict(images)
    assert np.asarray(answer["pred_score"]) == pytest.approx(images.mean(1).max((1, 2)), rel=1e-6)
    path = Path(mlflow.artifacts.download_artifacts("models:/screws/1"))
    assert ModelManifest.model_validate_json((path / "model.json").read_bytes()) == tracked_result.model


def test_a_second_run_registers_a_second_version(server: str, tracked_result: TrackedResult) -> None:
    found = [tracker(server, "bolts", uid=uid) for uid in ("bolts-1", "bolts-2")]
    for one in found:
        one.start({})
        one.finish(tracked_result)
    assert [not_none(one.status()).model for one in found] == ["models:/bolts/1", "models:/bolts/2"]


def test_a_server_that_is_down_during_the_training_delays_nothing_and_gets_all_metrics_later(
    tmp_path: Path, tracked_result: TrackedResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server comes back at the same address when the run has ended."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")  # for the restarted server on a busy machine
    port = free_port()
    found = tracker(f"http://127.0.0.1:{port}", "late", uid="late")
    began, worked = time.perf_counter(), time.thread_time()
    found.start({"seed": "1"})
    for step in range(100):
        found.log_metrics(step, {"trainLoss": 1 / (step + 1)})
    assert time.thread_time() - worked < 0.1
    assert time.perf_counter() - began < 2, "on a busy machine; it is waited for in the background"
    (tmp_path / "server").mkdir()
    with mlflow_server(tmp_path / "server", port) as url:
        found.finish(tracked_result)

        from mlflow.tracking import MlflowClient

        client = MlflowClient(url)
        steps = [point.step for point in client.get_metric_history(not_none(found.status()).run_id, "trainLoss")]
        assert sorted(steps) == list(range(100))
        assert not_none(found.status()).model == "models:/late/1"
        assert client.get_run(not_none(found.status()).run_id).data.params == {"seed": "1"}


def test_a_training_by_gradient_is_logged_after_each_epoch(textures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomaly_runner.tracking.mlflow_tracker._FLUSH_SECONDS", 0.05)
    brought: list[Point] = []
    log_points = MlflowTracker._log_points

    def log(self: MlflowTracker, run: str, points: Sequence[Point]) -> None:
        brought.extend(points)
        log_points(self, run, points)

    monkeypatch.setattr(MlflowTracker, "_log_points", log)

    def change(document: Document) -> None:
        document["spec"]["model"] = {"name": "fastflow", "fastflow": {"backbone": "resnet18", "preTrained": False}}
        document["spec"]["training"] = {"maxEpochs": 3, "trainBatchSize": 4}
        document["spec"]["tracking"] = {"mlflow": {"trackingUri": "http://nowhere:5000"}}

    assert run_locally(write_manifest(textures, EXPERIMENT, change), textures) == 0
    report = RunReport.model_validate_json((textures / "results/factory/textures/local/report.json").read_bytes())
    told = [point for point in brought if point[0] == "trainLoss"]
    assert told == [("trainLoss", step, value) for step, value in not_none(report.training).history["trainLoss"]]
    assert [step for _, step, _ in told] == [2, 4, 6]
