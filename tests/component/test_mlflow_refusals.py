"""What MLflow refuses: typed, found out before the training, and told with the field or the Secret."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from anomaly_api.artifacts import MlflowTracking
from anomaly_api.reasons import FINAL_EXIT_CODES, ExitCode
from anomaly_api.run import RunIdentity
from anomaly_runner.errors import TrackingDenied, TrackingUnavailable
from anomaly_runner.local import run_locally
from anomaly_runner.tracking.mlflow_client import connect, local_uri
from anomaly_runner.tracking.mlflow_names import MAX_PARAMETER_CHARACTERS
from anomaly_runner.tracking.mlflow_tracker import NOT_FINITE_TAG, PARAMETERS, MlflowTracker, mlflow_target
from anomaly_runner.tracking.tracker import TrackedResult
from support.http_server import serving
from support.optional import not_none
from support.textures import EXPERIMENT, Document, write_manifest, write_textures

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

RUN = RunIdentity(kind="AnomalyExperiment", namespace="factory", name="screws", uid="0-1")
RESULT = TrackedResult(metrics={"image_AUROC": 0.875}, artifacts=())

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of mlflow's own libraries


def never_stop() -> None:
    """Never stop waiting."""


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)


def tracker(uri: str, local: Path | None = None, uid: str = "0-1", **spec: object) -> MlflowTracker:
    wanted = MlflowTracking.model_validate({"trackingUri": uri, **spec})
    return MlflowTracker(mlflow_target(RUN.model_copy(update={"uid": uid}), wanted, local))


class Refusing(BaseHTTPRequestHandler):
    """Answers every request with one status."""

    status: int
    body: bytes

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_POST = do_PUT = do_PATCH = _answer  # noqa: N815 - http.server's names

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


DENIED = b'{"error_code": "PERMISSION_DENIED", "message": "Permission denied"}'


@pytest.fixture(
    params=[(403, DENIED), (401, b"You are not authenticated."), (401, b'{"detail": "Not authenticated"}')],
    ids=["403", "401", "401-of-a-proxy"],
)
def refusing(request: pytest.FixtureRequest) -> Iterator[str]:
    status, body = request.param
    with serving(type("Handler", (Refusing,), {"status": status, "body": body})) as url:
        yield url


def test_a_refused_account_is_found_out_before_the_training(refusing: str) -> None:
    found = tracker(refusing)
    found.start({"seed": "1"})
    with pytest.raises(TrackingDenied, match=r"refuses the account.*tracking\.mlflow\.credentialsSecret") as raised:
        found.check(never_stop)
    assert raised.value.exit_code in FINAL_EXIT_CODES
    found.fail("does not raise")


def test_a_refusal_after_the_training_loses_nothing(refusing: str) -> None:
    found = tracker(refusing)
    found.start({})
    with pytest.raises(TrackingDenied, match=r"all results are stored, but.*credentialsSecret"):
        found.finish(RESULT)


def test_a_wrong_request_is_refused_and_a_missing_server_is_tried_again() -> None:
    handler = type("Handler", (Refusing,), {"status": 400, "body": b""})
    with serving(handler) as url, pytest.raises(TrackingDenied, match="refuses the run"):
        tracker(url).finish(RESULT)
    with pytest.raises(TrackingUnavailable):  # nobody listens there any more
        tracker(url).finish(RESULT)


def test_a_deleted_experiment_is_named_before_the_training(server: str, client: "MlflowClient") -> None:
    client.delete_experiment(client.create_experiment("tidied up"))
    found = tracker(server, experimentName="tidied up")
    found.start({})
    with pytest.raises(TrackingDenied, match=r"experiment tidied up .*is deleted: restore it.*experimentName"):
        found.check(never_stop)


def test_a_probe_is_refused_as_a_run_would_be(refusing: str) -> None:
    found = tracker(refusing)
    found.start({})
    with pytest.raises(TrackingDenied) as refused:
        found.check(never_stop)
    with pytest.raises(TrackingDenied) as probed:
        tracker(refusing).probe(never_stop)
    assert str(probed.value) == str(refused.value)


def test_a_probe_finds_a_deleted_experiment(server: str, client: "MlflowClient") -> None:
    client.delete_experiment(client.create_experiment("put away"))
    with pytest.raises(TrackingDenied, match=r"experiment put away .*is deleted: restore it"):
        tracker(server, experimentName="put away").probe(never_stop)


def test_a_probe_creates_nothing(server: str, client: "MlflowClient", tmp_path: Path) -> None:
    found = tracker(server, experimentName="not there yet")
    assert found.probe(never_stop) is None
    assert found.status() is None
    found.fail("neither does the end of a check that failed")
    assert client.get_experiment_by_name("not there yet") is None
    there = client.create_experiment("there")
    assert tracker(server, experimentName="there").probe(never_stop) is None
    assert client.search_runs([there]) == []
    assert tracker("http://mlflow:5000", tmp_path, "local").probe(never_stop) is None
    assert list(tmp_path.iterdir()) == []


def test_an_experiment_that_is_deleted_in_mid_run(server: str, client: "MlflowClient") -> None:
    found = tracker(server, experimentName="going")
    found.start({})
    found.check(never_stop)
    client.delete_experiment(not_none(client.get_experiment_by_name("going")).experiment_id)
    with pytest.raises(TrackingDenied, match="all results are stored, but"):
        found.finish(RESULT)


def test_odd_names_long_values_and_odd_numbers(server: str, client: "MlflowClient", tmp_path: Path) -> None:
    long = "x" * (2 * MAX_PARAMETER_CHARACTERS)
    parameters = {"tracking.mlflow.tags.a:b//c": "1", "k" * 300: long, "\U0001f600": "2"}
    found = tracker(server, uid="odd", tags={"who?": "y" * 256, "../up": "z", "": "empty"})
    found.start(parameters)
    found.check(never_stop)
    found.log_metrics(3, {"trainLoss": float("inf")})
    file = tmp_path / "q' & + = e\u0301 \U0001f600 ; $ ! (1) @ , [x] {y} ~.txt"
    file.write_text("content")
    found.finish(TrackedResult(metrics={"image_AUROC": float("nan"), "ok": 1.0}, artifacts=(("pictures", file),)))
    run_id = not_none(found.status()).run_id
    run = client.get_run(run_id)
    assert len(run.data.params) == len(parameters)
    assert max(map(len, run.data.params.values())) == MAX_PARAMETER_CHARACTERS
    assert run.data.tags[NOT_FINITE_TAG] == "trainLoss at step 3: inf; image_AUROC at step 0: nan"
    assert run.data.metrics == {"ok": 1.0}
    assert run.data.tags["who_U003F_"] == "y" * 256
    assert [found.path for found in client.list_artifacts(run_id, "pictures")] == [f"pictures/{file.name}"]
    whole = Path(client.download_artifacts(run_id, PARAMETERS, str(tmp_path)))
    assert json.loads(whole.read_text()) == parameters


@pytest.mark.parametrize("experiment", ["../../outside", "Default", "/etc/x", "a/b: c?"])
def test_a_local_store_never_writes_outside_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: str
) -> None:
    (tmp_path / "deep/er/here").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = tracker("http://nowhere", tmp_path / "deep/er/here", uid="local", experimentName=experiment)
    found.start({"seed": "1"})
    found.finish(RESULT)
    written = {file for file in tmp_path.rglob("*") if file.is_file()}
    assert any(file.name == PARAMETERS for file in written)
    assert all(file.is_relative_to(tmp_path / "deep/er/here") for file in written)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_local_store_of_another_folder_is_not_written_to(tmp_path: Path) -> None:
    first = tracker("http://nowhere", tmp_path / "first", uid="local")
    (tmp_path / "first").mkdir()
    first.finish(RESULT)
    (tmp_path / "first").rename(tmp_path / "second")
    with pytest.raises(TrackingDenied, match=r"outside of .*second.*experimentName"):
        tracker("http://nowhere", tmp_path / "second", uid="local").finish(RESULT)
    assert not (tmp_path / "first").exists()


def test_artifacts_that_may_not_be_written_are_found_out_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(self: object, run_id: str, file: str, folder: str | None = None) -> None:
        raise OSError(30, "Read-only file system", file)

    monkeypatch.setattr("mlflow.tracking.MlflowClient.log_artifact", read_only)
    found = tracker("http://nowhere", tmp_path, uid="local")
    found.start({})
    with pytest.raises(TrackingDenied, match="artifacts where this run may not write"):
        found.check(never_stop)


def test_an_artifact_store_that_fails_is_named_and_its_metrics_are_kept(server: str, client: "MlflowClient") -> None:
    """MLflow's server does not tell a store that is read-only from one that fails for a while."""
    from requests import HTTPError, Response

    def fails(run_id: str, file: str, folder: str | None = None) -> None:
        response = Response()
        response.status_code = 500
        raise HTTPError("500 Server Error", response=response)

    def connect_to(uri: str) -> "MlflowClient":
        found = connect(uri)
        found.log_artifact = fails
        return found

    found = MlflowTracker(
        mlflow_target(RUN.model_copy(update={"uid": "full"}), MlflowTracking(tracking_uri=server), None), connect_to
    )
    with pytest.raises(
        TrackingUnavailable, match="takes the run but not its files: its artifact store may be read-only"
    ):
        found.finish(RESULT)
    assert client.get_run(not_none(found.status()).run_id).data.metrics == RESULT.metrics


def test_a_deleted_experiment_ends_a_run_before_its_training(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["spec"]["tracking"] = {"mlflow": {"trackingUri": "http://mlflow", "experimentName": "gone"}}

    write_textures(tmp_path / "data/textures")
    client = connect(local_uri(tmp_path))
    client.delete_experiment(client.create_experiment("gone"))
    assert run_locally(write_manifest(tmp_path, EXPERIMENT, change), tmp_path) == ExitCode.TRACKING_DENIED
    assert not (tmp_path / "results").exists()
