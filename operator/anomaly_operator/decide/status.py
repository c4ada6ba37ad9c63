"""The status of a run, computed from everything that is known about it.

A finished run's status is a record: it is written once and never computed again, because the Job and pods that it
came from may have been collected.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any, cast

from pydantic import ValidationError

from anomaly_api.reasons import Reason
from anomaly_api.run import RunSummary
from anomaly_api.status import (
    ConditionType,
    Device,
    Display,
    MetricValues,
    Phase,
    Progress,
    RunStatus,
    Stage,
    StepFailure,
    StepName,
    StepStatus,
    TrainedBy,
)
from anomaly_api.sweep_exchange import by_path
from anomaly_operator.decide.conditions import ConditionState, update_conditions
from anomaly_operator.decide.desired import Blocked, DesiredJob, DesiredState
from anomaly_operator.decide.node_time import node_time, whole_node_time
from anomaly_operator.decide.observed import ObservedState, Refusal
from anomaly_operator.decide.outcome import Outcome, attempt_outcome, job_outcome
from anomaly_operator.decide.outlived import ends_run
from anomaly_operator.decide.phase import WARNING_REASONS, RunPhase, current_phase
from anomaly_operator.decide.runs import is_finished, kept_of_run, last_complete
from anomaly_operator.decide.specs import experiment_spec
from anomaly_operator.decide.steps import search_failure, seconds_spent
from anomaly_operator.decide.sweep_end import WARNING_LIMIT, measured_again, no_page, told_failure
from anomaly_operator.decide.times import to_age, to_timestamp
from anomaly_operator.views import JobView, RunView


def compute_status(
    run: RunView,
    old: RunStatus,
    desired: DesiredState,
    observed: ObservedState,
    now: datetime,
) -> RunStatus:
    """Compute what the resource's status should say.

    Args:
        run: the resource.
        old: what is recorded of this run.
        desired: what should exist for it.
        observed: what exists for it after this reconcile's actions.
        now: the current time, for transitions of conditions and, where nothing better is known, the run's end.
    """
    # The end of a run is recorded once and kept.
    if is_finished(old):
        return _kept_record(run, old, observed.experiment)
    # A Job of another owner, such as an earlier resource of the same name, says nothing about this run.
    observed = _without_foreign_job(run, observed)
    # A finished Job is the end of the run, and so is a runner that is done while its pod cannot finish.
    outcome = job_outcome(observed.job, observed.pods, seconds_spent(old)) if observed.job else None
    if outcome is None and observed.outlived and ends_run(observed.outlived):
        outcome = attempt_outcome(observed.outlived)
    if observed.job and outcome and outcome.complete and observed.job.step:
        return _status_between_steps(run, old, observed, observed.job, outcome, now=now)
    failure = search_failure(old)
    if observed.job and outcome:
        told = told_failure(failure, outcome) if failure else outcome
        return _finished_status(run, old, observed, observed.job, told, now=now)
    if failure and observed.refusal:
        return _failed_without_page(run, old, failure, observed.refusal, now=now)
    if isinstance(desired, Blocked) and desired.final:
        return _impossible_status(run, old, desired, now=now)
    # Everything else is a phase of an unfinished run.
    trained_by = desired.trained_by if isinstance(desired, DesiredJob) else old.trained_by
    phase = current_phase(desired, observed, has_started=old.start_time is not None)
    if failure:
        phase = replace(
            phase, message=f"the search failed, {failure}; its page: {phase.reason} {phase.message}".strip()
        )
    return _unfinished_status(run, old, observed, phase, trained_by, now=now)


def _kept_record(run: RunView, old: RunStatus, experiment: RunView | None) -> RunStatus:
    conditions = (found.model_copy(update={"observed_generation": run.generation}) for found in old.conditions)
    return old.model_copy(
        update={
            "observed_generation": run.generation,
            "conditions": tuple(conditions),
            "trained_by": _with_newer_run(old.trained_by, experiment),
        }
    )


def _with_newer_run(used: TrainedBy | None, experiment: RunView | None) -> TrainedBy | None:
    """Return the run whose model was used, with the number of a later one that is Complete."""
    if used is None or experiment is None:
        return used
    try:
        newest = last_complete(RunStatus.model_validate_json(experiment.status))
    except ValidationError:  # its own reconcile tells of it; the record of this run stays as it is
        return used
    is_newer = newest and (experiment.uid, newest.run) != (used.uid, used.run or 1)
    return used.model_copy(update={"newer_run": newest.run if newest and is_newer else None})


def _without_foreign_job(run: RunView, observed: ObservedState) -> ObservedState:
    if observed.job is None or observed.job.is_controlled_by(run.uid):
        return observed
    return ObservedState(refusal=observed.refusal)


def _failed_without_job(
    run: RunView, old: RunStatus, end: ConditionState, *, now: datetime, **fields: Any
) -> RunStatus:
    """Return the status of a run that fails although no Job has failed."""
    true = {ConditionType.FAILED: end, ConditionType.STALLED: end}
    stamp = to_timestamp(now)
    return RunStatus(
        observed_generation=run.generation,
        phase=Phase.FAILED,
        conditions=update_conditions(
            old.conditions, true, false_reason=end.reason, generation=run.generation, now=stamp
        ),
        completion_time=stamp,
        **kept_of_run(old) | fields,
    )


def _impossible_status(run: RunView, old: RunStatus, desired: Blocked, *, now: datetime) -> RunStatus:
    """Return the status of a run that nobody can help, and that never had a Job."""
    end, display = ConditionState(desired.reason, desired.message), _display(None, desired.reason.value)
    return _failed_without_job(run, old, end, now=now, display=display)


def _status_between_steps(
    run: RunView, old: RunStatus, observed: ObservedState, job: JobView, outcome: Outcome, *, now: datetime
) -> RunStatus:
    """Return the status of a run with a step that is done while others follow: what it found out is recorded in it."""
    attempts = _attempts(old, observed)
    earlier = tuple(step for step in old.steps or () if step.name != job.step)
    done = StepStatus(
        name=cast(StepName, job.step),
        job_name=job.name,
        attempts=attempts - sum(step.attempts for step in earlier),
        start_time=_start_time(job),
        completion_time=_completion_time(job, now),
        listing=outcome.summary.listing if outcome.summary else None,
    )
    return RunStatus(
        observed_generation=run.generation,
        phase=Phase.PENDING,
        conditions=update_conditions(
            old.conditions,
            {
                ConditionType.RECONCILING: ConditionState(Reason.PENDING),
                ConditionType.DATA_READY: ConditionState(Reason.DATA_READY, outcome.message),
            },
            false_reason=Reason.PENDING,
            generation=run.generation,
            now=to_timestamp(now),
        ),
        start_time=old.start_time or _start_time(job),
        job_name=job.name,
        attempts=attempts,
        mlflow=old.mlflow,
        trained_by=old.trained_by,
        warnings=outcome.summary.warnings if outcome.summary else (),
        **kept_of_run(old) | {"steps": (*earlier, done)},
    )


def _unfinished_status(
    run: RunView,
    old: RunStatus,
    observed: ObservedState,
    current: RunPhase,
    trained_by: TrainedBy | None,
    *,
    now: datetime,
) -> RunStatus:
    stage, progress = _stage_and_progress(old, observed, current)
    update = observed.progress
    # The device of a step that only prepares the work says nothing about the work.
    is_work = observed.job is not None and observed.job.step is None
    device = (update.device if update and is_work else None) or old.device
    attempts = _attempts(old, observed)
    return RunStatus(
        observed_generation=run.generation,
        phase=current.phase,
        conditions=update_conditions(
            old.conditions,
            {current.condition: ConditionState(current.reason, current.message)},
            false_reason=current.reason,
            generation=run.generation,
            now=to_timestamp(now),
        ),
        stage=stage,
        progress=progress,
        start_time=old.start_time or (_start_time(observed.job) if attempts else None),
        job_name=observed.job.name if observed.job else old.job_name,
        attempts=attempts,
        mlflow=(update.mlflow if update else None) or old.mlflow,
        device=device,
        trained_by=trained_by,
        warnings=_early_warnings(device),
        display=_display(None, _progress_text(stage, progress) or _obstacle(current)),
        **kept_of_run(old) | _of_trial(run, old, observed, now),
    )


def _finished_status(
    run: RunView, old: RunStatus, observed: ObservedState, job: JobView, outcome: Outcome, *, now: datetime
) -> RunStatus:
    summary = outcome.summary
    stage = summary.stage if summary else old.stage
    # A pod that left no summary left no results.
    results = summary or RunSummary(reason=outcome.reason, stage=stage or Stage.STARTING)
    return RunStatus(
        observed_generation=run.generation,
        phase=Phase.COMPLETE if outcome.complete else Phase.FAILED,
        conditions=update_conditions(
            old.conditions,
            _final_conditions(outcome),
            _denied_conditions(outcome, job),
            false_reason=outcome.reason,
            generation=run.generation,
            now=to_timestamp(now),
        ),
        stage=stage,
        start_time=old.start_time or _start_time(job),
        completion_time=_completion_time(job, now),
        job_name=job.name,
        attempts=_attempts(old, observed),
        metrics=results.metrics,
        thresholds=results.thresholds,
        images=results.images,
        curve=results.curve,
        artifacts=results.artifacts,
        mlflow=results.mlflow or old.mlflow,
        device=old.device if job.step else results.device or old.device,
        trained_by=results.trained_by or old.trained_by,
        warnings=results.warnings,
        display=_display(results.metrics, _progress_text(stage, None), _objective(run, old, results.metrics)),
        **kept_of_run(old) | _of_sweep(run, old, results.metrics) | _of_trial_that_ended(run, old, observed, job, now),
    )


def _failed_without_page(
    run: RunView, old: RunStatus, failure: StepFailure, refusal: Refusal, *, now: datetime
) -> RunStatus:
    """Return the status of a run whose search failed, and whose page nobody may make."""
    return _failed_without_job(
        run,
        old,
        ConditionState(failure.reason, failure.message),
        now=now,
        stage=Stage.SEARCH,
        start_time=old.start_time,
        job_name=old.job_name,
        attempts=old.attempts,
        mlflow=old.mlflow,
        warnings=(no_page(refusal.message),),
    )


def _early_warnings(device: Device | None) -> tuple[str, ...]:
    """Return what a person should know before the run ends."""
    return (f"the run is on the CPU: {device.fallback}"[:WARNING_LIMIT],) if device and device.fallback else ()


def _final_conditions(outcome: Outcome) -> dict[ConditionType, ConditionState]:
    state = ConditionState(outcome.reason, outcome.message or _default_message(outcome))
    if outcome.complete:
        return {ConditionType.COMPLETE: state}
    # kstatus knows Stalled, not Failed: GitOps tools report the failure by it.
    return {ConditionType.FAILED: state, ConditionType.STALLED: state}


def _denied_conditions(outcome: Outcome, job: JobView) -> dict[ConditionType, ConditionState]:
    """Return the conditions that became False for a reason of their own: a check that failed."""
    if job.step != "check":
        return {}
    return {ConditionType.DATA_READY: ConditionState(outcome.reason, outcome.message)}


def _default_message(outcome: Outcome) -> str:
    """Return where the results are, for an outcome without a message."""
    artifacts = outcome.summary.artifacts if outcome.summary else None
    return f"results are in {artifacts.root}" if artifacts and artifacts.root else ""


def _stage_and_progress(
    old: RunStatus, observed: ObservedState, current: RunPhase
) -> tuple[Stage | None, Progress | None]:
    """Return what a running pod pushed last, or what is recorded if the operator has just started."""
    if current.phase is not Phase.RUNNING:
        return None, None
    if observed.progress:
        return observed.progress.stage, observed.progress.progress
    return old.stage or Stage.STARTING, old.progress


def _start_time(job: JobView | None) -> str | None:
    """Return when the Job could first create a pod (RFC 3339).

    It is recorded once there is a pod; until then the spec may change, because nothing has been done by it.
    """
    if job is None:
        return None
    return job.start_time or (None if job.suspend else job.creation_time)


def _completion_time(job: JobView, now: datetime) -> str:
    """Return when the Job completed or failed (RFC 3339)."""
    end = job.finished_condition
    return job.completion_time or (end.last_transition_time if end else None) or to_timestamp(now)


def _attempts(old: RunStatus, observed: ObservedState) -> int:
    """Count the pods of the run's Jobs; the count never falls, although deleted pods are no longer seen."""
    job = observed.job
    counted_by_job = job.active + job.failed + job.succeeded if job else 0
    of_earlier_steps = sum(step.attempts for step in old.steps or () if job is None or step.job_name != job.name)
    return max(old.attempts, of_earlier_steps + max(counted_by_job, len(observed.pods)))


