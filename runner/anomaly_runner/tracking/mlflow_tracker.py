"""The tracker that logs to MLflow.

A run in MLflow has the resource's UID as a tag, so that a retried pod finds and continues the run of the earlier pod,
and logs only metrics that the server does not have.

MLflow takes seconds to import and a server can be slow, so both happen in a background thread: it creates the run, and
then logs the training's metrics every few seconds. Metrics that it could not log are logged at the end.
"""

import json
import logging
import math
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from anomaly_api import GROUP
from anomaly_api.artifacts import MlflowTracking
from anomaly_api.run import ModelManifest, RunIdentity
from anomaly_api.status import MlflowStatus
from anomaly_api.sweep_status import Trial
from anomaly_runner.errors import RunFailed, TrackingDenied, TrackingUnavailable
from anomaly_runner.tracking.mlflow_client import artifact_root, connect, is_there, local_uri
from anomaly_runner.tracking.mlflow_experiments import experiment_of, find_experiment
from anomaly_runner.tracking.mlflow_failures import artifact_failure, is_of_the_server, tracking_failure
from anomaly_runner.tracking.mlflow_names import (
    MAX_PARAMETER_CHARACTERS,
    MAX_TAG_CHARACTERS,
    mlflow_name,
    short_value,
)
from anomaly_runner.tracking.mlflow_runs import PARENT_TAG, Sought, SweepRun, as_tags, end_run, find_run, reopen
from anomaly_runner.tracking.tracker import MODEL_FOLDER, MetricHistory, TrackedResult

Item = TypeVar("Item")

logger = logging.getLogger(__name__)

LOCAL_UID = "local"
"""UID of all runs without a cluster; they are never resumed, so each is a new run in MLflow."""
PARAMETERS = "parameters.json"
"""Artifact with all parameters, whole."""
NOT_FINITE_TAG = f"{GROUP}/notFinite"
"""Tag with the values of metrics that are not finite: name, step and value."""
CHANGED_TAG = f"{GROUP}/changedParameters"
"""Tag with the names of parameters that differ from those that the run in MLflow began with."""
_FIRST_ANSWER_SECONDS = 30.0
"""Longest wait for a server's first answer, before the training."""
_POLL_SECONDS = 0.5
_UPLOAD_THREADS = 8
_PARAMETERS_PER_BATCH = 100
_METRICS_PER_BATCH = 500
_ATTEMPTS = 3
"""Attempts to finish a run."""
_FLUSH_SECONDS = 5.0
"""Time between two batches of a training's metrics."""
_RETRY_SECONDS = 60.0
"""Time until the next request to a server that did not answer."""
_LAST_ANSWER_SECONDS = 10.0
"""Longest wait, at the end of a run that failed, for the answer to a request that is under way."""


@dataclass(frozen=True, kw_only=True)
class MlflowTarget:
    """Server and names under which a run is tracked.

    Attributes:
        run: the resource.
        uri: tracking URI of the server or database.
        experiment: name of the experiment in MLflow.
        name: name of the run in MLflow.
        tags: the user's tags.
        search: the search, for the last run of a sweep.
        sweep: the sweep and its search, for a trial.
        register: name under which the trained model is registered; None to register nothing.
        artifact_root: folder for artifacts if ``uri`` is a local database.
    """

    run: RunIdentity
    uri: str
    experiment: str
    name: str
    tags: Mapping[str, str]
    search: str | None = None
    sweep: Sought | None = None
    register: str | None = None
    artifact_root: Path | None = None

    @property
    def all_tags(self) -> dict[str, str]:
        """The user's tags, and the tags that identify the resource and which of its runs this is."""
        return as_tags(dict(self.tags) | self.sought.tags)

    @property
    def sought(self) -> Sought:
        """The run in MLflow, for a pod that comes after another."""
        return Sought(run=self.run, search=self.search)


def mlflow_target(
    run: RunIdentity,
    spec: MlflowTracking,
    local: Path | None,
    *,
    trial: Trial | None = None,
    search: str | None = None,
) -> MlflowTarget:
    """The target that a resource asks for; without a cluster, a database in the folder ``local``.

    Args:
        run: the resource.
        spec: what it says of MLflow.
        local: folder of a run without a cluster.
        trial: which trial of which sweep it is, if it is one.
        search: the search that came before the last run of a sweep.
    """
    return MlflowTarget(
        search=search,
        sweep=_sweep_of(run, trial),
        run=run,
        uri=local_uri(local) if local else spec.tracking_uri,
        experiment=spec.experiment_name or run.namespace,
        name=spec.run_name or run.name,
        tags=spec.tags or {},
        register=spec.register_model,
        artifact_root=artifact_root(local) if local else None,
    )


