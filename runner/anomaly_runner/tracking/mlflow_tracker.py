"""MLflow as a tracker.

A run is found again by the resource's UID (a tag), so a retried pod goes on with the run of the one before it, and
tells only what the server does not know yet.
The client costs seconds to import and a server can be slow, so all of it happens in a thread of its own: it creates
the run, and then brings the course of the training every few seconds. What could not be brought is brought at the end.
"""

import logging
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from anomaly_api import GROUP
from anomaly_api.artifacts import MlflowTracking
from anomaly_api.run import ModelManifest, RunIdentity
from anomaly_api.status import MlflowStatus
from anomaly_runner.errors import TrackingUnavailable
from anomaly_runner.tracking.mlflow_client import connect, local_uri
from anomaly_runner.tracking.tracker import FAILURE_TAG, MODEL_FOLDER, MetricHistory, TrackedResult

logger = logging.getLogger(__name__)

LOCAL_UID = "local"
"""UID of runs without a cluster: each of them is a run of its own in MLflow."""
_UPLOADS = 8
_PARAMETERS_AT_ONCE = 100
_METRICS_AT_ONCE = 500
_ATTEMPTS = 3
_PACE = 5.0
"""Seconds between reports of a training that goes on."""
_PATIENCE = 60.0
"""Seconds until a server that did not answer is asked again."""


@dataclass(frozen=True)
class MlflowTarget:
    """Where and under which names a run is tracked.

    ``register``: the name under which its model is registered, if it is to be. ``artifact_root``: folder for
    artifacts of a local store.
    """

    run: RunIdentity
    uri: str
    experiment: str
    name: str
    tags: Mapping[str, str]
    register: str | None = None
    artifact_root: Path | None = None

    @property
    def all_tags(self) -> dict[str, str]:
        """The user's tags and those that lead back to the resource."""
        ours = {"uid": self.run.uid, "kind": self.run.kind, "namespace": self.run.namespace, "name": self.run.name}
        return dict(self.tags) | {f"{GROUP}/{key}": value for key, value in ours.items()}


def target_of(run: RunIdentity, spec: MlflowTracking, local: Path | None) -> MlflowTarget:
    """The target of a manifest; without a cluster, a database below the folder ``local``."""
    return MlflowTarget(
        run=run,
        uri=local_uri(local) if local else spec.tracking_uri,
        experiment=spec.experiment_name or run.namespace,
        name=spec.run_name or run.name,
        tags=spec.tags or {},
        register=spec.register_model,
        artifact_root=local / "mlartifacts" if local else None,
    )


