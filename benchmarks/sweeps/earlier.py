"""Trials that a sweep has behind it: made as the operator makes them, with the status that it writes at their end."""

import asyncio
import json
import random
from datetime import UTC, datetime
from typing import Any

from anomaly_api.status import RunStatus
from anomaly_operator import names
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.decide.desired import DesiredSearch, desired_state
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.decide.runs import spec_digest
from anomaly_operator.decide.times import to_timestamp
from anomaly_operator.decide.trials import trial_manifest
from anomaly_operator.resources import EXPERIMENTS, Manifest
from anomaly_operator.views import RunView, run_view
from anomaly_search.session import decide

AT_ONCE = 32
"""Trials that are being made at the same time: a request that waits for a connection runs into its time-out."""
SETTINGS = PodSettings(runner_image="runner", inference_image="inference")


async def make_ended(client: ApiClient, sweep: Manifest, count: int) -> None:
    """Make the first trials of a sweep, all of them Complete, before an operator looks at it.

    Args:
        client: the API server.
        sweep: the sweep, as the API server has it.
        count: trials, at least one.
    """
    run = run_view("AnomalyExperiment", sweep)
    desired = desired_state(run, RunStatus(), None, SETTINGS)
    assert isinstance(desired, DesiredSearch)
    spec = json.loads(run.spec)
    spec["sweep"]["trials"] |= {"parallel": count}
    plan = decide(spec, [], datetime.now(UTC), name=run.key.name)
    assert len(plan.starts) == count
    manifests = [trial_manifest(run, desired, new) for new in plan.starts]
    at_once = asyncio.Semaphore(AT_ONCE)
    await asyncio.gather(*(_make(client, manifest, at_once) for manifest in manifests))


async def _make(client: ApiClient, manifest: Manifest, at_once: asyncio.Semaphore) -> None:
    namespace = manifest["metadata"]["namespace"]
    async with at_once:
        made = run_view("AnomalyExperiment", await client.create(EXPERIMENTS, namespace, manifest))
        await client.patch(EXPERIMENTS, namespace, f"{made.key.name}/status", {"status": _complete(made)})


def _complete(trial: RunView) -> dict[str, Any]:
    moment = to_timestamp(datetime.now(UTC))
    auroc = random.Random(trial.key.name).random()
    root = "s3://results/somewhere"
    conditions = [
        {"type": "Complete", "status": "True", "message": f"results are in {root}"},
        {"type": "Reconciling", "status": "False", "message": ""},
    ]
    common = {"reason": "Complete", "observedGeneration": 1, "lastTransitionTime": moment}
    shown = f"{auroc:.4f}"
    return {
        "phase": "Complete",
        "stage": "done",
        "run": 1,
        "attempts": 1,
        "observedGeneration": 1,
        "jobName": names.job(trial.key, 1),
        "specDigest": spec_digest(trial),
        "startTime": moment,
        "completionTime": moment,
        "conditions": [condition | common for condition in conditions],
        "metrics": {"image": {"AUROC": auroc, "F1Score": auroc}, "pixel": {"AUROC": auroc}, "performance": {}},
        "artifacts": {"root": root, "exports": {}},
        "display": {"auroc": shown, "f1": shown, "objective": f"{auroc:.6g}", "progress": "done"},
        "warnings": [],
    }
