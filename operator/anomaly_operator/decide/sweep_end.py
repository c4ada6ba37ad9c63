"""The end of a sweep in its resource's status: what the last Job is told, and what it measured.

A search that failed ends in a report alone, and the run fails for what the search failed for, whatever becomes of that.
"""

from dataclasses import replace

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.run import RunSummary
from anomaly_api.status import MetricValues, RunStatus, Stage, StepFailure
from anomaly_api.sweep_end import remeasured, unused_seed, winners_spec
from anomaly_api.sweep_status import SweepStatus
from anomaly_operator.decide.outcome import Outcome

WARNING_LIMIT = 256
"""Longest warning of a status, characters."""


def sweep_end(spec: ExperimentSpec, status: RunStatus) -> ExperimentSpec:
    """Return what is trained at the end of a sweep, or, without a best point, what is told of in a report.

    Args:
        spec: the experiment with the sweep.
        status: what its search found.

    Raises:
        ValidationError: the best point's values are not valid together.
    """
    if status.sweep is None or not status.sweep.best:
        return spec.model_copy(update={"sweep": None})
    return ExperimentSpec.model_validate(winners_spec(spec, status.sweep.best[0].values or {}))


def measured_again(spec: ExperimentSpec, status: RunStatus, metrics: MetricValues | None) -> SweepStatus | None:
    """Return the sweep's status with what the training in full of its best point measured.

    Args:
        spec: the experiment with the sweep.
        status: what its search found.
        metrics: what its last Job measured; None if it failed, or trained nothing.
    """
    found = status.sweep
    if metrics is None or found is None or spec.sweep is None or not found.best:
        return found
    again = remeasured(spec.sweep, found.best[0], metrics, unused_seed(spec.dataset.seed, spec.sweep))
    return found.model_copy(update={"remeasured": again}).bounded()


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
