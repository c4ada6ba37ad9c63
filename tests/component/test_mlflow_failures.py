"""What a failure of MLflow means, by its kind and status, and which experiment and settings its client gets."""

import errno
import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError, EndpointConnectionError
from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import (
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    INVALID_STATE,
    PERMISSION_DENIED,
    RESOURCE_ALREADY_EXISTS,
    TEMPORARILY_UNAVAILABLE,
    UNAUTHENTICATED,
)
from requests import HTTPError, Response
from sqlalchemy.exc import OperationalError
from urllib3.exceptions import ProtocolError

from anomaly_runner.errors import (
    DataInvalid,
    InternalError,
    RunFailed,
    StorageUnavailable,
    TrackingDenied,
    TrackingUnavailable,
)
from anomaly_runner.tracking import mlflow_failures
from anomaly_runner.tracking.mlflow_client import artifact_root, connect, is_there, local_uri
from anomaly_runner.tracking.mlflow_experiments import experiment_of, find_experiment
from anomaly_runner.tracking.mlflow_failures import artifact_failure, http_status, tracking_failure

URI = "http://mlflow:5000"
ACCOUNT = f"MLflow at {URI} refuses the account"
RUN = f"MLflow at {URI} refuses the run: "
LATER = f"MLflow at {URI} does not take the run: "
FILES = f"MLflow at {URI} keeps artifacts where this run may not write: "

pytestmark = pytest.mark.filterwarnings("ignore")  # of mlflow's own libraries


def answered(status: int) -> HTTPError:
    """What requests raises for a status."""
    response = Response()
    response.status_code = status
    return HTTPError(f"status {status}", response=response)


def of_s3(status: int) -> ClientError:
    told = {"Error": {"Code": "x"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(told, "PutObject")


def of_a_part(status: int) -> S3UploadFailedError:
    """What boto3 makes of S3's answer to a part of an upload."""
    failure = S3UploadFailedError("failed")
    failure.__context__ = of_s3(status)
    return failure


@pytest.mark.parametrize(
    ("error", "status", "kind", "said"),
    [
        (
            MlflowException("m", error_code=UNAUTHENTICATED),
            401,
            TrackingDenied,
            f"{ACCOUNT} (401): check tracking.mlfl",
        ),
        (MlflowException("m", error_code=PERMISSION_DENIED), 403, TrackingDenied, f"{ACCOUNT} (403): check tracking."),
        (MlflowException("m", error_code=INVALID_PARAMETER_VALUE), 400, TrackingDenied, f"{RUN}m"),
        (MlflowException("m", error_code=INVALID_STATE), 500, TrackingDenied, f"{RUN}m"),  # deleted
        (MlflowException("m", error_code=INTERNAL_ERROR), 500, TrackingUnavailable, f"{LATER}m"),
        (MlflowException("m", error_code=TEMPORARILY_UNAVAILABLE), 503, TrackingUnavailable, f"{LATER}m"),
        (answered(401), 401, TrackingDenied, ACCOUNT),
        (answered(403), 403, TrackingDenied, ACCOUNT),
        (answered(399), 399, TrackingUnavailable, LATER),
        (answered(400), 400, TrackingDenied, RUN),
        (answered(408), 408, TrackingUnavailable, LATER),
        (answered(425), 425, TrackingUnavailable, LATER),
        (answered(429), 429, TrackingUnavailable, LATER),
        (answered(499), 499, TrackingDenied, RUN),
        (answered(500), 500, TrackingUnavailable, LATER),
        (of_s3(403), 403, TrackingDenied, ACCOUNT),
        (of_s3(503), 503, TrackingUnavailable, LATER),
        (of_a_part(403), 403, TrackingDenied, ACCOUNT),
        (S3UploadFailedError("cut off"), 0, TrackingUnavailable, f"{LATER}cut off"),
        (PermissionError(errno.EACCES, "denied"), 0, TrackingDenied, FILES),
        (OSError(errno.EPERM, "not permitted"), 0, TrackingDenied, FILES),
        (OSError(errno.EROFS, "read-only"), 0, TrackingDenied, FILES),
        (OSError(errno.ENOSPC, "full"), 0, StorageUnavailable, "the disk that this run writes to is full"),
        (MlflowException("No space left on device", error_code=INTERNAL_ERROR), 500, TrackingUnavailable, LATER),
        (ConnectionError("refused"), 0, TrackingUnavailable, f"{LATER}refused"),
    ],
)
def test_what_stays_refused_and_what_may_pass(error: Exception, status: int, kind: type[RunFailed], said: str) -> None:
    assert http_status(error) == status
    found = tracking_failure(error, URI)
    assert type(found) is kind
    assert str(found).startswith(said)


def of_json() -> Exception:
    """What MLflow's client raises for a page of a proxy in place of an answer."""
    try:
        json.loads("<html>")
    except json.JSONDecodeError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    "error",
    [
        of_json(),
        ParseError("the answer has another form"),
        EndpointConnectionError(endpoint_url="http://s3"),
        ProtocolError("Connection broken"),
        OperationalError("SELECT 1", None, Exception("database is locked")),
        TimeoutError("timed out"),
    ],
)
def test_what_a_server_a_database_or_the_network_did_may_pass(error: Exception) -> None:
    assert type(tracking_failure(error, URI)) is TrackingUnavailable


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        TypeError("x"),
        AttributeError("x"),
        ValueError("x"),
        RuntimeError("cannot schedule new futures"),
        UnicodeDecodeError("utf-8", b"", 0, 1, "x"),
        FileNotFoundError(errno.ENOENT, "No such file", "model.onnx"),
        IsADirectoryError(errno.EISDIR, "Is a directory", "model"),
    ],
)
def test_a_fault_of_this_program_is_not_blamed_on_the_server(error: Exception) -> None:
    found = tracking_failure(error, URI)
    assert type(found) is InternalError
    assert str(found) == f"tracking ended with a fault of this program ({type(error).__name__}: {error})"
    assert type(artifact_failure(error, URI)) is InternalError


