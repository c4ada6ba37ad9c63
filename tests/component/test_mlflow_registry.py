"""Inference with a registered model, against MLflow's own server: versions, credentials and failures."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet
import pytest

from anomaly_api.inference import InferenceSpec
from anomaly_api.run import MLFLOW_SECRET_KEYS, RunConfig, RunIdentity, RunReport
from anomaly_api.storage import LocationRole
from anomaly_runner.context import Context, RunRecord
from anomaly_runner.engine import execute
from anomaly_runner.errors import DataInvalid, ModelInvalid, StorageDenied, StorageUnavailable
from anomaly_runner.in_cluster import tracker_of
from anomaly_runner.local import run_locally
from anomaly_runner.locations import local_stores, pod_stores
from anomaly_runner.manifests import read_resource
from anomaly_runner.progress import ProgressMeter
from anomaly_runner.scoring.trained_model import read_model_manifest
from anomaly_runner.storage import ObjectInfo
from anomaly_runner.system.stop import StopSignal
from anomaly_runner.termination import FinishedRun, capture_failures
from anomaly_runner.tracking.mlflow_registry import RegisteredModelStore, open_registered_model
from support.auth_proxy import auth_proxy
from support.optional import not_none
from support.process import free_port
from support.textures import EXPERIMENT, INFERENCE, Change, Document, write_manifest, write_textures

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of mlflow's own libraries

ENVIRONMENT = {"ANOMALY_MODEL_MLFLOW_TRACKING_USERNAME": "robot", "ANOMALY_MODEL_MLFLOW_TRACKING_PASSWORD": "secret"}


def run_resource(folder: Path, text: str, change: Change | None) -> FinishedRun:
    """Execute a resource on local folders, but with MLflow's server as in a pod."""
    config = read_resource(write_manifest(folder, text, change), folder)
    stores = local_stores(folder, config)
    if isinstance(config.spec, InferenceSpec) and config.spec.model.mlflow:
        stores[LocationRole.MODEL] = open_registered_model(config.spec, config.spec.model.mlflow, {}, None)
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    with ProgressMeter([]) as progress:
        context = Context(
            run=config.run,
            stores=stores,
            work=work,
            progress=progress,
            stop=StopSignal(),
            tracker=tracker_of(config, None),
            record=RunRecord(),
        )
        return capture_failures(lambda: execute(config, context), context)


def change_to_registered_experiment(name: str, features: int, server: str) -> Change:
    def change(document: Document) -> None:
        document["metadata"]["name"] = name
        document["spec"]["model"]["padim"]["nFeatures"] = features
        document["spec"]["output"]["keepCheckpoint"] = True
        document["spec"]["tracking"] = {"mlflow": {"trackingUri": server, "registerModel": "gravel"}}

    return change


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, server: str, client: "MlflowClient") -> Path:
    """A folder in which two experiments have run and have registered versions 1 and 2 of gravel."""
    folder = tmp_path_factory.mktemp("trained")
    write_textures(folder / "data" / "textures")
    for version, (name, features) in enumerate((("small", 10), ("large", 20)), 1):
        ending = run_resource(folder, EXPERIMENT, change_to_registered_experiment(name, features, server))
        assert ending.exit_code == 0, ending.summary
        assert not_none(ending.summary.mlflow).model == f"models:/gravel/{version}"
    client.set_registered_model_alias("gravel", "champion", "1")
    return folder


def run_inference(
    folder: Path, name: str, model: dict[str, Any], runtime: str = "onnx", tracking: dict[str, Any] | None = None
) -> tuple[FinishedRun, dict[str, tuple[float, bool]]]:
    """Run an inference, and return its outcome and its (score, decision) by path."""

    def change(document: Document) -> None:
        document["metadata"]["name"] = name
        document["spec"] |= {"model": model, "runtime": runtime, "tracking": tracking or {}}

    ending = run_resource(folder, INFERENCE, change)
    assert ending.exit_code == 0, ending.summary
    table = pyarrow.parquet.read_table(folder / "results/factory" / name / "local/predictions.parquet").to_pylist()
    return ending, {row["path"]: (row["score"], row["anomalous"]) for row in table}


