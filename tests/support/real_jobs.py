"""What Kubernetes lets a Job's status say: inputs of tests that break it describe no cluster.

From the checks of its API server (ValidateJobStatus in pkg/apis/batch/validation) and its documentation of Jobs
(https://kubernetes.io/docs/concepts/workloads/controllers/job/).
"""

from anomaly_operator.resources import Manifest

FAILURES = {"BackoffLimitExceeded", "PodFailurePolicy", "DeadlineExceeded"}
"""Reasons of a failed Job without indexes and success policy."""


def impossible_of_job(job: Manifest) -> list[str]:
    """Return what is impossible about a Job."""
    spec, status = job["spec"], job.get("status", {})
    ended = {found["type"]: found for found in status.get("conditions", []) if found["status"] == "True"}
    started, completed = "startTime" in status, "completionTime" in status
    faults = {
        "Complete and Failed": {"Complete", "Failed"} <= set(ended),
        "an end without a start": not started and bool({"Complete", "Failed"} & set(ended)),
        "an end with pods at work": bool({"Complete", "Failed"} & set(ended)) and status.get("active", 0) > 0,
        "Complete without completionTime, or the other way round": ("Complete" in ended) is not completed,
        "Complete without a success": "Complete" in ended and status.get("succeeded", 0) < 1,
        "Complete for another reason": ended.get("Complete", {}).get("reason") not in (None, "CompletionsReached"),
        "Failed for another reason": "Failed" in ended and ended["Failed"]["reason"] not in FAILURES,
        "DeadlineExceeded without a deadline": _fails_for(ended, "DeadlineExceeded")
        and "activeDeadlineSeconds" not in spec,
        "too few failures for the limit": _fails_for(ended, "BackoffLimitExceeded")
        and status.get("failed", 0) <= spec["backoffLimit"],
        "suspended with pods at work": spec.get("suspend", False) and status.get("active", 0) > 0,
        "pods before the start": not started and any(status.get(n, 0) for n in ("active", "failed", "succeeded")),
    }
    return [fault for fault, is_there in faults.items() if is_there]


def _fails_for(ended: dict[str, Manifest], reason: str) -> bool:
    return ended.get("Failed", {}).get("reason") == reason


def impossible_of_pods(job: Manifest, pods: list[Manifest]) -> list[str]:
    """Return what is impossible about a Job's pods, beside its counts; pods that are gone are still counted."""
    phases = [pod["status"]["phase"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    status = job.get("status", {})
    active = sum(phase in ("Pending", "Running") for phase in phases)
    return [
        *(["more active pods than counted"] if active > status.get("active", 0) else []),
        *(["more failures than counted"] if phases.count("Failed") > status.get("failed", 0) else []),
    ]