def test_a_store_that_needs_a_library_of_its_own_is_told_as_that() -> None:
    found = artifact_failure(ModuleNotFoundError("No module named 'google.cloud'"), URI)
    assert type(found) is TrackingDenied
    assert "keeps artifacts where this run cannot write without a library: No module named 'google.cloud'" in str(found)


def test_a_typed_failure_stays_as_it_is() -> None:
    failure = DataInvalid("no images")
    assert tracking_failure(failure, URI) is failure
    assert artifact_failure(failure, URI) is failure


def test_a_long_answer_is_cut() -> None:
    assert len(str(tracking_failure(ConnectionError("x" * 5000), URI))) == len(LATER) + 800
    assert str(artifact_failure(answered(500), URI)) == (
        f"MLflow at {URI} takes the run but not its files: its artifact store may be read-only or full (status 500)"
    )


@pytest.mark.parametrize(
    ("error", "is_of_the_store"),
    [(answered(500), True), (answered(503), True), (answered(429), False), (ConnectionError("refused"), False)],
)
def test_a_server_that_fails_at_a_file_may_have_a_full_store(error: Exception, is_of_the_store: bool) -> None:
    found = artifact_failure(error, URI)
    assert isinstance(found, TrackingUnavailable)
    assert ("its artifact store may be read-only or full" in str(found)) is is_of_the_store


def test_a_file_that_is_refused_is_no_full_store() -> None:
    found = artifact_failure(answered(403), URI)
    assert isinstance(found, TrackingDenied)
    assert str(found).startswith(ACCOUNT)


@pytest.mark.parametrize("told", [{}, {"ResponseMetadata": {}}])
def test_an_answer_of_s3_may_tell_no_status(told: dict[str, Any]) -> None:
    assert http_status(ClientError(told, "PutObject")) == 0


@pytest.mark.parametrize(
    ("status", "kind"), [(401, TrackingDenied), (403, TrackingDenied), (404, TrackingUnavailable), (200, None)]
)
def test_the_answer_of_a_proxy_is_asked_for_again_for_its_status(
    monkeypatch: pytest.MonkeyPatch, status: int, kind: type[RunFailed] | None
) -> None:
    """MLflow's client drops the status of JSON that is not its server's."""
    asked = list[tuple[Any, ...]]()

    def request(credentials: Any, path: str, method: str, **query: Any) -> SimpleNamespace:
        asked.append((credentials.host, path, method, query))
        return SimpleNamespace(status_code=status)

    monkeypatch.setattr("mlflow.utils.rest_utils.http_request", request)
    found = tracking_failure(RestException({"detail": "Not authenticated"}), URI)
    assert type(found) is (kind or TrackingUnavailable)
    assert asked == [(URI, "/api/2.0/mlflow/experiments/get", "GET", {"params": {"experiment_id": "0"}})]


def test_a_proxy_that_does_not_answer_again_may_be_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def request(*_: object, **__: object) -> None:
        raise MlflowException("timed out")

    monkeypatch.setattr("mlflow.utils.rest_utils.http_request", request)
    assert type(tracking_failure(RestException({"detail": "x"}), URI)) is TrackingUnavailable


