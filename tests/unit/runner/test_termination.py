"""Every end of a run has its exit code, reason and termination message."""

import errno
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Never

import pytest

from anomaly_api.reasons import ExitCode, Reason
from anomaly_api.run import RunConfig, RunReport, RunSummary
from anomaly_api.status import Device, MetricValues, MlflowStatus, Progress, Stage
from anomaly_runner import errors
from anomaly_runner.context import Context
from anomaly_runner.preflight.checked import Checked
from anomaly_runner.progress import ProgressMeter
from anomaly_runner.publish import Published
from anomaly_runner.system.stop import StopSignal
from anomaly_runner.termination import FinishedRun, capture_failures, failure_summary, write_termination_message
from anomaly_runner.tracking.tracker import TrackedResult
from support.contexts import RUN, make_context
from support.optional import not_none


class RecordingTracker:
    def __init__(self, fault: Exception | None = None) -> None:
        self.failure: str | None = None
        self.fault = fault

    def start(self, parameters: Mapping[str, str]) -> None:
        pass

    def check(self, still_wanted: Callable[[], None]) -> None:
        """Refuse nothing."""

    def probe(self, still_wanted: Callable[[], None]) -> None:
        """Always there."""

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def status(self) -> MlflowStatus:
        return MlflowStatus(run_id="r")

    def finish(self, result: TrackedResult) -> None:
        self.finished = result
        if self.fault is not None:
            raise self.fault

    def fail(self, message: str, *, stopped: bool = False) -> None:
        self.failure, self.stopped = message, stopped


class Watching:
    """Takes down the progress."""

    def __init__(self, seen: list[tuple[Stage, Progress]]) -> None:
        self.seen = seen

    def report(self, stage: Stage, progress: Progress) -> None:
        self.seen.append((stage, progress))

    def close(self) -> None:
        """Nothing to release."""


def context_at(stage: Stage, tracker: RecordingTracker) -> Context:
    context = make_context(tracker=tracker)
    context.progress.enter(stage, 0, "images")
    return context


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Reason and detail of each line about a run that failed."""
    lines = [record.__dict__ for record in caplog.records if record.message == "run failed"]
    return [(line["reason"], line["detail"]) for line in lines]


def leaves(kind: type[errors.RunFailed] = errors.RunFailed) -> list[type[errors.RunFailed]]:
    return [kind] if not kind.__subclasses__() else [leaf for child in kind.__subclasses__() for leaf in leaves(child)]


@pytest.mark.parametrize("kind", leaves(), ids=lambda kind: kind.__name__)
def test_every_failure_has_an_exit_code_and_a_reason(
    kind: type[errors.RunFailed], caplog: pytest.LogCaptureFixture
) -> None:
    tracker = RecordingTracker()
    context = context_at(Stage.PREDICT, tracker)
    context.record.warn("beware")
    context.record.device = Device(name="NVIDIA L4", provider="torch cuda")

    def work() -> Never:
        raise kind("because")

    ending = capture_failures(work, context)
    assert ending.exit_code is kind.exit_code
    assert ending.summary.reason is kind.exit_code.reason
    assert (ending.summary.message, ending.summary.stage) == ("because", Stage.PREDICT)
    assert ending.summary.warnings == ("beware",)
    assert not_none(ending.summary.mlflow).run_id == "r"
    assert (ending.summary.device, ending.report) == (context.record.device, None)
    assert logged(caplog) == [(kind.exit_code.reason.value, "because")]
    assert tracker.failure == f"{kind.exit_code.reason.value}: because"
    assert tracker.stopped == (kind is errors.Stopped)


def test_what_failed_before_there_was_a_context_is_told_without_it() -> None:
    assert failure_summary(errors.InvalidConfig("no such file"), Stage.STARTING) == RunSummary(
        reason=Reason.INVALID_CONFIG, message="no such file", stage=Stage.STARTING
    )


def test_failures_cover_all_exit_codes_of_a_run() -> None:
    codes = {kind.exit_code for kind in leaves()}
    assert codes == set(ExitCode) - {ExitCode.DONE, ExitCode.KILLED}


def test_the_tree_in_the_docstring_is_complete() -> None:
    for kind in leaves():
        assert f"{kind.__name__} " in errors.__doc__
        assert str(int(kind.exit_code)) in errors.__doc__


class OutOfMemoryError(RuntimeError):
    """An error with the name of torch's."""


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (MemoryError("no room"), Reason.OUT_OF_MEMORY),
        (OutOfMemoryError("CUDA out of memory"), Reason.OUT_OF_MEMORY),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            Reason.OUT_OF_MEMORY,
        ),
        (ZeroDivisionError("division by zero"), Reason.INTERNAL_ERROR),
        (SystemExit(), Reason.INTERNAL_ERROR),
    ],
)
def test_what_libraries_raise(raised: BaseException, reason: Reason, caplog: pytest.LogCaptureFixture) -> None:
    def work() -> Never:
        raise raised

    ending = capture_failures(work, context_at(Stage.TRAIN, RecordingTracker()))
    assert ending.summary.reason is reason
    assert ending.exit_code is not ExitCode.DONE
    if reason is Reason.INTERNAL_ERROR:
        assert ending.summary.message == f"{type(raised).__name__}: {raised}"
        (line,) = [record for record in caplog.records if record.message == "unexpected failure"]
        assert not_none(line.exc_info)[1] is raised, "its place is found in the log"
    else:
        assert "lower training.trainBatchSize" in not_none(ending.summary.message)


