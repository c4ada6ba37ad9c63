"""``anomaly-runner pod`` as the container runs it, with a real S3 server and a real MLflow server on loopback."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.inference import InferenceSpec
from anomaly_api.reasons import ExitCode, Reason
from anomaly_api.run import RunConfig, RunIdentity, RunReport, RunSummary, s3_env
from anomaly_api.storage import LocationRole
from anomaly_operator.decide.pod import GRACE_SECONDS
from support.mlflow_server import mlflow_server
from support.optional import not_none
from support.process import free_port
from support.s3_server import KEY, SECRET, needs_s3_server, s3_server
from support.server_process import ServerProcess
from support.textures import EXPERIMENT, INFERENCE, write_textures

pytestmark = [needs_s3_server, pytest.mark.slow]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an S3 server with the buckets data (textures in it) and results."""
    root = tmp_path_factory.mktemp("s3")
    for bucket in ("data", "results", "empty"):
        (root / bucket).mkdir()
    write_textures(root / "data/textures", train=12, good=10, defects=10)
    with s3_server(root) as url:
        yield url


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an MLflow server."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), free_port()) as url:
        yield url


Spec = dict[str, Any]


class Pod:
    """The files, environment and process of one container."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self.folder = folder
        self._config = folder / "run.json"
        self._config.write_text(config.model_dump_json(by_alias=True, exclude_none=True))
        self._termination = folder / "termination"
        credentials = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        self.environment = {s3_env(role, name): value for role in LocationRole for name, value in credentials.items()}

    def start(self) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "anomaly_runner",
            "pod",
            "--config",
            str(self._config),
            "--work",
            str(self.folder / "work"),
            "--termination",
            str(self._termination),
        ]
        return subprocess.Popen(command, env=os.environ | self.environment, stderr=subprocess.PIPE, text=True)

    def run(self) -> tuple[int, RunSummary, str]:
        process = self.start()
        log = process.communicate(timeout=300)[1]
        return process.returncode, self.summary(), log

    def summary(self) -> RunSummary:
        assert self._termination.stat().st_size <= 4096
        return RunSummary.model_validate_json(self._termination.read_text())


class MakePod(Protocol):
    """Makes a pod for a manifest whose spec ``change`` has changed."""

    def __call__(self, text: str, uid: str, change: Callable[[Spec], None] | None = None) -> Pod: ...


@pytest.fixture
def pod(tmp_path: Path, s3: str) -> MakePod:
    """Factory of pods that all use the same storage."""
    count = iter(range(100))

    def make(text: str, uid: str, change: Callable[[Spec], None] | None = None) -> Pod:
        document = yaml.safe_load(text)
        spec = document["spec"] | {"scheduling": {"gpus": {"count": 0}}}
        for location in (
            spec.get("dataset", spec.get("input"))["source"],
            spec["output"],
            spec["model"].get("location"),
        ):
            if location:
                location["s3"] |= {"endpoint": s3, "region": "us-east-1"}
        if change:
            change(spec)
        run = RunIdentity(kind=document["kind"], namespace="factory", name=document["metadata"]["name"], uid=uid)
        folder = tmp_path / str(next(count))
        folder.mkdir()
        if document["kind"] == "AnomalyExperiment":
            return Pod(folder, RunConfig(run=run, experiment=ExperimentSpec.model_validate(spec)))
        return Pod(folder, RunConfig(run=run, inference=InferenceSpec.model_validate(spec)))

    return make


def objects(s3: str, prefix: str) -> dict[str, bytes]:
    """Return the contents of the objects below a prefix of the bucket results."""
    import boto3

    client = boto3.client(
        "s3", endpoint_url=s3, region_name="us-east-1", aws_access_key_id=KEY, aws_secret_access_key=SECRET
    )
    found = client.list_objects_v2(Bucket="results", Prefix=prefix).get("Contents", [])
    return {
        item["Key"].removeprefix(prefix): client.get_object(Bucket="results", Key=item["Key"])["Body"].read()
        for item in found
    }


def tracked(uri: str) -> Callable[[Spec], None]:
    def change(spec: Spec) -> None:
        spec["tracking"] = {"mlflow": {"trackingUri": uri, "experimentName": "lab"}}

    return change


def mlflow_get(uri: str, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{uri}/api/2.0/mlflow/{path}") as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def test_experiment_and_inference(pod: MakePod, s3: str, mlflow: str) -> None:
    code, summary, log = pod(EXPERIMENT, "e1", tracked(mlflow)).run()
    assert code == 0, log
    assert summary.reason is Reason.COMPLETE
    assert not_none(summary.artifacts).root == "s3://results/factory/textures/e1"
    files = objects(s3, "factory/textures/e1/")
    assert {"report.json", "model.json", "model.onnx", "predictions.parquet", "predictions.csv"} <= set(files)
    assert sum(name.startswith("visualizations/") for name in files) == 21
    report = RunReport.model_validate_json(files["report.json"])
    assert report.summary.metrics == summary.metrics
    assert all(isinstance(json.loads(line), dict) for line in log.splitlines())
    assert SECRET not in log

    run = mlflow_get(mlflow, f"runs/get?run_id={not_none(summary.mlflow).run_id}")["run"]
    metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert run["info"]["status"] == "FINISHED"
    assert metrics["image_AUROC"] == not_none(summary.metrics).image["AUROC"]
    assert {"key": "anomalyops.io/uid", "value": "e1"} in run["data"]["tags"]
    assert SECRET not in json.dumps(run)
    listed = mlflow_get(mlflow, f"artifacts/list?run_id={not_none(summary.mlflow).run_id}")["files"]
    assert {"model", "report.json", "visualizations"} <= {file["path"] for file in listed}

    def published_model(spec: Spec) -> None:
        spec["model"] = {
            "location": {"s3": {"uri": not_none(summary.artifacts).root, "endpoint": s3, "region": "us-east-1"}}
        }

    code, looked, log = pod(INFERENCE, "i1", published_model).run()
    assert code == 0, log
    assert not_none(looked.metrics).image["AUROC"] == not_none(summary.metrics).image["AUROC"]
    assert not_none(looked.images).predicted == not_none(summary.images).predicted


def test_a_pod_whose_predecessor_finished_only_reports_again(pod: MakePod, s3: str) -> None:
    first = pod(EXPERIMENT, "e2").run()
    second = pod(EXPERIMENT, "e2").run()
    assert second[0] == 0
    assert second[1] == first[1]
    assert "train" not in [json.loads(line).get("stage") for line in second[2].splitlines()]


def test_tracking_that_is_down_loses_nothing_and_is_caught_up_by_a_retry(pod: MakePod, s3: str, mlflow: str) -> None:
    """The retried pod finds the server back at the same address, where a proxy forwards to a real one."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    code, summary, log = pod(EXPERIMENT, "e3", tracked(nowhere)).run()
    assert code == ExitCode.TRACKING_UNAVAILABLE, log
    assert summary.reason is Reason.TRACKING_UNAVAILABLE
    assert summary.metrics is not None
    assert "report.json" in objects(s3, "factory/textures/e3/")

    port = int(nowhere.rsplit(":", 1)[1])
    with forwarded(port, mlflow):
        code, summary, log = pod(EXPERIMENT, "e3", tracked(nowhere)).run()
    assert code == 0, log
    assert summary.mlflow is not None
    assert "train" not in [json.loads(line).get("stage") for line in log.splitlines()]


