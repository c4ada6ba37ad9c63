"""Job controller and kubelet, played: each new Job has one pod, which runs a while and succeeds.

A process of its own, so that its CPU time is told apart. Four writes a trial: its pod made, running and ended, its Job
Complete. Prints a line of JSON for each Job that has ended, with the monotonic time of the machine. ::

    python -m benchmarks.sweeps.player NAMESPACE SECONDS
"""

import asyncio
import json
import random
import sys
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple

import kopf

from anomaly_api.reasons import Reason
from anomaly_api.run import RunSummary
from anomaly_api.status import Artifacts, MetricValues, Stage
from anomaly_operator import names
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.cluster.credentials import login
from anomaly_operator.decide.times import to_timestamp
from anomaly_operator.resources import JOBS, PODS, Resource
from benchmarks.sweeps.watch import Added, added

COMPLETE = ("SuccessCriteriaMet", "Complete")
CONNECTIONS = 64


class Ended(NamedTuple):
    """A Job that has ended."""

    job: str
    seconds: float
    """time.monotonic() when the API server had answered."""


class Player:
    """Plays the Jobs of a namespace.

    Args:
        client: the API server.
        namespace: where the Jobs are.
        seconds: mean time of a pod; each takes between half and one and a half times as long.
    """

    def __init__(self, client: ApiClient, namespace: str, seconds: float) -> None:
        self._client, self._namespace, self._seconds = client, namespace, seconds
        self._random = random.Random(1)

    async def play(self, job: Added) -> Ended:
        """Make the pod of a Job, let it run, and end both."""
        pod, began = await self._start(job), _now()
        await asyncio.sleep(self._seconds * self._random.uniform(0.5, 1.5))
        await self._write_status(PODS, pod, ended(_summary(self._random.random())))
        conditions = [{"type": kind, "status": "True", "reason": "CompletionsReached"} for kind in COMPLETE]
        done = {"startTime": began, "completionTime": _now(), "succeeded": 1, "conditions": conditions}
        await self._write_status(JOBS, job.name, done)
        return Ended(job.name, time.monotonic())

    async def _start(self, job: Added) -> str:
        pod = f"{job.name}-pod"
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job.name, "uid": job.uid, "controller": True}
        spec = {"containers": [{"name": names.CONTAINER, "image": "x"}], "restartPolicy": "Never"}
        labels = job.labels | {names.JOB_NAME_LABEL: job.name}
        meta = {"name": pod, "labels": labels, "ownerReferences": [owner]}
        await self._client.create(PODS, self._namespace, {"metadata": meta, "spec": spec})
        await self._write_status(PODS, pod, _pod_status("Running", {"running": {"startedAt": _now()}}))
        return pod

    async def _write_status(self, resource: Resource, name: str, status: dict[str, Any]) -> None:
        # A patch: a replaced status would replace the labels as well.
        await self._client.patch(resource, self._namespace, f"{name}/status", {"status": status})


def ended(summary: RunSummary) -> dict[str, Any]:
    """Return the status of a pod that succeeded with this result."""
    end = {"exitCode": 0, "reason": "Completed", "message": summary.to_termination_message(), "finishedAt": _now()}
    return _pod_status("Succeeded", {"terminated": end})


def _pod_status(phase: str, state: dict[str, Any]) -> dict[str, Any]:
    ready = phase == "Running"
    container = {"name": names.CONTAINER, "image": "x", "imageID": "", "ready": ready, "restartCount": 0}
    return {"phase": phase, "containerStatuses": [container | {"state": state}]}


def _now() -> str:
    return to_timestamp(datetime.now(UTC))


def _summary(auroc: float) -> RunSummary:
    metrics = MetricValues(image={"AUROC": auroc, "F1Score": auroc}, pixel={"AUROC": auroc})
    return RunSummary(
        reason=Reason.COMPLETE, stage=Stage.DONE, metrics=metrics, artifacts=Artifacts(root="s3://results/somewhere")
    )


async def main(namespace: str, seconds: float) -> None:
    """Play until the process is ended; a failure ends it."""
    info = login(kopf.OperatorSettings())
    player = Player(ApiClient(lambda: info, connections=CONNECTIONS), namespace, seconds)

    async def play(job: Added) -> None:
        sys.stdout.write(json.dumps(await player.play(job)) + "\n")
        sys.stdout.flush()

    async with asyncio.TaskGroup() as tasks:
        async for job in added(info, JOBS, namespace):
            tasks.create_task(play(job))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