def test_an_answer_of_mlflow_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_failures, "_refusal_of_account", lambda uri: 401)
    error = RestException({"error_code": "INTERNAL_ERROR", "message": "m"})
    assert type(tracking_failure(error, URI)) is TrackingUnavailable


# Experiments


class Experiments:
    """A client that knows some experiments."""

    def __init__(self, *answers: SimpleNamespace | None, refusal: Exception | None = None) -> None:
        self.answers, self.refusal = list(answers), refusal
        self.created: list[tuple[str, str | None]] = []

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        assert name in ("lab", "a/b")
        return self.answers.pop(0)

    def create_experiment(self, name: str, artifact_location: str | None) -> int:
        self.created.append((name, artifact_location))
        if self.refusal:
            raise self.refusal
        return 7


def experiment(place: str = "mlflow-artifacts:/3", stage: str = "active") -> SimpleNamespace:
    return SimpleNamespace(experiment_id=3, lifecycle_stage=stage, artifact_location=place)


def test_an_experiment_is_found_or_created(tmp_path: Path) -> None:
    assert experiment_of(Experiments(experiment()), "lab", URI, None) == "3"
    fresh = Experiments(None)
    assert experiment_of(fresh, "lab", URI, None) == "7"
    assert fresh.created == [("lab", None)]
    local = Experiments(None)
    experiment_of(local, "a/b", "sqlite:///x", tmp_path)
    assert local.created == [("a/b", f"{tmp_path.as_uri()}/a_U002F_b")]


def test_looking_for_an_experiment_creates_none() -> None:
    client = Experiments(None)
    assert find_experiment(client, "lab", URI, None) is None
    assert client.created == []


def test_an_experiment_that_another_pod_has_just_created_is_taken() -> None:
    exists = MlflowException("exists", error_code=RESOURCE_ALREADY_EXISTS)
    assert experiment_of(Experiments(None, experiment(), refusal=exists), "lab", URI, None) == "3"
    refused = MlflowException("no", error_code=PERMISSION_DENIED)
    with pytest.raises(MlflowException, match="no"):
        experiment_of(Experiments(None, experiment(), refusal=refused), "lab", URI, None)


def test_a_deleted_experiment_is_refused_with_its_id() -> None:
    with pytest.raises(TrackingDenied, match=r"lab at http://mlflow:5000 is deleted: .*--experiment-id 3\), or set"):
        find_experiment(Experiments(experiment(stage="deleted")), "lab", URI, None)


@pytest.mark.parametrize(
    ("place", "is_below"),
    [
        ("{root}/lab", True),
        ("file://{root}/lab", True),
        ("file://{root}/a%20b", True),
        ("{root}/../lab", False),
        ("{root}/%2E%2E/lab", True),  # a folder of this name
        ("file://{root}/%2E%2E/lab", False),
        ("/elsewhere/lab", False),
        ("s3://bucket{root}/lab", False),
    ],
)
def test_a_local_experiment_keeps_its_files_below_the_folder(tmp_path: Path, place: str, is_below: bool) -> None:
    client = Experiments(experiment(place.format(root=tmp_path)))
    if is_below:
        assert experiment_of(client, "lab", "sqlite:///x", tmp_path) == "3"
    else:
        told = f"lab at sqlite:///x keeps .* outside of {tmp_path}: set tracking.mlflow.experimentName"
        with pytest.raises(TrackingDenied, match=told):
            experiment_of(client, "lab", "sqlite:///x", tmp_path)


# The client


def test_a_client_gives_up_soon_and_keeps_what_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }
    for name in wanted:
        monkeypatch.delenv(name, raising=False)
    assert connect(URI).tracking_uri == URI
    assert {name: os.environ[name] for name in wanted} == wanted
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "90")
    connect(URI)
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "90"


@pytest.mark.parametrize("local", [True, False])
def test_the_client_of_a_local_database_keeps_files_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    monkeypatch.setattr("mlflow.tracking.MlflowClient", lambda tracking_uri: f"client of {tracking_uri}")
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "as it was")
    uri = local_uri(tmp_path) if local else URI
    assert connect(uri) == f"client of {uri}"
    beside = f"{tmp_path.as_uri()}/mlartifacts"
    assert os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] == (beside if local else "as it was")


def test_what_mlflow_and_its_database_say_of_themselves_is_not_logged() -> None:
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    connect(URI)
    assert [logger.level for logger in loggers] == [logging.WARNING] * 2


def test_a_local_database_and_its_files_are_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = local_uri(tmp_path)
    assert uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert not is_there(uri)
    assert is_there(URI)
    (tmp_path / "mlflow.db").touch()
    assert is_there(uri)
    monkeypatch.chdir(tmp_path)
    assert artifact_root(Path("here")) == tmp_path / "here/mlartifacts"
