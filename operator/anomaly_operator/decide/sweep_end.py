"""The end of a sweep: the winner trained in full, on a seed that no trial used, and what that says of its luck.

The best of many values is partly luck: measured again, it is usually a little worse, and the status says by how much.
A search that failed ends in a report alone, and the run fails for what the search failed for, whatever becomes of that.
"""

from dataclasses import replace

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.run import RunSummary
from anomaly_api.status import MetricValues, RunStatus, Stage, StepFailure
from anomaly_api.sweep import Sweep
from anomaly_api.sweep_space import leads_into
from anomaly_api.sweep_status import Remeasurement, SweepStatus
from anomaly_api.sweep_trial import final_spec
from anomaly_operator.decide.outcome import Outcome

SEED = "dataset.seed"
WARNING_LIMIT = 256
"""Longest warning of a status, characters."""


def sweep_end(spec: ExperimentSpec, status: RunStatus) -> ExperimentSpec:
    """Return what is trained at the end of a sweep: the experiment as it is where no point can be used.

    Args:
        spec: the experiment with the sweep.
        status: what its search found.

    Raises:
        ValidationError: the best point's values are not valid together.
    """
    assert spec.sweep is not None
    if status.sweep is None or not status.sweep.best:
        return spec.model_copy(update={"sweep": None})
    values = dict(status.sweep.best[0].values or {})
    if (seed := unused_seed(spec, spec.sweep)) is not None:
        values[SEED] = seed
    return ExperimentSpec.model_validate(final_spec(spec, values))


def unused_seed(spec: ExperimentSpec, sweep: Sweep) -> int | None:
    """Return a seed of the dataset that no trial used; None if the seed itself was searched."""
    if any(leads_into(SEED, parameter.path) for parameter in sweep.parameters):
        return None
    replicated = [place.values for place in sweep.replicates.paths if place.path == SEED] if sweep.replicates else []
    used = [spec.dataset.seed, *(value for values in replicated for value in values if isinstance(value, int))]
    return max(used) + 1


def remeasured(spec: ExperimentSpec, sweep: SweepStatus, metrics: MetricValues | None) -> SweepStatus:
    """Return the sweep's status with what the full training of the winner measured, beside what the search found."""
    if metrics is None or spec.sweep is None or not sweep.best:
        return sweep
    found = sweep.best[0].objectives
    again = {path: value for path in found if (value := metric(metrics, path)) is not None}
    if not again:
        return sweep
    seed = unused_seed(spec, spec.sweep)
    measurement = Remeasurement(
        objectives=again,
        gap={path: found[path] - value for path, value in again.items()},
        measured_on=f"{SEED} {seed}, which no trial used" if seed is not None else "the values of the best trial",
    )
    return sweep.model_copy(update={"remeasured": measurement})


def metric(metrics: MetricValues, path: str) -> float | None:
    """Return a metric by its path, such as ``image.AUROC``."""
    group, _, name = path.partition(".")
    values: dict[str, float] = getattr(metrics, group, {})
    return values.get(name)


def told_failure(failure: StepFailure, outcome: Outcome) -> Outcome:
    """Return the end of a run whose search failed: for that failure, with what the step report left.

    Args:
        failure: of the search.
        outcome: of the Job that was to tell of it.
    """
    left = outcome.summary if outcome.complete and outcome.summary else None
    if left is None:
        why = no_page(f"{outcome.reason}: {outcome.message}")
        left = RunSummary(reason=outcome.reason, stage=Stage.SEARCH, warnings=(why,))
    summary = left.model_copy(update={"stage": Stage.SEARCH})
    return replace(outcome, reason=failure.reason, message=failure.message, summary=summary)


def no_page(why: str) -> str:
    """Return the warning of a run whose search failed, and of which no page tells."""
    return f"the sweep's page could not be made: {why}"[:WARNING_LIMIT]
