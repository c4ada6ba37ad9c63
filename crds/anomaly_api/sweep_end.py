"""The end of a sweep: why it failed, or its best point trained in full on a seed that no trial used, and what that says
of its luck.

The best of many values is partly luck: measured again, it is usually a little worse, and the status says by how much.
"""

from collections.abc import Mapping
from itertools import count
from typing import Any

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.reasons import Reason
from anomaly_api.status import MESSAGE_LIMIT, MetricValues, StepFailure
from anomaly_api.sweep import Sweep
from anomaly_api.sweep_exchange import SweepEnd, by_path
from anomaly_api.sweep_space import leads_into
from anomaly_api.sweep_status import BestTrial, Remeasurement, StopReason, SweepStatus
from anomaly_api.sweep_trial import Json, final_spec

SEED = "dataset.seed"
SEEDS = 2**31
"""Values that it may have, from 0."""


def failure_at_end(end: SweepEnd, found: SweepStatus) -> StepFailure | None:
    """Return why a search ended without a point to train; None if it has one.

    Args:
        end: why no further point is tried.
        found: what the search found.
    """
    if end.reason is StopReason.DEADLINE_EXCEEDED:
        return StepFailure(reason=Reason.DEADLINE_EXCEEDED, message=end.message[:MESSAGE_LIMIT])
    if end.reason is StopReason.MAX_FAILED:
        return StepFailure(reason=Reason.TRIALS_FAILED, message=end.message[:MESSAGE_LIMIT])
    if not found.best:
        message = f"no trial can be used: {end.message}"[:MESSAGE_LIMIT]
        return StepFailure(reason=Reason.TRIALS_FAILED, message=message)
    return None


def winners_spec(spec: ExperimentSpec, point: Mapping[str, Any]) -> Json:
    """Return the spec of the training at a sweep's end: ``final_spec`` of its best point, on a seed that no trial used.

    Args:
        spec: an experiment with a sweep.
        point: the best point.
    """
    assert spec.sweep is not None, "the spec of a sweep"
    seed = {} if searches_seed(spec.sweep) else {SEED: unused_seed(spec.dataset.seed, spec.sweep)}
    return final_spec(spec, {**point, **seed})


def searches_seed(sweep: Sweep) -> bool:
    """Whether the dataset's seed is one of the parameters, so that the best point has its own."""
    return any(leads_into(SEED, parameter.path) for parameter in sweep.parameters)


def unused_seed(own: int, sweep: Sweep) -> int:
    """Return the first seed after the sweep's own that none of its replicates has."""
    replicated = [place.values for place in sweep.replicates.paths if place.path == SEED] if sweep.replicates else []
    used = {own, *(value for values in replicated for value in values if isinstance(value, int | float))}
    return next(seed for seed in (following % SEEDS for following in count(own + 1)) if seed not in used)


def remeasured(sweep: Sweep, best: BestTrial, metrics: MetricValues | None, seed: int) -> Remeasurement | None:
    """Return what the training in full measured, beside what the search found; None if it measured none of that.

    Args:
        sweep: the sweep.
        best: its best point.
        metrics: of the training in full.
        seed: the dataset's seed of that training.
    """
    measured, found = by_path(metrics), best.objectives
    again = {path: measured[path] for path in found if path in measured}
    if not again:
        return None
    return Remeasurement(
        objectives=again,
        gap={path: found[path] - value for path, value in again.items()},
        measured_on="the values of the best trial" if searches_seed(sweep) else f"{SEED} {seed}, which no trial used",
    )