def _of_sweep(run: RunView, old: RunStatus, metrics: MetricValues | None) -> dict[str, object]:
    """Return what the end of a sweep says of its best trial."""
    if old.sweep is None:
        return {}
    return {"sweep": measured_again(experiment_spec(run.spec), old, metrics)}


def _of_trial(run: RunView, old: RunStatus, observed: ObservedState, now: datetime) -> dict[str, object]:
    """Return what the status of a trial alone says while it is not over; a step that prepares it holds no GPU."""
    if run.sweep_key is None or observed.job is None or observed.job.step is not None:
        return {}
    return {"node_time": node_time(old.node_time, observed.pods, now)}


def _of_trial_that_ended(
    run: RunView, old: RunStatus, observed: ObservedState, job: JobView, now: datetime
) -> dict[str, object]:
    if run.sweep_key is None or job.step is not None:
        return {}
    return {"node_time": whole_node_time(old.node_time, job, observed.pods, _completion_time(job, now))}


def _objective(run: RunView, old: RunStatus, metrics: MetricValues | None) -> str | None:
    """Return the value of the sweep's first objective, for the columns of a trial and of a sweep."""
    if metrics is None or not (old.sweep or run.sweep_key):
        return None
    spec = experiment_spec(run.spec)
    path = spec.trial.objective if spec.trial else spec.sweep.objectives[0].metric if spec.sweep else None
    value = by_path(metrics).get(path) if path else None
    return None if value is None else f"{value:.6g}"


def _display(metrics: MetricValues | None, progress: str | None, objective: str | None = None) -> Display | None:
    image = metrics.image if metrics else {}
    display = Display(
        auroc=_rounded(image.get("AUROC")),
        f1=_rounded(image.get("F1Score")),
        objective=objective,
        progress=progress,
    )
    return display if display != Display() else None


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _obstacle(current: RunPhase) -> str | None:
    """Return the reason of a run that somebody has to help; it stands where the progress would."""
    needs_help = current.reason in WARNING_REASONS or current.condition is ConditionType.STALLED
    return current.reason.value if needs_help else None


def _progress_text(stage: Stage | None, progress: Progress | None) -> str | None:
    if stage is None:
        return None
    if progress is None:
        return stage.value
    left = f", {to_age(progress.remaining_seconds)} left" if progress.remaining_seconds else ""
    return f"{stage.value} {progress.percent}%{left}"
