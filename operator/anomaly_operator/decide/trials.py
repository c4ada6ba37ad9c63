"""The trials of a sweep: experiments that the operator makes, and what the search is told of each."""

from datetime import datetime

from anomaly_api import API_VERSION
from anomaly_api.experiment import ExperimentSpec
from anomaly_api.reasons import Reason
from anomaly_api.status import ConditionType, Curve, Phase, RunStatus
from anomaly_api.sweep_exchange import INFEASIBLE, NewTrial, TrialRecord, TrialState, by_path
from anomaly_operator import names
from anomaly_operator.decide.conditions import find_true
from anomaly_operator.decide.desired import DesiredSearch
from anomaly_operator.decide.times import from_timestamp
from anomaly_operator.resources import Manifest
from anomaly_operator.views import RunView


def trial_record(trial: RunView, search: str, now: datetime) -> TrialRecord | None:
    """Return what is known of a trial; None if it belongs to another search.

    Args:
        trial: its resource.
        search: the search that asks.
        now: the current time, until which a trial at work has used its GPUs.

    Raises:
        ValidationError: its spec or status is not one that this version can parse.
    """
    spec = ExperimentSpec.model_validate_json(trial.spec)
    if spec.trial is None or spec.trial.search != search:
        return None
    status = RunStatus.model_validate_json(trial.status)
    started = from_timestamp(status.start_time) if status.start_time else None
    ended = from_timestamp(status.completion_time) if status.completion_time else None
    seconds = ((ended or now) - started).total_seconds() if started else 0.0
    state, reason = _state(status)
    return TrialRecord(
        number=spec.trial.number,
        rung=spec.trial.rung,
        replicate=spec.trial.replicate,
        values=spec.trial.values,
        state=state,
        metrics=by_path(status.metrics),
        gpu_hours=spec.scheduling.gpus.count * seconds / 3600,
        started=started,
        ended=ended,
        reason=reason,
        curve=_filled(epochs_of(status.curve, spec.trial.objective)),
    )


def epochs_of(curve: Curve | None, objective: str | None) -> dict[int, float]:
    """Return the values of a curve by epoch, counted from 0; nothing for the curve of another metric."""
    if curve is None or objective is None or curve.metric != objective.replace(".", ""):
        return {}
    return {count - 1: value for count, value in curve.points}


def _filled(curve: dict[int, float]) -> dict[int, float]:
    """Return the curve with a value at each epoch from its first to its last: a status keeps some of many points."""
    filled: dict[int, float] = {}
    for epoch in range(min(curve, default=0), max(curve, default=-1) + 1):
        filled[epoch] = curve.get(epoch, filled.get(epoch - 1, 0.0))
    return filled


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


def trial_manifest(sweep: RunView, desired: DesiredSearch, new: NewTrial) -> Manifest:
    """Make a trial's manifest: what a person would have written, owned by the sweep, and which trial it is."""
    assert desired.spec.sweep is not None
    objective = desired.spec.sweep.objectives[0].metric
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