@pytest.mark.parametrize(
    ("which", "runtime", "version"),
    [({}, "onnx", 2), ({"version": 1}, "onnx", 1), ({"alias": "champion"}, "onnx", 1), ({"version": 2}, "torch", 2)],
    ids=["newest", "version", "alias", "torch"],
)
def test_a_registered_model_gives_the_scores_of_its_experiment(
    trained: Path, client: "MlflowClient", which: dict[str, Any], runtime: str, version: int
) -> None:
    server, experiment = client.tracking_uri, {1: "small", 2: "large"}[version]
    tracking = {"mlflow": {"trackingUri": server}}
    ending, scores = run_inference(trained, "registered", {"mlflow": {"name": "gravel"} | which}, runtime, tracking)
    assert scores == run_inference(trained, "by-name", {"experiment": experiment}, runtime)[1]
    assert len(scores) == 10
    assert not_none(ending.report).environment["model"] == f"models:/gravel/{version}"
    tags = client.get_run(not_none(ending.summary.mlflow).run_id).data.tags
    assert tags["anomalyops.io/model"] == f"models:/gravel/{version}"
    device, trained_by = not_none(ending.summary.device), not_none(ending.summary.trained_by)
    assert tags["anomalyops.io/device.provider"] == device.provider
    assert tags["anomalyops.io/device.name"] == device.name
    assert trained_by.name == experiment
    assert (tags["anomalyops.io/trainedBy.name"], tags["anomalyops.io/trainedBy.run"]) == (experiment, "1")
    assert tags["anomalyops.io/trainedBy.modelDigest"] == trained_by.model_digest
    written = trained / "results/factory" / experiment / "local/model.json"
    assert trained_by.model_digest == hashlib.sha256(written.read_bytes()).hexdigest()


def test_versions_differ(trained: Path) -> None:
    scores = [run_inference(trained, name, {"experiment": name})[1] for name in ("small", "large")]
    assert scores[0] != scores[1]


def spec_of(server: str, tracking: dict[str, Any] | None = None, **model: Any) -> InferenceSpec:
    return InferenceSpec.model_validate(
        {
            "model": {"mlflow": {"name": "gravel", "trackingUri": server} | model},
            "input": {"source": {"s3": {"uri": "s3://data"}}},
            "output": {"s3": {"uri": "s3://results"}},
            "tracking": {"mlflow": tracking},
        }
    )


def open_store(server: str, environment: Mapping[str, str] | None = None, **model: Any) -> RegisteredModelStore:
    return store_of(spec_of(server, **model), environment or {})


def store_of(spec: InferenceSpec, environment: Mapping[str, str]) -> RegisteredModelStore:
    assert spec.model.mlflow is not None
    return open_registered_model(spec, spec.model.mlflow, environment, None)


def test_files_are_listed_and_read(trained: Path, server: str, tmp_path: Path) -> None:
    found = open_store(server, version=1)
    assert found.uri == "models:/gravel/1"
    names = [info.key for info in found.list()]
    assert names == sorted(names)
    assert {"MLmodel", "model.json", "model.onnx", "model.safetensors"} <= set(names)
    published = trained / "results/factory/small/local"
    [onnx] = found.list("model.onnx")
    assert onnx.size == (published / "model.onnx").stat().st_size
    found.download(onnx, tmp_path / "new" / "model.onnx")
    assert (tmp_path / "new" / "model.onnx").read_bytes() == (published / "model.onnx").read_bytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.onnx"]
    assert found.read("model.json") == (published / "model.json").read_bytes()
    assert found.read("nothing.json") is None
    with pytest.raises(DataInvalid, match="leads out of the folder"):
        found.download(ObjectInfo("../model.json", 1, "x"), tmp_path / "x")


def test_the_resolved_version_is_kept(trained: Path, server: str, client: "MlflowClient") -> None:
    found = open_store(server, alias="moving")
    client.set_registered_model_alias("gravel", "moving", "1")
    assert found.uri == "models:/gravel/1"
    client.set_registered_model_alias("gravel", "moving", "2")
    assert found.uri == "models:/gravel/1"
    assert open_store(server, alias="moving").uri == "models:/gravel/2"


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ({"name": "sand"}, "there is no version of a registered model sand at http://127"),
        ({"name": "sa'nd"}, "there is no version of a registered model sa'nd at http://127"),
        ({"name": "sand", "version": 1}, "there is no version 1 of the registered model sand at http://127"),
        ({"version": 77}, "there is no version 77 of the registered model gravel at http://127"),
        ({"alias": "nobody"}, "there is no version with the alias nobody of the registered model gravel at http://127"),
    ],
)
def test_an_unregistered_model_is_refused(trained: Path, server: str, model: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ModelInvalid, match=complaint):
        read_model_manifest(open_store(server, **model))


def test_a_registered_model_of_another_program_is_refused(trained: Path, server: str, client: "MlflowClient") -> None:
    version = client.get_model_version("gravel", "1")
    client.create_registered_model("pictures")
    client.create_model_version("pictures", f"{version.source.rpartition('/')[0]}/visualizations", version.run_id)
    with pytest.raises(ModelInvalid, match=r"no model\.json in models:/pictures/1"):
        read_model_manifest(open_store(server, name="pictures"))


