"""A run in a pod: reads the mounted RunConfig, writes the termination message and pushes progress to the operator."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from anomaly_api.run import PROGRESS_TOKEN_PATH, PROGRESS_URL_ENV, RunConfig
from anomaly_api.status import Stage
from anomaly_runner.context import Context, RunRecord
from anomaly_runner.engine import execute
from anomaly_runner.errors import RunFailed
from anomaly_runner.locations import pod_stores
from anomaly_runner.manifests import read_config
from anomaly_runner.progress import LogReporter, ProgressMeter, ProgressReporter, PushReporter
from anomaly_runner.publish import leave_failure
from anomaly_runner.system.machine import process_seconds
from anomaly_runner.system.stop import StopSignal
from anomaly_runner.termination import capture_failures, failure_summary, write_termination_message
from anomaly_runner.tracking.mlflow_tracker import MlflowTracker, mlflow_target
from anomaly_runner.tracking.tracker import NoTracker, Tracker

logger = logging.getLogger(__name__)


def run_in_pod(config_file: Path, work: Path, termination: Path, environment: Mapping[str, str]) -> int:
    """Execute the mounted RunConfig and return the exit code; never raises a RunFailed.

    Args:
        config_file: the RunConfig (JSON).
        work: scratch folder.
        termination: file that the kubelet reads the termination message from.
        environment: environment variables, which may hold the operator's address for progress.
    """
    logger.info("started", extra={"process_seconds": round(process_seconds(), 3)})
    with StopSignal().listening() as stop:
        try:
            config = read_config(config_file)
            stores = pod_stores(config)
        except RunFailed as error:
            logger.error("run failed", extra={"reason": error.reason.value, "detail": str(error)})
            write_termination_message(failure_summary(error, Stage.STARTING), termination)
            return error.exit_code
        work.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("HF_HOME", str(work / "huggingface"))
        tracker = tracker_of(config, None)
        record = RunRecord()
        with ProgressMeter(_reporters(config, tracker, record, environment)) as progress:
            context = Context(
                run=config.run,
                stores=stores,
                work=work,
                progress=progress,
                stop=stop,
                tracker=tracker,
                record=record,
            )
            finished = capture_failures(lambda: execute(config, context), context)
            write_termination_message(finished.summary, termination)
            if finished.left_nothing:
                leave_failure(config, finished.summary, context)
            return finished.exit_code


def tracker_of(config: RunConfig, local: Path | None) -> Tracker:
    """Make the tracker that the resource asks for.

    Args:
        local: folder of a run without a cluster, which has an MLflow store of its own; None in a cluster.
    """
    wanted = config.spec.tracking.mlflow
    if wanted is None:
        return NoTracker()
    trial = config.experiment.trial if config.experiment else None
    search = config.sweep.status.search if config.sweep else None
    return MlflowTracker(mlflow_target(config.run, wanted, local, trial=trial, search=search))


def _reporters(
    config: RunConfig, tracker: Tracker, record: RunRecord, environment: Mapping[str, str]
) -> list[ProgressReporter]:
    url = environment.get(PROGRESS_URL_ENV)
    reporters: list[ProgressReporter] = [LogReporter()]
    if url:
        reporters.append(
            PushReporter(
                url,
                Path(PROGRESS_TOKEN_PATH),
                config.run,
                tracker.status,
                lambda: record.device,
                curve=lambda: record.curve,
                prune=record.prune,
            )
        )
    return reporters