def test_an_inference_that_runs_out_of_memory_is_told_what_it_has() -> None:
    def work() -> Never:
        raise MemoryError("no room")

    inference = make_context(run=RUN.model_copy(update={"kind": "AnomalyInference"}))
    inference.progress.enter(Stage.PREDICT, 0, "images")
    assert "lower batchSize" in not_none(capture_failures(work, inference).summary.message)


@pytest.mark.parametrize(
    "raised",
    [
        OSError(errno.ENOSPC, "No space left on device", "/work/report.html"),
        RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 576 vs 534"),  # torch's word for it
    ],
)
def test_a_full_disk_is_a_failure_of_the_storage_whoever_meets_it(raised: Exception) -> None:
    """Another pod, perhaps on another node, may have room."""

    def work() -> Never:
        raise raised

    ending = capture_failures(work, context_at(Stage.PUBLISH, RecordingTracker()))
    assert ending.exit_code is ExitCode.STORAGE_UNAVAILABLE
    assert str(raised) in not_none(ending.summary.message)


STORED = RunSummary(reason=Reason.COMPLETE, stage=Stage.DONE, metrics=MetricValues(image={"AUROC": 0.5}))
SPEC = {
    "dataset": {"source": {"s3": {"uri": "s3://data"}}},
    "model": {"name": "padim"},
    "output": {"s3": {"uri": "s3://results"}},
}


OUT_OF_MEMORY = "out of memory: raise scheduling.resources.limits.memory (no room)"


def published(summary: RunSummary) -> Published:
    config = RunConfig.model_validate({"run": RUN, "experiment": SPEC})
    return Published(RunReport(run=RUN, summary=summary, config=config), TrackedResult(metrics={"a": 1}, artifacts=()))


@pytest.mark.parametrize(
    ("summary", "exit_code", "percent"),
    [
        (STORED, ExitCode.DONE, 100),
        (STORED.model_copy(update={"reason": Reason.PRUNED, "stage": Stage.TRAIN}), ExitCode.DONE, 100),
        (STORED.model_copy(update={"reason": Reason.EXPORT_MISMATCH, "message": "m"}), ExitCode.EXPORT_MISMATCH, 94),
    ],
)
def test_results_are_passed_to_the_tracker_and_end_the_run(
    summary: RunSummary, exit_code: ExitCode, percent: int, caplog: pytest.LogCaptureFixture
) -> None:
    """One whose export failed has results, but fails."""
    seen = list[tuple[Stage, Progress]]()
    tracker, done = RecordingTracker(), published(summary)
    context = replace(context_at(Stage.PUBLISH, tracker), progress=ProgressMeter([Watching(seen)]))
    context.progress.enter(Stage.PUBLISH, 2, "files")
    ending = capture_failures(lambda: done, context)
    assert (ending.exit_code, ending.report, tracker.finished) == (exit_code, done.report, done.tracked)
    assert ending.summary == summary.model_copy(update={"mlflow": MlflowStatus(run_id="r")})
    ended = (Stage.DONE, Progress(total=0, unit="images", percent=100))
    assert seen[-1] == (ended if percent == 100 else (Stage.PUBLISH, Progress(total=2, unit="files", percent=percent)))
    assert logged(caplog) == ([] if percent == 100 else [("ExportMismatch", "m")])


