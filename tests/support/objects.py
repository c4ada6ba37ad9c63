"""Kubernetes objects as the API server would answer them, in short form."""

import copy
from typing import Any

from anomaly_api.run import RunSummary
from anomaly_api.status import RunStatus
from anomaly_operator import names
from anomaly_operator.decide.observed import Observed
from anomaly_operator.keys import RunKey
from anomaly_operator.views import JobView, PodView, RunView, job_view, pod_view, run_view

Manifest = dict[str, Any]

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
    """The manifest with blocks of its spec replaced."""
    changed = copy.deepcopy(manifest)
    changed["spec"] |= spec
    return changed


def run_of(manifest: Manifest, status: Manifest | None = None, **meta: Any) -> RunView:
    """A resource as it is in the cache."""
    identity = {"uid": UID, "resourceVersion": "10", "generation": 1, "namespace": "vision"}
    whole = {**manifest, "metadata": identity | manifest["metadata"] | meta, "status": status or {}}
    return run_view(manifest["kind"], whole)


def raw_job(key: RunKey = KEY, owner_uid: str = UID, spec: Manifest | None = None, **status: Any) -> Manifest:
    """A batch/v1 Job."""
    return {
        "metadata": {
            "name": names.job(key),
            "namespace": key.namespace,
            "uid": JOB_UID,
            "resourceVersion": "11",
            "creationTimestamp": CREATED,
            "labels": names.labels(key),
            "annotations": {names.CONFIG_DIGEST_ANNOTATION: "digest"},
            "ownerReferences": [
                {"kind": key.kind, "name": key.name, "uid": owner_uid, "controller": True},
            ],
        },
        "spec": {"backoffLimit": 3} | (spec or {}),
        "status": status,
    }


def job_of(key: RunKey = KEY, **arguments: Any) -> JobView:
    """A Job as it is in the cache."""
    return job_view(raw_job(key, **arguments))


def ended(kind: str, reason: str = "", message: str = "") -> Manifest:
    """Status of a Job that ended."""
    condition = {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-02T03:10:00Z",
    }
    counts = {"succeeded": 1} if kind == "Complete" else {"failed": 1}
    return {"startTime": CREATED, "conditions": [condition]} | counts


def raw_pod(number: int = 1, key: RunKey = KEY, state: Manifest | None = None, **status: Any) -> Manifest:
    """A pod of the Job."""
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


def pod_of(number: int = 1, **arguments: Any) -> PodView:
    """A pod as it is in the cache."""
    return pod_view(raw_pod(number, **arguments))


def terminated(exit_code: int, message: str = "", reason: str = "Error") -> Manifest:
    """State of a container that ended."""
    return {
        "terminated": {
            "exitCode": exit_code,
            "reason": reason,
            "message": message,
            "finishedAt": "2026-01-02T03:09:59Z",
        }
    }


def said(summary: RunSummary, exit_code: int = 0) -> Manifest:
    """State of a container that ended with a RunSummary."""
    return terminated(exit_code, summary.to_termination_message(), "Completed" if exit_code == 0 else "Error")


def observed(job: JobView | None = None, *pods: PodView, **more: Any) -> Observed:
    """A Job and its pods."""
    return Observed(job=job, pods=pods, **more)


NOTHING = RunStatus()
