"""A fake kubelet: tests write the status of pods that no node runs."""

import json
import time
from datetime import UTC, datetime
from typing import Any

from anomaly_api.run import RunSummary
from anomaly_operator.decide.times import to_timestamp
from support.kube import Manifest, Namespace

NO_NODE = {"anomalyops.io/test-node": "none"}
"""A nodeSelector that no node matches: only the test changes the pod."""


def experiment(name: str, **spec: Any) -> Manifest:
    """Return an experiment whose pod no node runs."""
    return {
        "apiVersion": "anomalyops.io/v1alpha1",
        "kind": "AnomalyExperiment",
        "metadata": {"name": name},
        "spec": {
            "dataset": {"source": {"s3": {"uri": "s3://factory"}}},
            "model": {"name": "padim"},
            "output": {"s3": {"uri": "s3://results", "endpoint": "http://s3:9000", "credentialsSecret": "results"}},
            "scheduling": {"gpus": {"count": 0}, "nodeSelector": NO_NODE},
        }
        | spec,
    }


def inference(name: str, **spec: Any) -> Manifest:
    """Return an inference whose pod no node runs."""
    return {
        "apiVersion": "anomalyops.io/v1alpha1",
        "kind": "AnomalyInference",
        "metadata": {"name": name},
        "spec": {
            "model": {"experiment": "screws"},
            "input": {"source": {"s3": {"uri": "s3://factory"}}},
            "output": {"s3": {"uri": "s3://results"}},
            "scheduling": {"gpus": {"count": 0}, "nodeSelector": NO_NODE},
        }
        | spec,
    }


def active_pod(namespace: Namespace, job: str, seconds: float = 30) -> str:
    """Wait for a pod of the Job that has not ended, and return its name."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for pod in namespace.list("pods", f"batch.kubernetes.io/job-name={job}"):
            if pod["status"]["phase"] in ("Pending", "Running") and "deletionTimestamp" not in pod["metadata"]:
                name: str = pod["metadata"]["name"]
                return name
        time.sleep(0.1)
    raise AssertionError(f"no pod of {job}")


def mark_running(namespace: Namespace, name: str) -> None:
    """Report the container as running."""
    _write(namespace, name, _patch("Running", {"running": {"startedAt": "2026-01-02T03:04:05Z"}}))


def mark_waiting(namespace: Namespace, name: str, reason: str, message: str) -> None:
    """Report a container that cannot be started."""
    _write(namespace, name, _patch("Pending", {"waiting": {"reason": reason, "message": message}}))


def mark_ended(
    namespace: Namespace, name: str, summary: RunSummary | str, exit_code: int = 0, reason: str = ""
) -> None:
    """Report the container as ended long ago, with this termination message: a Job makes the next pod at once."""
    message = summary if isinstance(summary, str) else summary.to_termination_message()
    state = {"terminated": _end(message, exit_code, reason)}
    _write(namespace, name, _patch("Failed" if exit_code else "Succeeded", state))


def mark_ended_now(namespace: Namespace, name: str, summary: RunSummary, exit_code: int) -> None:
    """Report the container as ended at this moment: a Job waits ten seconds before the next pod."""
    _write(namespace, name, ended(summary, exit_code))


def mark_outlived(namespace: Namespace, name: str, summary: RunSummary, exit_code: int = 0) -> None:
    """Report the container as ended, in a pod that another container keeps running."""
    _write(namespace, name, _patch("Running", {"terminated": _end(summary.to_termination_message(), exit_code)}))


def _end(message: str, exit_code: int, reason: str = "") -> Manifest:
    return {
        "exitCode": exit_code,
        "reason": reason or ("Error" if exit_code else "Completed"),
        "message": message,
        "startedAt": "2026-01-02T03:04:05Z",
        "finishedAt": "2026-01-02T03:05:05Z",
    }


def running() -> Manifest:
    """Return the pod's status, as a patch, when its container begins now."""
    return _patch("Running", {"running": {"startedAt": to_timestamp(datetime.now(UTC))}})


def ended(summary: RunSummary, exit_code: int = 0) -> Manifest:
    """Return the pod's status, as a patch, when its container ends now with this summary."""
    now = to_timestamp(datetime.now(UTC))
    end = _end(summary.to_termination_message(), exit_code) | {"startedAt": now, "finishedAt": now}
    return _patch("Failed" if exit_code else "Succeeded", {"terminated": end})


def _write(namespace: Namespace, name: str, patch: Manifest) -> None:
    change = json.dumps(patch)
    namespace.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", change)


def _patch(phase: str, state: Manifest) -> Manifest:
    container = {"name": "runner", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    return {"status": {"phase": phase, "containerStatuses": [container]}}
