"""A registered model as a store, before a registry that is not there: what is asked of it, with which credentials."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    RESOURCE_DOES_NOT_EXIST,
    UNAUTHENTICATED,
)

from anomaly_api.inference import InferenceSpec, RegisteredModel
from anomaly_runner.errors import DataInvalid, ModelInvalid, RunFailed, StorageDenied, StorageUnavailable
from anomaly_runner.storage import ObjectInfo
from anomaly_runner.tracking import mlflow_registry
from anomaly_runner.tracking.mlflow_registry import ModelRegistry, RegisteredModelStore, open_registered_model

SERVER = "https://registry:5000"
FILES = {"MLmodel": b"flavors", "model.json": b"{}", "data/model.onnx": b"graph"}

pytestmark = pytest.mark.filterwarnings("ignore")  # of mlflow's own libraries


class Registry:
    """MLflow's client, and its repository of a version's files; takes down what is asked."""

    def __init__(self, source: str = "mlflow-artifacts:/1/model", versions: tuple[str, ...] = ("3",)) -> None:
        self.source, self.versions = source, versions
        self.asked: list[tuple[object, ...]] = []
        self.account: list[dict[str, str]] = []
        self.failures: list[Exception] = []
        self.folders: list[Path] = []

    def client(self, uri: str) -> "Registry":
        self._ask("connect", uri)
        return self

    def repository(self, source: str, server: str) -> "Registry":
        self._ask("repository", source, server)
        return self

    def _ask(self, *words: object) -> None:
        self.asked.append(words)
        self.account.append({key: value for key, value in os.environ.items() if key.startswith("MLFLOW_TRACKING_")})
        if self.failures:
            raise self.failures.pop(0)

    def get_model_version(self, name: str, version: str) -> SimpleNamespace:
        self._ask("version", name, version)
        return SimpleNamespace(name=name, version=version, run_id="r")

    def get_model_version_by_alias(self, name: str, alias: str) -> SimpleNamespace:
        self._ask("alias", name, alias)
        return SimpleNamespace(name=name, version="7", run_id="r")

    def search_model_versions(self, query: str, most: int, order: list[str]) -> list[SimpleNamespace]:
        self._ask("search", query, most, order)
        return [SimpleNamespace(name="gravel", version=number, run_id="r") for number in self.versions]

    def get_model_version_download_uri(self, name: str, version: str) -> str:
        self._ask("source", name, version)
        return self.source

    def list_artifacts(self, folder: str | None) -> list[SimpleNamespace]:
        self._ask("list", folder)
        if folder == "data":
            return [SimpleNamespace(path="data/model.onnx", is_dir=False, file_size=5)]
        if folder:
            return []
        return [
            SimpleNamespace(path="model.json", is_dir=False, file_size=2),
            SimpleNamespace(path="data", is_dir=True, file_size=None),
            SimpleNamespace(path="MLmodel", is_dir=False, file_size=None),
        ]

    def download_artifacts(self, key: str, folder: str) -> str:
        self._ask("download", key)
        self.folders.append(Path(folder))
        file = Path(folder, key)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(FILES[key])
        return str(file)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, in seconds, which are not made; no account is in the environment."""
    made = list[float]()
    monkeypatch.setattr("tenacity.nap.time.sleep", made.append)
    for key in [key for key in os.environ if key.startswith("MLFLOW_TRACKING_")]:
        monkeypatch.delenv(key)
    return made


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    made = Registry()
    monkeypatch.setattr(mlflow_registry, "connect", made.client)
    monkeypatch.setattr(mlflow_registry, "_artifact_repository", made.repository)
    return made


def store(credentials: Mapping[str, str] | None = None, uri: str = SERVER, **model: Any) -> RegisteredModelStore:
    found = RegisteredModel.model_validate({"name": "gravel"} | model)
    return RegisteredModelStore(ModelRegistry(uri, credentials), found)


# Which version


