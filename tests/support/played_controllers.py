"""The Job controller, the kubelet and the TTL controller of a played API server: a step at a time, when a test says so.

They do what Kubernetes documents of Jobs with a podFailurePolicy and podReplacementPolicy Failed
(https://kubernetes.io/docs/concepts/workloads/controllers/job/).
"""

from typing import Any

from anomaly_api.reasons import COMPLETED, FINAL_EXIT_CODES, ExitCode, Reason
from anomaly_api.run import RunSummary
from anomaly_api.status import Artifacts, MetricValues, Stage
from anomaly_operator import names
from anomaly_operator.resources import Manifest
from support.played_api import PlayedApi


class PlayedControllers:
    """What happens to Jobs and pods.

    Args:
        api: the API server.
    """

    def __init__(self, api: PlayedApi) -> None:
        self._api = api
        self._made = 0
        self._drained: dict[str, list[Manifest]] = {}  # UID of the Job -> pods that were deleted once they had ended

    def jobs(self) -> list[Manifest]:
        """Return the Jobs that have not ended."""
        return [job for job in self._api.all("jobs") if not has_ended(job)]

    def active_pods(self, job: Manifest) -> list[Manifest]:
        """Return the Job's pods that have not ended."""
        return [pod for pod in self.pods_of(job) if pod["status"]["phase"] in ("Pending", "Running")]

    def pods_of(self, job: Manifest) -> list[Manifest]:
        """Return the Job's pods, oldest first."""
        pods = [pod for pod in self._api.all("pods") if pod["metadata"]["labels"]["uid"] == job["metadata"]["uid"]]
        return sorted(pods, key=lambda pod: int(pod["metadata"]["labels"]["made"]))

    def sync(self, job: Manifest) -> None:
        """Do the next thing that the Job controller does with a Job."""
        active = self.active_pods(job)
        if job["spec"].get("suspend"):
            self._suspend(job, active)
            return
        if end := _end_of(job, self.counted_pods(job)):
            self._finish(job, *end)
        elif not active:
            self._make_pod(job)
        self._count(job["metadata"]["name"])

    def counted_pods(self, job: Manifest) -> list[Manifest]:
        """Return the Job's pods, and those that are gone, but were counted: a finalizer keeps a pod until it is."""
        return [*self._drained.get(job["metadata"]["uid"], []), *self.pods_of(job)]

    def has_drained(self, job: Manifest) -> bool:
        """Whether a pod of the Job is gone that had ended."""
        return job["metadata"]["uid"] in self._drained

    def drain(self, pod: Manifest) -> None:
        """Delete a pod that has ended, as a drained node does."""
        self._drained.setdefault(pod["metadata"]["labels"]["uid"], []).append(pod)
        self._api.remove("pods", pod["metadata"]["name"])

    def _suspend(self, job: Manifest, active: list[Manifest]) -> None:
        for pod in active:
            self._api.remove("pods", pod["metadata"]["name"])
        self._api.change("jobs", job["metadata"]["name"], {"status": {"startTime": None, "active": 0}})

    def _make_pod(self, job: Manifest) -> None:
        self._made += 1
        meta = job["metadata"]
        owner = {"kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
        labels = {"uid": meta["uid"], "made": str(self._made), names.JOB_NAME_LABEL: meta["name"]}
        metadata = {
            "name": f"{meta['name']}-{self._made}",
            "namespace": meta["namespace"],
            "labels": labels | {names.MANAGED_BY_LABEL: names.MANAGED_BY},
            "ownerReferences": [owner],
        }
        self._api.add("pods", {"metadata": metadata, "status": {"phase": "Pending"}})

    def _count(self, name: str) -> None:
        job = self._api.objects["jobs", name]
        pods = self.counted_pods(job)
        counts: Manifest = {
            "active": len(self.active_pods(job)),
            "failed": max(job.get("status", {}).get("failed", 0), _number(pods, "Failed")),
            "succeeded": max(job.get("status", {}).get("succeeded", 0), _number(pods, "Succeeded")),
        }
        started = job.get("status", {}).get("startTime") or self._api.now()
        self._api.change("jobs", name, {"status": counts | {"startTime": started}})

    def _finish(self, job: Manifest, kind: str, reason: str) -> None:
        condition = {
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": "as played",
            "lastTransitionTime": self._api.now(),
        }
        done = {"completionTime": self._api.now()} if kind == "Complete" else {}
        self._api.change("jobs", job["metadata"]["name"], {"status": {"conditions": [condition]} | done})

    def run_pod(self, pod: Manifest) -> None:
        """Start the container of a pod."""
        self._report(pod, "Running", {"running": {"startedAt": self._api.now()}})

    def end_pod(self, pod: Manifest, reason: Reason) -> None:
        """End the container of a pod as the runner would."""
        stage = Stage.DONE if reason in COMPLETED else Stage.TRAIN
        complete = reason is Reason.COMPLETE
        artifacts = Artifacts(root="s3://results/here") if complete else None
        metrics = MetricValues(image={"AUROC": 0.5}) if complete else None
        summary = RunSummary(reason=reason, stage=stage, message="as played", artifacts=artifacts, metrics=metrics)
        code = int(ExitCode.of(reason))
        end = {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "message": summary.to_termination_message(),
            "finishedAt": self._api.now(),
        }
        self._report(pod, "Failed" if code else "Succeeded", {"terminated": end})

    def _report(self, pod: Manifest, phase: str, state: dict[str, Any]) -> None:
        containers = [{"name": names.CONTAINER, "state": state}]
        change = {"status": {"phase": phase, "containerStatuses": containers}}
        self._api.change("pods", pod["metadata"]["name"], change)

    def collect(self) -> None:
        """Delete what is being deleted, and the Jobs whose time to live is set; that it is over, nobody waits for."""
        self._api.finish_deletions()
        for job in list(self._api.all("jobs")):
            if has_ended(job) and job["spec"].get("ttlSecondsAfterFinished") is not None:
                self._api.remove("jobs", job["metadata"]["name"])


def has_ended(job: Manifest) -> bool:
    """Whether a Job is Complete or Failed."""
    return bool(job.get("status", {}).get("conditions"))


def exit_code(pod: Manifest) -> int:
    """Return the exit code of a pod that has ended."""
    code: int = pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
    return code


def _number(pods: list[Manifest], phase: str) -> int:
    return sum(pod["status"]["phase"] == phase for pod in pods)


def _end_of(job: Manifest, pods: list[Manifest]) -> tuple[str, str] | None:
    """Return how the Job has ended: the type and the reason of its condition."""
    failed = [pod for pod in pods if pod["status"]["phase"] == "Failed"]
    if _number(pods, "Succeeded"):
        return "Complete", "CompletionsReached"
    if any(exit_code(pod) in FINAL_EXIT_CODES for pod in failed):
        return "Failed", "PodFailurePolicy"
    if len(failed) > job["spec"]["backoffLimit"]:
        return "Failed", "BackoffLimitExceeded"
    return None
