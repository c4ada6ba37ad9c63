"""How a run, or one attempt at it, ended: read from the Job and the pods' last words. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from anomaly_api.reasons import ExitCode, Reason
from anomaly_api.run import RunSummary
from anomaly_operator.views import ConditionView, JobView, PodView, Termination

MESSAGE_LIMIT = 1024


@dataclass(frozen=True)
class Outcome:
    """The end of a run or of one attempt."""

    reason: Reason
    message: str
    summary: RunSummary | None = None

    @property
    def complete(self) -> bool:
        """Whether it did what was asked."""
        return self.reason is Reason.COMPLETE


def job_outcome(job: JobView, pods: Iterable[PodView]) -> Outcome | None:
    """How the run ended; None while it has not."""
    end = job.finished
    if end is None:
        return None
    ended = [pod for pod in pods if pod.finished]
    if end.type == "Complete":
        return _completed([pod for pod in ended if pod.phase == "Succeeded"])
    if end.reason == "DeadlineExceeded":
        message = f"the run took longer than runPolicy.activeDeadlineSeconds ({job.active_deadline} s)"
        return Outcome(Reason.DEADLINE_EXCEEDED, message)
    failures = [pod for pod in ended if pod.phase == "Failed"]
    return attempt_outcome(failures[-1]) if failures else _unexplained(end)


def attempt_outcome(pod: PodView) -> Outcome:
    """How one pod ended."""
    if disruption := pod.condition("DisruptionTarget"):
        return Outcome(Reason.PREEMPTED, _short(disruption.message or disruption.reason))
    if pod.termination is None:
        return Outcome(Reason.RESULT_LOST, f"pod {pod.name} ended without a word from its container")
    if pod.termination.reason == "OOMKilled":
        return Outcome(Reason.OUT_OF_MEMORY, _out_of_memory(pod.termination))
    summary = parse_summary(pod.termination.message)
    if summary is None or (summary.reason is Reason.COMPLETE) != (pod.termination.exit_code == 0):
        return _by_exit_code(pod.termination)
    return Outcome(summary.reason, summary.message, summary)


def parse_summary(message: str) -> RunSummary | None:
    """The RunSummary in a termination message; None where it holds none."""
    try:
        return RunSummary.model_validate_json(message)
    except ValidationError:
        return None


def _completed(pods: list[PodView]) -> Outcome:
    outcomes = [attempt_outcome(pod) for pod in pods]
    for outcome in reversed(outcomes):
        if outcome.complete:
            return outcome
    if outcomes:
        return outcomes[-1]
    message = "the Job completed, but its pod was deleted before its result was read; delete and apply it again"
    return Outcome(Reason.RESULT_LOST, message)


def _by_exit_code(end: Termination) -> Outcome:
    """No summary: the exit code speaks, with what the container left as a message."""
    said = f": {end.message.strip()}" if end.message.strip() else ""
    if end.exit_code == 0:
        return Outcome(Reason.RESULT_LOST, _short(f"the pod succeeded, but its result cannot be read{said}"))
    if end.exit_code == ExitCode.KILLED:
        return Outcome(Reason.OUT_OF_MEMORY, _out_of_memory(end))
    try:
        reason = ExitCode(end.exit_code).reason
    except ValueError:
        reason = Reason.INTERNAL_ERROR
    return Outcome(reason, _short(f"exit code {end.exit_code}{said}"))


def _out_of_memory(end: Termination) -> str:
    how = "the kernel" if end.reason == "OOMKilled" else "SIGKILL"
    return f"killed by {how} (exit code {end.exit_code}): raise scheduling.resources.limits.memory or lower batch sizes"


def _unexplained(end: ConditionView) -> Outcome:
    reason = Reason.RESULT_LOST if end.reason in ("BackoffLimitExceeded", "PodFailurePolicy") else Reason.INTERNAL_ERROR
    return Outcome(reason, _short(f"the Job failed ({end.reason}) and its pods are gone: {end.message}"))


def _short(text: str) -> str:
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 3] + "..."