@pytest.mark.parametrize(
    ("model", "uri", "asked"),
    [
        ({}, "models:/gravel/3", ("search", "name = 'gravel'", 1, ["version_number DESC"])),
        ({"name": "sa'nd"}, "models:/gravel/3", ("search", 'name = "sa\'nd"', 1, ["version_number DESC"])),
        ({"version": 5}, "models:/gravel/5", ("version", "gravel", "5")),
        ({"alias": "champion"}, "models:/gravel/7", ("alias", "gravel", "champion")),
    ],
)
def test_the_version_is_the_newest_unless_another_is_named(
    registry: Registry, model: dict[str, Any], uri: str, asked: tuple[object, ...]
) -> None:
    found = store(**model)
    assert registry.asked == [], "nothing is asked before it is needed"
    assert (found.uri, found.local_root) == (uri, None)
    number = uri.rpartition("/")[2]
    assert registry.asked == [
        ("connect", SERVER),
        asked,
        ("source", "gravel", number),
        ("repository", "mlflow-artifacts:/1/model", SERVER),
    ]


def test_the_version_is_resolved_once(registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    found = store()
    with caplog.at_level("INFO"):
        assert found.uri == "models:/gravel/3"
    registry.versions = ("4", "3")
    assert found.uri == "models:/gravel/3"
    (line,) = [record for record in caplog.records if record.message == "registered model"]
    assert (line.__dict__["model"], line.__dict__["trained_by"]) == ("models:/gravel/3", "r")


def test_a_model_without_a_version_is_named(registry: Registry) -> None:
    registry.versions = ()
    with pytest.raises(ModelInvalid, match=rf"there is no version of a registered model gravel at {SERVER}"):
        _ = store().uri


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ({}, "version of a registered model gravel"),
        ({"version": 5}, "version 5 of the registered model gravel"),
        ({"alias": "champion"}, "version with the alias champion of the registered model gravel"),
    ],
)
@pytest.mark.parametrize(
    ("failure", "kind", "told"),
    [
        (MlflowException("m", error_code=RESOURCE_DOES_NOT_EXIST), ModelInvalid, f"there is no {{}} at {SERVER}: m"),
        (
            MlflowException("m", error_code=PERMISSION_DENIED),
            StorageDenied,
            f"{SERVER} refused access to {{}}: check model.mlflow.credentialsSecret (m)",
        ),
        (
            MlflowException("m", error_code=UNAUTHENTICATED),
            StorageDenied,
            f"{SERVER} refused access to {{}}: check model.mlflow.credentialsSecret (m)",
        ),
        (MlflowException("m", error_code=INVALID_PARAMETER_VALUE), ModelInvalid, f"there is no {{}} at {SERVER}: m"),
        (MlflowException("m"), StorageUnavailable, f"{SERVER} does not give {{}}: m"),
        (ConnectionError("refused"), StorageUnavailable, f"{SERVER} does not give {{}}: refused"),
    ],
)
def test_what_is_not_given_is_named(
    registry: Registry, *, model: dict[str, Any], named: str, failure: Exception, kind: type[RunFailed], told: str
) -> None:
    registry.failures = [failure]
    with pytest.raises(kind) as raised:
        _ = store(**model).uri
    assert str(raised.value) == told.format(named)


def test_a_long_answer_is_cut(registry: Registry) -> None:
    registry.failures = [ConnectionError("x" * 5000)]
    with pytest.raises(StorageUnavailable) as raised:
        _ = store().uri
    assert len(str(raised.value)) == 1000


def test_a_fault_of_this_program_is_not_blamed_on_the_server(registry: Registry) -> None:
    registry.failures = [KeyError("x")]
    with pytest.raises(KeyError):
        _ = store().uri


# Where the files are


@pytest.mark.parametrize(
    ("source", "server", "trusted"),
    [
        ("mlflow-artifacts:/1/model", SERVER, True),
        ("mlflow-artifacts://registry:5000/1/model", SERVER, True),
        ("mlflow-artifacts://registry:5001/1/model", SERVER, False),
        ("mlflow-artifacts://registry:5000/1/model", "http://registry:5000", True),
        ("s3://bucket/1/model", SERVER, True),
        ("https://registry:5000/1/model", SERVER, False),
        ("file:///etc", SERVER, False),
        ("/etc", "http://registry:5000", False),
        ("/results/mlartifacts/1/model", "sqlite:////results/mlflow.db", True),
    ],
)
def test_files_come_from_the_registry_itself_or_from_s3(
    registry: Registry, source: str, server: str, trusted: bool
) -> None:
    """Whoever may register a version chooses the address; this machine's files are those of a local database alone."""
    registry.source = source
    if trusted:
        assert store(uri=server).uri == "models:/gravel/3"
        assert registry.asked[-1] == ("repository", source, server)
    else:
        told = f"the version of a registered model gravel has its files at {source}: only the artifacts of {server} and"
        with pytest.raises(ModelInvalid, match=told):
            _ = store(uri=server).uri
        assert "repository" not in {words[0] for words in registry.asked}