FORWARD = """
import asyncio, sys
async def copy(r, w):
    while data := await r.read(65536):
        w.write(data); await w.drain()
    w.close()
async def serve(r, w):
    r2, w2 = await asyncio.open_connection('127.0.0.1', int(sys.argv[2]))
    await asyncio.gather(copy(r, w2), copy(r2, w), return_exceptions=True)
async def main():
    async with await asyncio.start_server(serve, '127.0.0.1', int(sys.argv[1])) as s:
        await s.serve_forever()
asyncio.run(main())
"""


@contextmanager
def forwarded(port: int, url: str) -> Iterator[None]:
    """Forward a port to a server while the context lasts."""
    command = [sys.executable, "-c", FORWARD, str(port), url.rsplit(":", 1)[1]]
    with ServerProcess(command, f"http://127.0.0.1:{port}"):
        yield


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("wrong key", ExitCode.STORAGE_DENIED, "refused access to s3://results"),
        ("wrong data key", ExitCode.STORAGE_DENIED, "refused access to s3://data/textures"),
        ("no bucket", ExitCode.DATA_INVALID, "s3://nothing-here: the bucket does not exist|nothing-here"),
        ("empty prefix", ExitCode.DATA_INVALID, "no images below s3://empty/textures: expected train/good"),
        ("no server", ExitCode.STORAGE_UNAVAILABLE, "does not answer"),
        ("no weights", ExitCode.WEIGHTS_NOT_FOUND, "s3://empty/hub/models--timm--resnet18.a1_in1k/snapshots"),
    ],
)
def test_storage_failures_say_what_to_do(pod: MakePod, s3: str, name: str, code: ExitCode, message: str) -> None:
    def change(spec: Spec) -> None:
        if name == "no bucket":
            spec["dataset"]["source"]["s3"]["uri"] = "s3://nothing-here"
        if name == "empty prefix":
            spec["dataset"]["source"]["s3"]["uri"] = "s3://empty"
        if name == "no server":
            spec["dataset"]["source"]["s3"]["endpoint"] = f"http://127.0.0.1:{free_port()}"
        if name == "no weights":
            spec["model"]["padim"]["preTrained"] = True
            spec["model"]["weights"] = {"s3": {"uri": "s3://empty", "endpoint": s3, "region": "us-east-1"}}

    failing = pod(EXPERIMENT, f"f-{name.replace(' ', '-')}", change)
    if name == "wrong key":
        failing.environment |= {s3_env(role, "AWS_ACCESS_KEY_ID"): "stranger" for role in LocationRole}
    if name == "wrong data key":
        failing.environment[s3_env(LocationRole.DATASET, "AWS_SECRET_ACCESS_KEY")] = "wrong"
    found, summary, log = failing.run()
    assert found == code, log
    assert summary.reason is code.reason
    assert any(part in summary.message for part in message.split("|")), summary.message
    assert SECRET not in log


def test_sigterm_stops_promptly_and_publishes_nothing(pod: MakePod, s3: str) -> None:
    def slow(spec: Spec) -> None:
        spec["transforms"]["inputSize"] = {"height": 512, "width": 512}

    stopped = pod(EXPERIMENT, "e4", slow)
    process = stopped.start()
    assert process.stderr is not None
    for line in process.stderr:
        if json.loads(line).get("stage") == "train":
            break
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    process.communicate(timeout=GRACE_SECONDS)
    assert time.monotonic() - began < GRACE_SECONDS / 2
    assert process.returncode == ExitCode.STOPPED
    assert stopped.summary().reason is Reason.PREEMPTED
    assert objects(s3, "factory/textures/e4/") == {}
