"""How a run ended, or one attempt at it: read from the Job's conditions and its pods' termination messages.

A pod's own RunSummary is trusted as long as it agrees with the exit code; otherwise the exit code decides.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from anomaly_api.reasons import COMPLETED, ExitCode, Reason
from anomaly_api.run import RunSummary
from anomaly_api.status import MAX_WARNINGS
from anomaly_operator.decide.conditions import MESSAGE_LIMIT
from anomaly_operator.views import ConditionView, JobView, PodView, Termination


@dataclass(frozen=True)
class Outcome:
    """The end of a run or of one attempt."""

    reason: Reason
    message: str
    summary: RunSummary | None = None
    """What the pod itself reported; None if it left nothing that can be trusted."""

    @property
    def complete(self) -> bool:
        """Whether the run, or the attempt, completed without a failure."""
        return self.reason in COMPLETED


def job_outcome(job: JobView, pods: Iterable[PodView], earlier_seconds: int = 0) -> Outcome | None:
    """Determine how the Job ended; None while it is not finished.

    Args:
        job: the Job of the step at work.
        pods: its pods, oldest first.
        earlier_seconds: what earlier steps took of the run's deadline.
    """
    end = job.finished_condition
    if end is None:
        return None
    finished = [pod for pod in pods if pod.finished]
    if end.type == "Complete":
        return _complete_job_outcome([pod for pod in finished if pod.phase == "Succeeded"])
    # The Job failed: it exceeded its deadline, or its last failed pod says why, or all its pods are gone.
    if end.reason == "DeadlineExceeded":
        deadline = (job.active_deadline_seconds or 0) + earlier_seconds
        message = f"the run took longer than runPolicy.activeDeadlineSeconds ({deadline} s)"
        return Outcome(Reason.DEADLINE_EXCEEDED, message)
    failed = [pod for pod in finished if pod.phase == "Failed"]
    return attempt_outcome(failed[-1]) if failed else _unexplained_failure(end)


def attempt_outcome(pod: PodView) -> Outcome:
    """Determine how a finished pod ended."""
    if disruption := pod.find_condition("DisruptionTarget"):
        return Outcome(Reason.PREEMPTED, _truncated(disruption.message or disruption.reason))
    if pod.termination is None:
        return Outcome(Reason.RESULT_LOST, f"pod {pod.name} ended without a word from its container")
    if pod.termination.reason == "OOMKilled":
        return Outcome(Reason.OUT_OF_MEMORY, _out_of_memory_message(pod.termination))
    summary = parse_summary(pod.termination.message)
    contradicts_exit_code = summary and (summary.reason in COMPLETED) != (pod.termination.exit_code == 0)
    if summary is None or contradicts_exit_code:
        return _exit_code_outcome(pod.termination)
    return Outcome(summary.reason, summary.message, summary)


def parse_summary(message: str) -> RunSummary | None:
    """Parse a termination message; None if it is not a RunSummary, or has more warnings than a status takes."""
    try:
        summary = RunSummary.model_validate_json(message)
    except ValidationError:
        return None
    return summary if len(summary.warnings) <= MAX_WARNINGS else None


def _complete_job_outcome(succeeded: list[PodView]) -> Outcome:
    """Return the outcome of a completed Job: that of the last pod whose result can be read."""
    outcomes = [attempt_outcome(pod) for pod in succeeded]
    for outcome in reversed(outcomes):
        if outcome.complete:
            return outcome
    if outcomes:
        return outcomes[-1]
    message = "the Job completed, but its pod was deleted before its result was read; delete and apply it again"
    return Outcome(Reason.RESULT_LOST, message)


def _exit_code_outcome(end: Termination) -> Outcome:
    """Determine the outcome by the exit code alone; the container's termination message is quoted."""
    detail = f": {end.message.strip()}" if end.message.strip() else ""
    if end.exit_code == 0:
        return Outcome(Reason.RESULT_LOST, _truncated(f"the pod succeeded, but its result cannot be read{detail}"))
    if end.exit_code == ExitCode.KILLED:
        return Outcome(Reason.OUT_OF_MEMORY, _out_of_memory_message(end))
    try:
        reason = ExitCode(end.exit_code).reason
    except ValueError:
        reason = Reason.INTERNAL_ERROR
    return Outcome(reason, _truncated(f"exit code {end.exit_code}{detail}"))


def _out_of_memory_message(end: Termination) -> str:
    killer = "the kernel" if end.reason == "OOMKilled" else "SIGKILL"
    return (
        f"killed by {killer} (exit code {end.exit_code}): raise scheduling.resources.limits.memory or lower batch sizes"
    )


def _unexplained_failure(end: ConditionView) -> Outcome:
    """Return the outcome of a Job that failed with no pod left to say why."""
    pods_failed = end.reason in ("BackoffLimitExceeded", "PodFailurePolicy")
    reason = Reason.RESULT_LOST if pods_failed else Reason.INTERNAL_ERROR
    return Outcome(reason, _truncated(f"the Job failed ({end.reason}) and its pods are gone: {end.message}"))


def _truncated(text: str) -> str:
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 3] + "..."