def test_files_are_listed_below_their_folders(registry: Registry) -> None:
    found = store()
    version = "models:/gravel/3"
    assert found.list() == [
        ObjectInfo("MLmodel", 0, version),
        ObjectInfo("data/model.onnx", 5, version),
        ObjectInfo("model.json", 2, version),
    ]
    assert [info.key for info in found.list("model")] == ["model.json"]
    registry.asked.clear()
    assert [info.key for info in found.list("data/mod")] == ["data/model.onnx"]
    assert found.list("data/deep/mod") == []
    assert registry.asked == [("list", "data"), ("list", "data/deep")], "no other folder is asked for"
    registry.failures = [MlflowException("m")]
    with pytest.raises(StorageUnavailable, match=f"{SERVER} does not give models:/gravel/3: m"):
        found.list()
    assert found.address("model.json") == f"{SERVER}#models:/gravel/3/model.json"


def test_a_file_is_there_whole_or_not_at_all(registry: Registry, tmp_path: Path) -> None:
    found = store()
    found.download(ObjectInfo("data/model.onnx", 5, "v"), tmp_path / "deep/er/model.onnx")
    assert [path.name for path in (tmp_path / "deep/er").iterdir()] == ["model.onnx"]
    assert (tmp_path / "deep/er/model.onnx").read_bytes() == b"graph"
    (folder,) = registry.folders
    assert (folder.parent, folder.name[:8]) == (tmp_path / "deep/er", ".mlflow-"), "hidden, and on the same disk"
    assert (found.read("model.json"), found.read("model")) == (b"{}", None)
    with pytest.raises(DataInvalid, match=r"refused the key '\.\./x' in models:/gravel/3"):
        found.download(ObjectInfo("../x", 1, "v"), tmp_path / "x")


def test_a_download_is_tried_three_times_with_growing_pauses(
    registry: Registry, tmp_path: Path, pauses: list[float]
) -> None:
    found = store()
    info = ObjectInfo("model.json", 2, "v")
    assert found.uri
    registry.failures = [ConnectionError("reset")] * 2
    found.download(info, tmp_path / "model.json")
    assert pauses == [1, 2]
    registry.failures = [ConnectionError("reset")] * 9
    with pytest.raises(StorageUnavailable, match=r"does not give model\.json in models:/gravel/3: reset"):
        found.download(info, tmp_path / "other.json")
    assert len(registry.failures) == 6
    pauses.clear()
    registry.failures = [MlflowException("m", error_code=PERMISSION_DENIED)]
    with pytest.raises(StorageDenied):
        found.download(info, tmp_path / "other.json")
    assert pauses == []
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]


def test_a_full_disk_of_this_machine_is_not_blamed_on_the_registry(registry: Registry, tmp_path: Path) -> None:
    found = store()
    assert found.uri
    registry.failures = [OSError(errno.ENOSPC, "No space left on device", "/work/model.onnx")] * 3
    with pytest.raises(StorageUnavailable, match=r"^the disk that this run writes to is full: .*/work/model.onnx"):
        found.download(ObjectInfo("model.json", 2, "v"), tmp_path / "model.json")


def test_a_version_does_not_change(registry: Registry) -> None:
    found = store()
    for use in (found.delete, found.subfolder, found.folders, lambda key: found.upload(Path(key), key)):
        with pytest.raises(NotImplementedError):
            use("model.json")


# With which account