def test_a_check_that_found_nothing_is_done_and_tells_the_tracker_nothing() -> None:
    tracker = RecordingTracker()
    ending = capture_failures(lambda: Checked(STORED, {}), context_at(Stage.CHECK, tracker))
    assert ending == FinishedRun(ExitCode.DONE, STORED)
    assert tracker.failure is None
    assert not hasattr(tracker, "finished")


@pytest.mark.parametrize(
    ("fault", "exit_code", "message"),
    [
        (errors.TrackingDenied("all is stored, but no"), ExitCode.TRACKING_DENIED, "all is stored, but no"),
        (errors.TrackingUnavailable("no answer"), ExitCode.TRACKING_UNAVAILABLE, "no answer"),
        (errors.InternalError("a fault"), ExitCode.INTERNAL_ERROR, "a fault"),
        (KeyError("x"), ExitCode.INTERNAL_ERROR, "KeyError: 'x'"),
        (
            MemoryError("no room"),
            ExitCode.OUT_OF_MEMORY,
            OUT_OF_MEMORY,
        ),
        (errors.TrackingDenied("m" * 2000), ExitCode.TRACKING_DENIED, "m" * 1024),
    ],
)
def test_results_that_the_tracker_does_not_get_are_told_all_the_same(
    fault: Exception, exit_code: ExitCode, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    done = published(STORED)
    ending = capture_failures(lambda: done, context_at(Stage.PUBLISH, RecordingTracker(fault)))
    assert (ending.exit_code, ending.report) == (exit_code, done.report)
    [(reason, detail)] = logged(caplog)
    assert (reason, detail[:1024]) == (exit_code.reason.value, message)
    assert ending.summary == STORED.model_copy(
        update={"reason": exit_code.reason, "message": message, "stage": Stage.PUBLISH}
    )


def test_a_fault_in_the_tracker_has_its_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    fault = errors.InternalError("a fault")
    fault.__cause__ = KeyError("the place to look at")
    capture_failures(lambda: published(STORED), context_at(Stage.PUBLISH, RecordingTracker(fault)))
    assert "the place to look at" in caplog.text


@pytest.mark.parametrize(
    ("kind", "is_told"), [(errors.InternalError, True), (errors.TrackingUnavailable, False), (errors.Stopped, False)]
)
def test_a_fault_that_was_found_before_the_end_has_its_traceback_in_the_log(
    kind: type[errors.RunFailed], is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> Never:
        raise kind("told in words") from KeyError("the place to look at")

    capture_failures(work, context_at(Stage.CHECK, RecordingTracker()))
    assert ("the place to look at" in caplog.text) is is_told


def test_a_termination_message_that_cannot_be_written_does_not_hide_the_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "missing" / "file"
    write_termination_message(STORED, file)
    (record,) = caplog.records
    assert record.message.startswith(f"cannot write {file}: [Errno 2] No such file or directory")


def test_a_termination_message_is_text_in_utf_8(tmp_path: Path) -> None:
    summary = STORED.model_copy(update={"message": "r\u00e9sum\u00e9"})
    write_termination_message(summary, tmp_path / "file")
    assert RunSummary.model_validate_json((tmp_path / "file").read_bytes().decode()) == summary


def pod(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "anomaly_runner", "pod", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("content", "message"), [("{}", "config.run: Field required"), ("not json", "Invalid JSON"), (None, "cannot read")]
)
def test_a_config_that_cannot_be_read(tmp_path: Path, content: str | None, message: str) -> None:
    config, words = tmp_path / "run.json", tmp_path / "words"
    if content is not None:
        config.write_text(content)
    done = pod("--config", str(config), "--work", str(tmp_path / "work"), "--termination", str(words))
    assert done.returncode == ExitCode.INVALID_CONFIG
    summary = RunSummary.model_validate_json(words.read_text())
    assert summary.reason is Reason.INVALID_CONFIG
    assert message in not_none(summary.message)
    assert json.loads(done.stderr.splitlines()[-1])["reason"] == "InvalidConfig"


def test_sigterm_sets_the_flag_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal().listening() as stop:
        stop.check()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(errors.Stopped):
            stop.check()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_pod_ends_whatever_its_libraries_do_at_shutdown() -> None:
    code = (
        "import atexit, time; atexit.register(time.sleep, 600); print('said', end='')\n"
        "from anomaly_runner.cli import _end; _end(3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (3, "said")