@pytest.mark.parametrize("scheme", ["mlflow-artifacts", "http", "file"])
def test_files_at_untrusted_addresses_are_refused(
    trained: Path, server: str, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """Anyone who may register a version could otherwise collect credentials. Newer servers refuse such versions."""
    with auth_proxy(server) as other:
        source = f"{scheme}{other.url.removeprefix('http')}/1/a/artifacts/model"
        monkeypatch.setattr("mlflow.tracking.MlflowClient.get_model_version_download_uri", lambda *_: source)
        with pytest.raises(ModelInvalid, match=rf"has its files at {source}: only the artifacts of {server} and of S3"):
            read_model_manifest(open_store(server, version=1))
        assert other.seen == []


def test_a_server_that_does_not_answer() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    began = time.monotonic()
    with pytest.raises(StorageUnavailable, match=rf"{nowhere} does not give version of a registered model gravel"):
        read_model_manifest(open_store(nowhere))
    assert time.monotonic() - began < 60


def test_a_server_that_fails_after_the_version_was_resolved(trained: Path, server: str) -> None:
    with auth_proxy(server) as before:
        found = open_store(before.url)
        [manifest] = found.list("model.json")
    with pytest.raises(StorageUnavailable, match="does not give models:/gravel/2"):
        found.read(manifest.key)


def test_a_broken_download_is_retried(trained: Path, server: str) -> None:
    with auth_proxy(server) as before:
        before.cut = ["/model/model.json"]
        assert read_model_manifest(open_store(before.url, version=1)).model == "padim"
        assert before.cut == []


def test_the_registry_uses_its_own_credentials(trained: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracking server's credentials stay in the environment during and after the requests."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "of-the-tracker")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    run_id = RunIdentity(kind="AnomalyInference", namespace="factory", name="look", uid="1")
    with auth_proxy(server, "robot", "secret") as before:
        config = RunConfig(run=run_id, inference=spec_of(before.url, version=1, credentialsSecret="registry"))
        assert read_model_manifest(pod_stores(config)[LocationRole.MODEL]).run.name == "small"
        assert set(before.seen) == {before.wanted}
    account = {key: value for key, value in os.environ.items() if key in MLFLOW_SECRET_KEYS}
    assert account == {"MLFLOW_TRACKING_TOKEN": "of-the-tracker"}


@pytest.mark.parametrize("account", [{}, ENVIRONMENT | {"ANOMALY_MODEL_MLFLOW_TRACKING_PASSWORD": "wrong"}])
def test_a_server_that_refuses_the_credentials(trained: Path, server: str, account: dict[str, str]) -> None:
    with (
        auth_proxy(server, "robot", "secret") as before,
        pytest.raises(StorageDenied, match=r"refused access to version 1 .* check model\.mlflow\.credentialsSecret"),
    ):
        read_model_manifest(open_store(before.url, account, version=1, credentialsSecret="registry"))


@pytest.mark.parametrize(
    ("elsewhere", "secret", "seen"),
    [(False, "tracker", "Bearer of-the-tracker"), (True, "tracker", None), (True, None, "Bearer of-the-tracker")],
    ids=["the same server", "another server", "the pod's own environment"],
)
@pytest.mark.usefixtures("trained")
def test_credentials_of_a_model_without_a_secret(
    server: str, monkeypatch: pytest.MonkeyPatch, elsewhere: bool, secret: str | None, seen: str | None
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "of-the-tracker")
    with auth_proxy(server) as before:
        uri = "http://tracker:5000" if elsewhere else f"{before.url}/"
        spec = spec_of(before.url, {"trackingUri": uri, "credentialsSecret": secret}, version=1)
        assert store_of(spec, ENVIRONMENT).uri == "models:/gravel/1"
        assert set(before.seen) == {seen}


def test_without_a_cluster_the_local_database_is_the_registry(
    textures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def tracked(document: Document) -> None:
        document["spec"]["tracking"] = {"mlflow": {"trackingUri": "http://nowhere:5000", "registerModel": "gravel"}}

    def registered(document: Document) -> None:
        document["metadata"]["name"] = "registered"
        document["spec"]["model"] = {"mlflow": {"name": "gravel", "trackingUri": "http://nowhere:5000"}}

    def unknown(document: Document) -> None:
        document["metadata"]["name"] = "unknown"
        document["spec"]["model"] = {"mlflow": {"name": "sand", "trackingUri": "http://nowhere:5000"}}

    assert run_locally(write_manifest(textures, EXPERIMENT, tracked), textures) == 0
    for change in (registered, None):
        assert run_locally(write_manifest(textures, INFERENCE, change), textures) == 0
    results = textures / "results/factory"
    tables = [
        pyarrow.parquet.read_table(results / name / "local/predictions.parquet") for name in ("registered", "look")
    ]
    assert tables[0]["score"].to_pylist() == tables[1]["score"].to_pylist()
    report = RunReport.model_validate_json((results / "registered/local/report.json").read_bytes())
    assert report.environment["model"] == "models:/gravel/1"
    assert run_locally(write_manifest(textures, INFERENCE, unknown), textures) == 16
    assert "there is no version of a registered model sand at sqlite:///" in capsys.readouterr().err


def test_mlflow_is_imported_only_for_registered_models() -> None:
    program = (
        "import sys, anomaly_runner.tracking.mlflow_registry, anomaly_runner.in_cluster; print('mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