def test_the_registrys_account_is_in_the_environment_during_its_requests_alone(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "of the tracker")
    assert store({"MLFLOW_TRACKING_USERNAME": "robot", "MLFLOW_TRACKING_PASSWORD": "p"}).list()
    own = {"MLFLOW_TRACKING_USERNAME": "robot", "MLFLOW_TRACKING_PASSWORD": "p"}
    assert registry.account == [own] * len(registry.asked)
    assert {key for key in os.environ if key.startswith("MLFLOW_TRACKING_")} == {"MLFLOW_TRACKING_TOKEN"}
    assert os.environ["MLFLOW_TRACKING_TOKEN"] == "of the tracker"


def test_an_account_comes_back_after_a_request_that_failed(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "of the tracker")
    registry.failures = [ConnectionError("refused")]
    with pytest.raises(StorageUnavailable):
        _ = store({"MLFLOW_TRACKING_TOKEN": "of the registry"}).uri
    assert registry.account == [{"MLFLOW_TRACKING_TOKEN": "of the registry"}]
    assert os.environ["MLFLOW_TRACKING_TOKEN"] == "of the tracker"


OWN = {"ANOMALY_MODEL_MLFLOW_TRACKING_USERNAME": "robot", "ANOMALY_MODEL_MLFLOW_TRACKING_TOKEN": ""}


@pytest.mark.parametrize(
    ("model", "tracking", "account"),
    [
        ({"credentialsSecret": "s", "trackingUri": SERVER}, None, {"MLFLOW_TRACKING_USERNAME": "robot"}),
        ({"trackingUri": SERVER}, None, None),
        ({"trackingUri": SERVER}, {"trackingUri": f"{SERVER}/", "credentialsSecret": "t"}, None),
        ({"trackingUri": f"{SERVER}/"}, {"trackingUri": SERVER, "credentialsSecret": "t"}, None),
        ({}, {"trackingUri": SERVER, "credentialsSecret": "t"}, None),
        ({"trackingUri": SERVER}, {"trackingUri": "http://tracker:5000", "credentialsSecret": "t"}, {}),
        ({"trackingUri": f"{SERVER}/X"}, {"trackingUri": SERVER, "credentialsSecret": "t"}, {}),
        ({"trackingUri": SERVER}, {"trackingUri": f"{SERVER}/X", "credentialsSecret": "t"}, {}),
        ({"trackingUri": SERVER}, {"trackingUri": "http://tracker:5000"}, None),
    ],
    ids=[
        "own",
        "none",
        "same",
        "same with a slash",
        "the tracker's",
        "elsewhere",
        "below",
        "above",
        "elsewhere, of the pod",
    ],
)
def test_another_server_does_not_get_the_trackers_account(
    model: dict[str, Any], tracking: dict[str, Any] | None, account: dict[str, str] | None
) -> None:
    spec = InferenceSpec.model_validate(
        {
            "model": {"mlflow": {"name": "gravel"} | model},
            "input": {"source": {"s3": {"uri": "s3://data"}}},
            "output": {"s3": {"uri": "s3://results"}},
            "tracking": {"mlflow": tracking},
        }
    )
    assert spec.model.mlflow is not None
    found = open_registered_model(spec, spec.model.mlflow, OWN, None)
    assert found._model == spec.model.mlflow
    assert (found._registry.uri.rstrip("/X"), found._registry.credentials) == (SERVER, account)


def test_without_a_cluster_the_registry_is_a_database(tmp_path: Path) -> None:
    spec = InferenceSpec.model_validate(
        {
            "model": {"mlflow": {"name": "gravel", "trackingUri": SERVER, "credentialsSecret": "s"}},
            "input": {"source": {"s3": {"uri": "s3://data"}}},
            "output": {"s3": {"uri": "s3://results"}},
        }
    )
    assert spec.model.mlflow is not None
    found = open_registered_model(spec, spec.model.mlflow, OWN, tmp_path)
    assert found._registry == ModelRegistry(f"sqlite:///{tmp_path}/mlflow.db", None)
    assert found._model == spec.model.mlflow


def test_the_repository_is_mlflows_own_for_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(source: str, **where: str) -> tuple[str, dict[str, str]]:
        return source, where

    monkeypatch.setattr("mlflow.store.artifact.artifact_repository_registry.get_artifact_repository", found)
    made = mlflow_registry._artifact_repository("s3://bucket/model", SERVER)
    assert made == ("s3://bucket/model", {"tracking_uri": SERVER, "registry_uri": SERVER})
