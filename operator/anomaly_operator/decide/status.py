"""The status of a run, from everything known about it. Pure.

A finished run's status is a record: it is written once and then never derived again, because the Job and pods it
came from may be collected.
"""

from datetime import datetime
from typing import Any

from anomaly_api.status import ConditionType, Display, MetricValues, Phase, Progress, RunStatus, Stage
from anomaly_operator.decide.conditions import Holds, conditions
from anomaly_operator.decide.desired import Desired
from anomaly_operator.decide.observed import Observed
from anomaly_operator.decide.outcome import Outcome, job_outcome
from anomaly_operator.decide.situation import Situation, situation
from anomaly_operator.decide.times import to_age, to_timestamp
from anomaly_operator.views import JobView, RunView

FINISHED = (Phase.COMPLETE, Phase.FAILED)


def status(run: RunView, recorded: RunStatus, wanted: Desired, observed: Observed, now: datetime) -> RunStatus:
    """What the resource's status should say."""
    if recorded.phase in FINISHED:
        return _record_kept(run, recorded)
    observed = _own(run, observed)
    outcome = job_outcome(observed.job, observed.pods) if observed.job else None
    if outcome:
        return _ended(run, recorded, observed, outcome, now)
    return _unfinished(run, recorded, observed, situation(wanted, observed), now)


def _own(run: RunView, observed: Observed) -> Observed:
    """Without the Job of an earlier resource of the same name."""
    job = observed.job
    if job is None or (job.owner and job.owner.uid == run.uid):
        return observed
    return Observed(refusal=observed.refusal)


def _record_kept(run: RunView, recorded: RunStatus) -> RunStatus:
    kept = [found.model_copy(update={"observed_generation": run.generation}) for found in recorded.conditions]
    return recorded.model_copy(update={"observed_generation": run.generation, "conditions": tuple(kept)})


def _unfinished(run: RunView, recorded: RunStatus, observed: Observed, where: Situation, now: datetime) -> RunStatus:
    true = {}
    if where.suspended:
        true[ConditionType.SUSPENDED] = Holds(where.reason, where.message)
    elif where.stalled:
        true[ConditionType.STALLED] = Holds(where.reason, where.message)
    else:
        true[ConditionType.RECONCILING] = Holds(where.reason, where.message)
    stage, progress = _progress(recorded, observed, where)
    update = observed.progress
    return RunStatus(
        observed_generation=run.generation,
        phase=where.phase,
        conditions=conditions(to_timestamp(now), run.generation, true, where.reason, recorded.conditions),
        stage=stage,
        progress=progress,
        start_time=recorded.start_time or _start(observed.job),
        job_name=observed.job.name if observed.job else recorded.job_name,
        attempts=_attempts(recorded, observed),
        mlflow=(update.mlflow if update else None) or recorded.mlflow,
        display=_display(None, stage, progress),
    )


def _ended(run: RunView, recorded: RunStatus, observed: Observed, outcome: Outcome, now: datetime) -> RunStatus:
    holds = Holds(outcome.reason, outcome.message or _where(outcome))
    true = (
        {ConditionType.COMPLETE: holds}
        if outcome.complete
        else {
            ConditionType.FAILED: holds,
            ConditionType.STALLED: holds,
        }
    )
    summary = outcome.summary
    job = observed.job
    assert job is not None
    stage = summary.stage if summary else recorded.stage
    return RunStatus(
        observed_generation=run.generation,
        phase=Phase.COMPLETE if outcome.complete else Phase.FAILED,
        conditions=conditions(to_timestamp(now), run.generation, true, outcome.reason, recorded.conditions),
        stage=stage,
        start_time=recorded.start_time or _start(job),
        completion_time=_end(job, now),
        job_name=job.name,
        attempts=_attempts(recorded, observed),
        mlflow=(summary.mlflow if summary else None) or recorded.mlflow,
        display=_display(summary.metrics if summary else None, stage, None),
        **_results(outcome),
    )


def _where(outcome: Outcome) -> str:
    """What to say of a run that had nothing to say itself."""
    artifacts = outcome.summary.artifacts if outcome.summary else None
    return f"results are in {artifacts.root}" if artifacts and artifacts.root else ""


def _results(outcome: Outcome) -> dict[str, Any]:
    if outcome.summary is None:
        return {}
    found = outcome.summary
    return {
        "metrics": found.metrics,
        "thresholds": found.thresholds,
        "images": found.images,
        "artifacts": found.artifacts,
        "warnings": found.warnings,
    }


def _progress(recorded: RunStatus, observed: Observed, where: Situation) -> tuple[Stage | None, Progress | None]:
    """Of a running pod: what it pushed last, else what was recorded (this operator may be young)."""
    if where.phase is not Phase.RUNNING:
        return None, None
    if observed.progress:
        return observed.progress.stage, observed.progress.progress
    return recorded.stage or Stage.STARTING, recorded.progress


def _start(job: JobView | None) -> str | None:
    """When the Job could first make a pod; until then the spec may still change."""
    if job is None:
        return None
    return job.started or (None if job.suspend else job.created)


def _end(job: JobView, now: datetime) -> str:
    end = job.finished
    return job.completed or (end.time if end else None) or to_timestamp(now)


def _attempts(recorded: RunStatus, observed: Observed) -> int:
    """At least as many as can still be seen: deleted pods are not forgotten."""
    job = observed.job
    counted = job.active + job.failed + job.succeeded if job else 0
    return max(recorded.attempts, counted, len(observed.pods))


def _display(metrics: MetricValues | None, stage: Stage | None, progress: Progress | None) -> Display | None:
    image = metrics.image if metrics else {}
    shown = Display(
        auroc=_rounded(image.get("AUROC")),
        f1=_rounded(image.get("F1Score")),
        progress=_progress_text(stage, progress),
    )
    return shown if shown != Display() else None


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _progress_text(stage: Stage | None, progress: Progress | None) -> str | None:
    if stage is None:
        return None
    if progress is None:
        return stage.value
    left = f", {to_age(progress.remaining_seconds)} left" if progress.remaining_seconds else ""
    return f"{stage.value} {progress.percent}%{left}"