class MlflowTracker:
    """Keeps one run in MLflow. See ``tracking.Tracker``."""

    def __init__(self, target: MlflowTarget, connect: Callable[[str], Any] = connect) -> None:
        self._target = target
        self._connect = connect
        self._parameters: Mapping[str, str] = {}
        self._client: Any = None
        self._status: MlflowStatus | None = None
        self._thread: threading.Thread | None = None
        self._measured: list[tuple[str, int, float]] = []
        self._over = threading.Event()

    def start(self, parameters: Mapping[str, str]) -> None:
        """Create the run, in the background. A server that does not answer is asked again by ``finish``."""
        self._parameters = parameters
        self._thread = threading.Thread(target=self._accompany, name="mlflow", daemon=True)
        self._thread.start()

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Values of the training, to be brought in the background."""
        self._measured.extend((name, step, value) for name, value in values.items())

    def _accompany(self) -> None:
        while not self._over.wait(_PACE if self._bring_measured() else _PATIENCE):
            pass

    def _bring_measured(self) -> bool:
        try:
            self._log_measured(self._ensure_run())
        except Exception as error:  # noqa: BLE001 - finish() tries again, and raises
            logger.warning("MLflow at %s does not answer yet: %s", self._target.uri, error)
            return False
        return True

    def _log_measured(self, run_id: str) -> None:
        points = list(self._measured)
        self._log_points(run_id, points)
        del self._measured[: len(points)]

    def status(self) -> MlflowStatus | None:
        """The run in MLflow, once it exists."""
        return self._status

    def _ensure_run(self) -> str:
        if self._status is None:
            self._client = self._connect(self._target.uri)
            experiment = self._experiment()
            run_id = self._resumed(experiment) or self._created(experiment)
            self._log_parameters(run_id)
            self._status = MlflowStatus(run_id=run_id, url=self._url(experiment, run_id))
        return self._status.run_id

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(self._target.experiment)
        return str(found.experiment_id) if found else self._created_experiment()

    def _created_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        root = self._target.artifact_root
        try:
            place = (root / self._target.experiment).as_uri() if root else None
            return str(self._client.create_experiment(self._target.experiment, artifact_location=place))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another pod was faster
                raise
            return str(self._client.get_experiment_by_name(self._target.experiment).experiment_id)

    def _resumed(self, experiment: str) -> str | None:
        if self._target.run.uid == LOCAL_UID:
            return None
        found = self._client.search_runs([experiment], f"tags.`{GROUP}/uid` = '{self._target.run.uid}'", max_results=1)
        if not found:
            return None
        self._client.update_run(found[0].info.run_id, status="RUNNING")
        return str(found[0].info.run_id)

    def _created(self, experiment: str) -> str:
        run = self._client.create_run(experiment, run_name=self._target.name, tags=self._target.all_tags)
        return str(run.info.run_id)

    def _log_parameters(self, run_id: str) -> None:
        from mlflow.entities import Param

        parameters = [Param(name, value) for name, value in self._parameters.items()]
        for start in range(0, len(parameters), _PARAMETERS_AT_ONCE):
            self._client.log_batch(run_id, params=parameters[start : start + _PARAMETERS_AT_ONCE])

    def _url(self, experiment: str, run_id: str) -> str | None:
        uri = self._target.uri
        return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}" if uri.startswith("http") else None

    def finish(self, result: TrackedResult) -> None:
        """Write metrics and files and end the run; waits for the server, and asks it several times."""
        self._over.set()
        if self._thread:
            self._thread.join()
        self._persistently(partial(self._finish, result))

    def _persistently(self, work: Callable[[], None]) -> None:
        from tenacity import Retrying, stop_after_attempt, wait_exponential

        try:
            Retrying(stop=stop_after_attempt(_ATTEMPTS), wait=wait_exponential(min=1, max=10), reraise=True)(work)
        except Exception as error:
            raise TrackingUnavailable(
                f"all results are stored, but MLflow at {self._target.uri} does not take them: {error}"[:1000]
            ) from error

    def _finish(self, result: TrackedResult) -> None:
        from anomaly_runner.tracking.mlflow_entities import dataset_input, final_points

        run_id = self._ensure_run()
        for name, value in result.tags.items():
            self._client.set_tag(run_id, name, value)
        if result.dataset is not None:
            self._client.log_inputs(run_id, [dataset_input(result.dataset)])
        self._log_measured(run_id)
        self._log_points(run_id, self._unknown_points(run_id, result.history))
        self._log_points(run_id, final_points(result.metrics))
        self._log_files(run_id, result.files)
        if result.model is not None:
            self._log_model(run_id, result.model)
        self._client.set_terminated(run_id, "FAILED" if result.failed else "FINISHED")

    def _log_points(self, run_id: str, points: Sequence[tuple[str, int, float]]) -> None:
        from anomaly_runner.tracking.mlflow_entities import metrics

        for start in range(0, len(points), _METRICS_AT_ONCE):
            self._client.log_batch(run_id, metrics=metrics(points[start : start + _METRICS_AT_ONCE]))

    def _unknown_points(self, run_id: str, history: MetricHistory) -> list[tuple[str, int, float]]:
        """What the server has not been told while the training went on, by this pod or the one before it."""
        known = {(name, metric.step) for name in history for metric in self._client.get_metric_history(run_id, name)}
        return [
            (name, step, value)
            for name, points in history.items()
            for step, value in points
            if (name, step) not in known
        ]

    def _log_files(self, run_id: str, files: Iterable[tuple[str, Path]]) -> None:
        with ThreadPoolExecutor(_UPLOADS, thread_name_prefix="mlflow") as pool:
            for done in [
                pool.submit(self._client.log_artifact, run_id, str(file), folder or None) for folder, file in files
            ]:
                done.result()

    def _log_model(self, run_id: str, model: ModelManifest) -> None:
        from anomaly_runner.tracking.mlflow_models import register, write_description

        with tempfile.TemporaryDirectory() as folder:
            self._log_files(run_id, [(MODEL_FOLDER, file) for file in write_description(model, run_id, Path(folder))])
        if self._target.register and self._status:
            found = register(self._client, self._target.register, run_id, self._target.all_tags)
            self._status = self._status.model_copy(update={"model": found})

    def fail(self, message: str) -> None:
        """Mark the run as failed, if it exists; a retried pod takes it up again."""
        self._over.set()
        if self._status is None:
            return
        try:
            self._client.set_tag(self._status.run_id, FAILURE_TAG, message[:1000])
            self._client.set_terminated(self._status.run_id, "FAILED")
        except Exception as error:  # noqa: BLE001 - the run's own failure is what matters
            logger.warning("MLflow at %s was not told of the failure: %s", self._target.uri, error)
