"""The trials of a sweep: experiments that the operator makes, and what the search is told of each."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from anomaly_api import API_VERSION
from anomaly_api.reasons import Reason
from anomaly_api.status import ConditionType, NodeTime, Phase, RunStatus
from anomaly_api.sweep import Constraint, Sweep
from anomaly_api.sweep_exchange import (
    INFEASIBLE,
    InvalidTrial,
    NewTrial,
    TrialRecord,
    TrialState,
    by_path,
    epochs_of,
    filled,
)
from anomaly_api.sweep_status import Trial
from anomaly_operator import names
from anomaly_operator.decide.conditions import find_true
from anomaly_operator.decide.desired import DesiredSearch
from anomaly_operator.decide.specs import experiment_spec
from anomaly_operator.decide.times import from_timestamp
from anomaly_operator.resources import Manifest
from anomaly_operator.views import RunView

EARLIER_POINTS = 5
"""Best trials of earlier searches of the same resource that are tried first."""


@dataclass(frozen=True, slots=True)
class SeenTrial:
    """A trial as its resource shows it."""

    name: str
    version: int
    """resourceVersion."""
    search: str | None
    """The search that it belongs to."""
    gpus: int
    """GPUs that it has (count)."""
    record: TrialRecord
    """With the GPU-hours of its pods that are gone or have ended."""
    on_node_since: datetime | None = None
    """Since when its present pod has been on a node, and may hold its GPUs; None while none is."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.record.state != "Running"

    def at(self, now: datetime) -> "SeenTrial":
        """Return it as it is now: a pod on a node uses its GPUs, one that waits uses none."""
        if self.is_over or self.on_node_since is None:
            return self
        hours = self.record.gpu_hours + self.gpus * (now - self.on_node_since).total_seconds() / 3600
        return replace(self, record=self.record._replace(gpu_hours=hours))


def seen_trial(trial: RunView) -> SeenTrial:
    """Return what a trial's resource shows.

    Raises:
        ValidationError: its spec or status is not one that this version can parse.
    """
    spec, status = experiment_spec(trial.spec), RunStatus.model_validate_json(trial.status)
    which = spec.trial or Trial(sweep=trial.key.name, number=0)
    started = from_timestamp(status.start_time) if status.start_time else None
    ended = from_timestamp(status.completion_time) if status.completion_time else None
    on_nodes, gpus = status.node_time or NodeTime(), spec.scheduling.gpus.count
    # A point that cannot be is infeasible before anything is recorded of its trial.
    state, reason = ("Infeasible", Reason.INVALID_CONFIG) if which.problem else _state(status)
    record = TrialRecord(
        number=which.number,
        rung=which.rung,
        replicate=which.replicate,
        values=which.values,
        state=state,
        metrics=by_path(status.metrics),
        gpu_hours=gpus * on_nodes.seconds / 3600,
        started=started,
        ended=ended,
        reason=reason,
        curve=filled(epochs_of(status.curve, which.objective)),
    )
    since = from_timestamp(on_nodes.since) if on_nodes.since else None
    return SeenTrial(trial.key.name, trial.resource_version, which.search, gpus, record, since)


def best_of_earlier(trials: Iterable[SeenTrial], sweep: Sweep) -> tuple[dict[str, Any], ...]:
    """Return the points of the best trials of earlier searches, best first: the next one begins with them.

    The first objective decides; trials beyond a constraint are left out.
    """
    objective = sweep.objectives[0]
    sign = -1.0 if objective.goal == "maximize" else 1.0
    complete = (trial for trial in trials if trial.record.state == "Complete")
    usable = (trial for trial in complete if _is_within(trial.record.metrics, sweep.constraints))
    measured = (trial for trial in usable if objective.metric in trial.record.metrics)

    def rank(trial: SeenTrial) -> tuple[float, int, str]:
        # The name last: trials of two searches may have the same number and the same value.
        return sign * trial.record.metrics[objective.metric], trial.record.number, trial.name

    records = (trial.record for trial in sorted(measured, key=rank))
    # Replicates and fidelities of one point are one point.
    points = {json.dumps(record.values, sort_keys=True): dict(record.values) for record in records}
    return tuple(points.values())[:EARLIER_POINTS]


def _is_within(metrics: Mapping[str, float], constraints: Iterable[Constraint]) -> bool:
    return all(
        (bound.max is None or metrics.get(bound.metric, math.inf) <= bound.max)
        and (bound.min is None or metrics.get(bound.metric, -math.inf) >= bound.min)
        for bound in constraints
    )


def _state(status: RunStatus) -> tuple[TrialState, str]:
    complete = find_true(status.conditions, ConditionType.COMPLETE)
    if status.phase is Phase.COMPLETE:
        return ("Pruned" if complete and complete.reason is Reason.PRUNED else "Complete"), ""
    end = find_true(status.conditions, ConditionType.FAILED) or find_true(status.conditions, ConditionType.STALLED)
    # A spec that cannot be read is the fault of its values, too, and nothing will come of waiting.
    if end and (status.phase is Phase.FAILED or end.reason is Reason.SPEC_INVALID):
        is_infeasible = end.reason in INFEASIBLE or end.reason is Reason.SPEC_INVALID
        return ("Infeasible" if is_infeasible else "Failed"), end.reason.value
    return "Running", ""


def trial_manifest(sweep: RunView, desired: DesiredSearch, new: NewTrial | InvalidTrial) -> Manifest:
    """Make a trial's manifest: what a person would have written, owned by the sweep, and which trial it is."""
    objective = desired.sweep.objectives[0].metric
    which = new.spec["trial"] | {"sweepUid": sweep.uid, "search": desired.search, "objective": objective}
    # The deadline is that of the whole sweep.
    policy = {name: value for name, value in new.spec.get("runPolicy", {}).items() if name != "activeDeadlineSeconds"}
    owner = {"apiVersion": API_VERSION, "kind": sweep.key.kind, "name": sweep.key.name, "uid": sweep.uid}
    return {
        "apiVersion": API_VERSION,
        "kind": "AnomalyExperiment",
        "metadata": {
            "name": new.name,
            "namespace": sweep.key.namespace,
            "labels": names.trial_labels(sweep.key.name, new.which.number),
            "ownerReferences": [owner | {"controller": True}],
        },
        "spec": new.spec | {"runPolicy": policy, "trial": which},
    }
