"""Small Kubernetes objects as the API server returns them, and the operator's views of them."""

import copy
from typing import Any, Literal

from anomaly_api.run import RunSummary
from anomaly_api.status import RunStatus
from anomaly_operator import names
from anomaly_operator.decide.observed import ObservedState
from anomaly_operator.keys import RunKey
from anomaly_operator.resources import Manifest
from anomaly_operator.views import JobView, PodView, RunView, job_view, pod_view, run_view

UID = "11111111-2222-3333-4444-555555555555"
JOB_UID = "66666666-7777-8888-9999-000000000000"
CREATED = "2026-01-02T03:04:05Z"
KEY = RunKey("AnomalyExperiment", "vision", "screws")

S3 = {"uri": "s3://factory", "credentialsSecret": "s3-credentials"}
EXPERIMENT: Manifest = {
    "apiVersion": "anomalyops.io/v1alpha1",
    "kind": "AnomalyExperiment",
    "metadata": {"name": "screws", "namespace": "vision"},
    "spec": {
        "dataset": {"source": {"s3": S3}},
        "model": {"name": "padim"},
        "output": {"s3": {"uri": "s3://results"}},
    },
}
INFERENCE: Manifest = {
    "apiVersion": "anomalyops.io/v1alpha1",
    "kind": "AnomalyInference",
    "metadata": {"name": "screws-today", "namespace": "vision"},
    "spec": {
        "model": {"experiment": "screws"},
        "input": {"source": {"s3": S3}},
        "output": {"s3": {"uri": "s3://results"}},
    },
}


def with_spec(manifest: Manifest, **spec: Any) -> Manifest:
    """Return the manifest with blocks of its spec replaced."""
    changed = copy.deepcopy(manifest)
    changed["spec"] |= spec
    return changed


def make_run(manifest: Manifest, status: Manifest | None = None, **metadata: str | int) -> RunView:
    """Make the view of a resource; ``metadata`` replaces fields of its metadata."""
    defaults = {"uid": UID, "resourceVersion": "10", "generation": 1, "namespace": "vision"}
    raw = manifest | {"metadata": defaults | manifest["metadata"] | metadata, "status": status or {}}
    return run_view(manifest["kind"], raw)


def raw_job(
    key: RunKey = KEY,
    owner_uid: str = UID,
    spec: Manifest | None = None,
    which: tuple[int | None, str | None] = (None, None),
    **status: Any,
) -> Manifest:
    """Make a run's batch/v1 Job; ``which`` is the run's number and the step, ``status`` are fields of its status."""
    return {
        "metadata": {
            "name": names.job(key, *which),
            "namespace": key.namespace,
            "uid": JOB_UID,
            "resourceVersion": "11",
            "creationTimestamp": CREATED,
            "labels": names.labels(key, *which),
            "annotations": {names.CONFIG_DIGEST_ANNOTATION: "digest"},
            "ownerReferences": [
                {"kind": key.kind, "name": key.name, "uid": owner_uid, "controller": True},
            ],
        },
        "spec": {"backoffLimit": 3} | (spec or {}),
        "status": status,
    }


def make_job(
    owner_uid: str = UID,
    spec: Manifest | None = None,
    which: tuple[int | None, str | None] = (None, None),
    **status: Any,
) -> JobView:
    """Make the view of a run's Job; the arguments are those of ``raw_job``."""
    return job_view(raw_job(owner_uid=owner_uid, spec=spec, which=which, **status))


def finished_job_status(condition_type: Literal["Complete", "Failed"]) -> Manifest:
    """Make the status of a finished Job with one pod."""
    condition = {
        "type": condition_type,
        "status": "True",
        "reason": "",
        "message": "",
        "lastTransitionTime": "2026-01-02T03:10:00Z",
    }
    counts = {"succeeded": 1} if condition_type == "Complete" else {"failed": 1}
    return {"startTime": CREATED, "conditions": [condition]} | counts


def raw_pod(number: int = 1, key: RunKey = KEY, state: Manifest | None = None, **status: Any) -> Manifest:
    """Make a pod of a run's Job; ``state`` is its container's, ``status`` are fields of its status."""
    containers = [{"name": names.CONTAINER, "state": state}] if state else []
    return {
        "metadata": {
            "name": f"{names.job(key)}-{number}",
            "namespace": key.namespace,
            "uid": f"pod-{number}",
            "resourceVersion": str(20 + number),
            "creationTimestamp": f"2026-01-02T03:04:{number:02}Z",
            "ownerReferences": [{"kind": "Job", "name": names.job(key), "uid": JOB_UID, "controller": True}],
        },
        "status": {"phase": "Pending", "containerStatuses": containers} | status,
    }


def make_pod(number: int = 1, state: Manifest | None = None, **status: Any) -> PodView:
    """Make the view of a pod of a run's Job."""
    return pod_view(raw_pod(number, state=state, **status))


def terminated(exit_code: int, message: str = "", reason: str = "Error") -> Manifest:
    """Make the state of a container that ended."""
    return {
        "terminated": {
            "exitCode": exit_code,
            "reason": reason,
            "message": message,
            "finishedAt": "2026-01-02T03:09:59Z",
        }
    }


def terminated_with(summary: RunSummary, exit_code: int = 0) -> Manifest:
    """Make the state of a container that ended with a RunSummary as its termination message."""
    return terminated(exit_code, summary.to_termination_message(), "Completed" if exit_code == 0 else "Error")


def observed(job: JobView | None = None, *pods: PodView) -> ObservedState:
    """Make the observed state of a Job and its pods."""
    return ObservedState(job=job, pods=pods)


NO_STATUS = RunStatus()
"""The recorded status of a run that the operator has not seen before."""
