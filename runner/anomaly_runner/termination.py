"""The end of a run: its exit code, its termination message for the kubelet, and a line in the log.

This is the only place where every failure is caught.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from anomaly_api.reasons import COMPLETED, ExitCode, Reason
from anomaly_api.run import RunReport, RunSummary
from anomaly_api.status import Stage
from anomaly_runner.context import Context
from anomaly_runner.errors import (
    MESSAGE_LIMIT,
    InternalError,
    OutOfMemory,
    RunFailed,
    Stopped,
)
from anomaly_runner.preflight.checked import Checked
from anomaly_runner.publish import Published
from anomaly_runner.system.full_disk import full_disk, is_full_disk
from anomaly_runner.system.out_of_memory import describe_out_of_memory, is_out_of_memory, memory_advice

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedRun:
    """The outcome of a run.

    Attributes:
        exit_code: of the process.
        summary: the termination message.
        report: present where the run has results, even if it failed.
    """

    exit_code: ExitCode
    summary: RunSummary
    report: RunReport | None = None

    @property
    def left_nothing(self) -> bool:
        """Whether it failed, and no report tells of it; a run that was stopped goes on one day."""
        return self.report is None and self.exit_code not in (ExitCode.DONE, ExitCode.STOPPED)


def capture_failures(work: Callable[[], Published | Checked], context: Context) -> FinishedRun:
    """Execute a run and turn its result or its failure into an outcome; never raises.

    Args:
        work: executes the run until its results are stored, or the step check of it.
        context: for the tracker, progress and warnings.
    """
    try:
        done = work()
    except RunFailed as error:
        return _failed(error, context)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the edge of the program: everything becomes an exit code
        return _failed(_as_run_failed(error, context), context)
    if isinstance(done, Checked):
        return FinishedRun(ExitCode.DONE, done.summary)
    return _published(done, context)


def _published(done: Published, context: Context) -> FinishedRun:
    """Pass stored results to the tracker; the termination message holds them even if the tracker is down."""
    summary = done.report.summary
    try:
        context.tracker.finish(done.tracked)
    except RunFailed as error:
        return _untracked(error, done.report)
    except Exception as error:  # noqa: BLE001 - a tracker's fault loses no results
        return _untracked(_as_run_failed(error, context), done.report)
    # A run whose export failed is published like any other, but fails.
    if summary.reason in COMPLETED:
        context.progress.enter(Stage.DONE, 0, "images")
    else:
        _log_failure(summary.reason, summary.message)
    summary = summary.model_copy(update={"mlflow": context.tracker.status()})
    return FinishedRun(ExitCode.of(summary.reason), summary, done.report)


def _untracked(error: RunFailed, report: RunReport) -> FinishedRun:
    """The outcome of a run whose results are stored, but which the tracker does not have."""
    _log_failure(error.reason, str(error), _unexpected(error))
    lost = {"reason": error.reason, "message": str(error)[:MESSAGE_LIMIT], "stage": Stage.PUBLISH}
    return FinishedRun(error.exit_code, report.summary.model_copy(update=lost), report)


def _log_failure(reason: Reason, detail: str | None, cause: BaseException | None = None) -> None:
    logger.error("run failed", extra={"reason": reason.value, "detail": detail}, exc_info=cause)


def _unexpected(error: RunFailed) -> BaseException | None:
    """What a fault of this program comes from, for the log."""
    return error.__cause__ if isinstance(error, InternalError) else None


def _as_run_failed(error: BaseException, context: Context) -> RunFailed:
    """Turn a library's exception into a RunFailed; the traceback of an unexpected one goes to the log."""
    if is_out_of_memory(error):
        return OutOfMemory(describe_out_of_memory(error, memory_advice(context.run.kind, context.progress.stage)))
    logger.error("unexpected failure", exc_info=error)
    if is_full_disk(error):
        return full_disk(error)
    return InternalError(f"{type(error).__name__}: {error}")


def _failed(error: RunFailed, context: Context) -> FinishedRun:
    message = str(error)[:MESSAGE_LIMIT]
    _log_failure(error.reason, message, _unexpected(error))
    context.tracker.fail(f"{error.reason.value}: {message}", stopped=isinstance(error, Stopped))
    return FinishedRun(error.exit_code, failure_summary(error, context.progress.stage, context))


def failure_summary(error: RunFailed, stage: Stage, context: Context | None = None) -> RunSummary:
    """The termination message of a run that failed."""
    return RunSummary(
        reason=error.reason,
        message=str(error)[:MESSAGE_LIMIT],
        stage=stage,
        mlflow=context.tracker.status() if context else None,
        device=context.record.device if context else None,
        warnings=context.record.warnings if context else (),
    )


def write_termination_message(summary: RunSummary, file: Path) -> None:
    """Write the summary to the file that the kubelet reads; a failure to do so is logged."""
    try:
        file.write_text(summary.to_termination_message(), encoding="utf-8")
    except OSError as error:
        logger.warning("cannot write %s: %s", file, error)