def _sweep_of(run: RunIdentity, trial: Trial | None) -> Sought | None:
    if trial is None or not trial.sweep_uid:
        return None
    identity = RunIdentity(kind=run.kind, namespace=run.namespace, name=trial.sweep, uid=trial.sweep_uid)
    return Sought(run=identity, search=trial.search)


class MlflowTracker:
    """Logs one run to MLflow; see ``Tracker``.

    Args:
        target: server and names.
        connect: makes MLflow's client from a tracking URI.
    """

    def __init__(self, target: MlflowTarget, connect: Callable[[str], Any] = connect) -> None:
        self._target = target
        self._connect = connect
        self._parameters: Mapping[str, str] = {}
        self._described = False
        self._answered = threading.Event()
        self._asked_at: float | None = None
        self._refusal: TrackingDenied | None = None
        self._not_finite: list[str] = []
        self._client: Any = None
        self._run_id: str | None = None
        self._failed = False
        self._status: MlflowStatus | None = None
        self._experiment_id = ""
        self._sweep = SweepRun(target.sweep, target.tags) if target.sweep else None
        self._thread: threading.Thread | None = None
        self._pending: list[tuple[str, int, float]] = []
        self._finished = threading.Event()

    def start(self, parameters: Mapping[str, str]) -> None:
        """Create the run in the background; ``finish`` creates it if the server has not answered by then."""
        self._parameters = parameters
        self._thread = threading.Thread(target=self._flush_until_finished, name="mlflow", daemon=True)
        self._thread.start()

    def check(self, still_wanted: Callable[[], None]) -> None:
        """Wait for the first answer, but not long for a server that is silent: it may be back at the end.

        The wait is counted from the first request, because importing MLflow takes seconds, and long on a busy machine.
        A local database always answers.
        """
        self._wait_for_answer(still_wanted)
        if self._refusal is not None:
            raise self._refusal

    def _wait_for_answer(self, still_wanted: Callable[[], None]) -> bool:
        """Wait as ``check`` says; whether there was an answer."""
        while not self._answered.wait(_POLL_SECONDS):
            still_wanted()
            waited = 0.0 if self._asked_at is None else time.monotonic() - self._asked_at
            if waited > _FIRST_ANSWER_SECONDS and self._target.artifact_root is None:
                return False
        return True

    def probe(self, still_wanted: Callable[[], None]) -> str | None:
        """Ask for the experiment, which shows whether the server is there and what it thinks of the account.

        A local database that does not exist is not made for that.
        """
        if self._target.artifact_root is not None and not is_there(self._target.uri):
            return None
        failures: list[RunFailed] = []
        threading.Thread(target=self._ask, args=(failures,), name="mlflow", daemon=True).start()
        if not self._wait_for_answer(still_wanted):
            return f"MLflow at {self._target.uri} does not answer"
        for failure in failures:
            if not isinstance(failure, TrackingUnavailable):
                raise failure
        return str(failures[0]) if failures else None

    def _ask(self, failures: list[RunFailed]) -> None:
        target = self._target
        try:
            client = self._connect(target.uri)
            self._asked_at = time.monotonic()
            find_experiment(client, target.experiment, target.uri, target.artifact_root)
        except Exception as error:  # noqa: BLE001 - raised in the thread that waits
            failure = tracking_failure(error, target.uri)
            failure.__cause__ = _traceback(error)
            failures.append(failure)
        finally:
            self._answered.set()

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Queue metrics of one step, which are logged in the background."""
        self._pending.extend((name, step, value) for name, value in values.items())

    def _flush_until_finished(self) -> None:
        while not self._finished.wait(_FLUSH_SECONDS if self._try_flush() else _RETRY_SECONDS):
            pass

    def _try_flush(self) -> bool:
        try:
            run_id = self._ensure_run()
            self._flush(run_id)
            self._describe(run_id)
        except Exception as error:
            failure = tracking_failure(error, self._target.uri)
            self._refusal = failure if isinstance(failure, TrackingDenied) else None
            logger.warning("not tracked yet: %s", failure, exc_info=_traceback(error))
            return False
        finally:
            self._answered.set()
        return True

    def _flush(self, run_id: str) -> None:
        """Log the queued metrics; those that are not taken, or are queued meanwhile, stay in the queue."""
        for batch in _batches(list(self._pending), _METRICS_PER_BATCH):
            self._log_points(run_id, batch)
            del self._pending[: len(batch)]

    def status(self) -> MlflowStatus | None:
        """Id and URL of the run in MLflow; None until it exists there."""
        return self._status

    def _ensure_run(self) -> str:
        """Find or create the run, once, and return its id; a sweep's run that was made here is looked for once more."""
        if self._status is None:
            self._client = self._connect(self._target.uri)
            self._asked_at = time.monotonic()
            run_id = self._run_id = self._run_id or self._find_or_create()
            self._nest(run_id)
            self._log_parameters(run_id)
            self._status = MlflowStatus(run_id=run_id, url=self._url(self._experiment_id, run_id))
        elif self._sweep is not None and not self._sweep.is_settled:
            self._nest(self._status.run_id)
        return self._status.run_id

    def _find_or_create(self) -> str:
        if self._failed:  # nobody is left who would end the run
            raise TrackingUnavailable("the run failed before MLflow had answered")
        self._experiment_id = experiment_of(
            self._client, self._target.experiment, self._target.uri, self._target.artifact_root
        )
        return self._resume_run(self._experiment_id) or self._create_run(self._experiment_id)

    def _nest(self, run_id: str) -> None:
        """Put a trial's run below its sweep's."""
        if self._sweep is not None:
            self._client.set_tag(run_id, PARENT_TAG, self._sweep.ensure(self._client, self._experiment_id))

    def _resume_run(self, experiment_id: str) -> str | None:
        """Reopen the run of an earlier pod of this run, and return its id; None if there is no such run."""
        if self._target.run.uid == LOCAL_UID and self._target.search is None:
            return None
        found = find_run(self._client, experiment_id, self._target.sought)
        if found is None:
            return None
        reopen(self._client, found)
        return str(found.info.run_id)

    def _create_run(self, experiment_id: str) -> str:
        run = self._client.create_run(experiment_id, run_name=self._target.name, tags=self._target.all_tags)
        return str(run.info.run_id)

    def _log_parameters(self, run_id: str) -> None:
        from mlflow.entities import Param

        parameters = [Param(name, value) for name, value in self._new_parameters(run_id).items()]
        for batch in _batches(parameters, _PARAMETERS_PER_BATCH):
            self._client.log_batch(run_id, params=batch)

    def _new_parameters(self, run_id: str) -> dict[str, str]:
        """The parameters as MLflow takes them.

        Those of a run never change, but a search that went on may have another winner: only what the sweep's run lacks
        is logged then, and a tag names the others.
        """
        wanted = {
            mlflow_name(name): short_value(value, MAX_PARAMETER_CHARACTERS) for name, value in self._parameters.items()
        }
        if self._target.search is None:
            return wanted
        known: Mapping[str, str] = self._client.get_run(run_id).data.params
        changed = sorted(name for name, value in wanted.items() if known.get(name, value) != value)
        if changed:
            text = f"as in {PARAMETERS}, not as an earlier end of the search had them: {', '.join(changed)}"
            self._client.set_tag(run_id, CHANGED_TAG, short_value(text, MAX_TAG_CHARACTERS))
        return {name: value for name, value in wanted.items() if name not in known}

    def _describe(self, run_id: str) -> None:
        """Log the parameters as a file, once: whole, and so that a store that takes no files shows early."""
        if self._described:
            return
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / PARAMETERS
            file.write_text(json.dumps(self._parameters, indent=2), encoding="utf-8")
            self._log_artifacts(run_id, [("", file)])
        self._described = True

    def _url(self, experiment_id: str, run_id: str) -> str | None:
        uri = self._target.uri
        return f"{uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}" if uri.startswith("http") else None

    def finish(self, result: TrackedResult) -> None:
        """Log the results and end the run; waits for the server, with retries.

        Raises:
            TrackingDenied: the server refuses.
            TrackingUnavailable: the server does not answer, after retries.
            StorageUnavailable: the disk of this machine is full.
            InternalError: a fault of this program.
        """
        self._finished.set()
        if self._thread:
            self._thread.join()
        self._with_retries(partial(self._log_result, result))

    def _with_retries(self, work: Callable[[], None]) -> None:
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

        retrying = Retrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_exponential(),
            retry=retry_if_exception_type(TrackingUnavailable),
            reraise=True,
        )
        try:
            retrying(self._typed, work)
        except RunFailed as failure:
            if not isinstance(failure, TrackingUnavailable):  # the server is there to be told
                self._end(f"{failure.reason.value}: {failure}")
            raise type(failure)(f"all results are stored, but {failure}"[:1000]) from failure

    def _typed(self, work: Callable[[], None]) -> None:
        """Do something, and raise what it raises as a RunFailed."""
        try:
            work()
        except RunFailed:
            raise
        except Exception as error:
            raise tracking_failure(error, self._target.uri) from error

    def _log_result(self, result: TrackedResult) -> None:
        from anomaly_runner.tracking.mlflow_entities import dataset_input, final_points

        run_id = self._ensure_run()
        self._nest(run_id)
        for name, value in result.tags.items():
            self._client.set_tag(run_id, mlflow_name(name), short_value(value, MAX_TAG_CHARACTERS))
        if result.dataset is not None:
            self._client.log_inputs(run_id, [dataset_input(result.dataset)])
        self._flush(run_id)
        self._log_points(run_id, self._missing_points(run_id, result.history))
        self._log_points(run_id, final_points(result.metrics))
        self._describe(run_id)
        self._log_artifacts(run_id, result.artifacts)
        if result.model is not None:
            self._log_model(run_id, result.model)
        if self._not_finite:
            text = "; ".join(dict.fromkeys(self._not_finite))
            self._client.set_tag(run_id, NOT_FINITE_TAG, short_value(text, MAX_TAG_CHARACTERS))
        self._client.set_terminated(run_id, "FAILED" if result.failed else "FINISHED")

    def _log_points(self, run_id: str, points: Sequence[tuple[str, int, float]]) -> None:
        """Log (name, step, value); what is not finite goes into a tag, because databases store no infinity."""
        from anomaly_runner.tracking.mlflow_entities import metrics

        odd = [point for point in points if not math.isfinite(point[2])]
        self._not_finite += [f"{name} at step {step}: {value}" for name, step, value in odd]
        points = [point for point in points if math.isfinite(point[2])]
        for batch in _batches(points, _METRICS_PER_BATCH):
            self._client.log_batch(run_id, metrics=metrics(batch))

    def _missing_points(self, run_id: str, history: MetricHistory) -> list[tuple[str, int, float]]:
        """The (name, step, value) that neither this pod nor an earlier one has logged."""
        known = {(name, metric.step) for name in history for metric in self._client.get_metric_history(run_id, name)}
        return [
            (name, step, value)
            for name, points in history.items()
            for step, value in points
            if (name, step) not in known
        ]

    def _log_artifacts(self, run_id: str, files: Iterable[tuple[str, Path]]) -> None:
        with ThreadPoolExecutor(_UPLOAD_THREADS, thread_name_prefix="mlflow") as pool:
            for done in [
                pool.submit(self._client.log_artifact, run_id, str(file), folder or None) for folder, file in files
            ]:
                try:
                    done.result()
                except Exception as error:
                    raise artifact_failure(error, self._target.uri) from error

    def _log_model(self, run_id: str, model: ModelManifest) -> None:
        from anomaly_runner.tracking.mlflow_models import register, write_description

        with tempfile.TemporaryDirectory() as folder:
            self._log_artifacts(
                run_id, [(MODEL_FOLDER, file) for file in write_description(model, run_id, Path(folder))]
            )
        if self._target.register and self._status:
            found = register(self._client, self._target.register, run_id, self._target.all_tags)
            self._status = self._status.model_copy(update={"model": found})

    def fail(self, message: str, *, stopped: bool = False) -> None:
        """Mark the run as failed or stopped, if it exists or is just being created; a retried pod resumes it."""
        self._failed = True
        self._finished.set()
        if self._thread is not None and self._asked_at is not None:
            self._thread.join(_LAST_ANSWER_SECONDS)
            if self._thread.is_alive():
                logger.warning("MLflow at %s does not answer: a run may stay there as running", self._target.uri)
        self._end(message, stopped=stopped)

    def _end(self, message: str, *, stopped: bool = False) -> None:
        if self._run_id is None:
            return
        try:
            end_run(self._client, self._run_id, "KILLED" if stopped else "FAILED", message)
            if self._sweep is not None and stopped:
                self._sweep.stop(self._client, self._experiment_id, message)
        except Exception as error:
            logger.warning(
                "MLflow at %s was not told of the failure: %s", self._target.uri, error, exc_info=_traceback(error)
            )
        else:
            self._flush_last(self._run_id)

    def _flush_last(self, run_id: str) -> None:
        """Log the metrics that are still queued: the last ones before a failure often show its cause."""
        if self._thread is not None and self._thread.is_alive():
            return  # it is logging them
        try:
            self._flush(run_id)
        except Exception as error:
            logger.warning(
                "MLflow at %s lacks the last metrics of the training: %s",
                self._target.uri,
                error,
                exc_info=_traceback(error),
            )


def _batches(items: Sequence[Item], most: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + most] for start in range(0, len(items), most))


def _traceback(error: Exception) -> Exception | None:
    """The exception whose traceback goes to the log: that of a fault of this program."""
    return None if is_of_the_server(error) or isinstance(error, RunFailed) else error
