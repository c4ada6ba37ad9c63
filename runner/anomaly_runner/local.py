"""A run without a cluster, or the check of it: one folder stands for all storage, a progress bar for the status."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from anomaly_api.reasons import ExitCode, Reason
from anomaly_api.run import RunConfig, RunReport, RunSummary
from anomaly_api.status import Artifacts, ImageCounts, MetricValues, ThresholdValues
from anomaly_runner.context import Context, RunRecord
from anomaly_runner.engine import check, execute
from anomaly_runner.errors import RunFailed
from anomaly_runner.in_cluster import tracker_of
from anomaly_runner.locations import local_stores
from anomaly_runner.manifests import read_resource
from anomaly_runner.preflight.checked import Checked
from anomaly_runner.progress import BarReporter, ProgressMeter, ProgressReporter
from anomaly_runner.publish import Published, leave_failure
from anomaly_runner.reporting.performance_text import performance_rows
from anomaly_runner.system.stop import StopSignal
from anomaly_runner.termination import FinishedRun, capture_failures

_LABELS_SHOWN = 40
"""Rows of the table of labels."""


def run_locally(file: Path, folder: Path) -> int:
    """Run a resource's YAML on local folders, print its result, and return the exit code."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return run_one(read_resource(file, folder), folder)
    except RunFailed as error:
        print_failure(Console(stderr=True), error.reason.value, str(error))
        return error.exit_code


def run_one(config: RunConfig, folder: Path) -> int:
    """Do what a config says on local folders, print its result, and return the exit code.

    Raises:
        RunFailed: the run could not begin.
    """
    console = Console(stderr=True)
    return print_end(run_config(config, folder, [BarReporter(console)]), console)


def check_locally(file: Path, folder: Path) -> int:
    """Check a resource's YAML on local folders without running it, print what was found, and return the exit code."""
    console, found = Console(stderr=True), list[Checked]()

    def work(config: RunConfig, context: Context) -> Checked:
        found.append(check(config, context))
        return found[0]

    try:
        folder.mkdir(parents=True, exist_ok=True)
        config = read_resource(file, folder).model_copy(update={"step": "check"})
        finished = run_config(config, folder, [BarReporter(console)], work)
    except RunFailed as error:
        print_failure(console, error.reason.value, str(error))
        return error.exit_code
    for checked in found:
        print_check(checked, Console())
    return print_end(finished, console)


def run_config(
    config: RunConfig,
    folder: Path,
    reporters: Sequence[ProgressReporter],
    work: Callable[[RunConfig, Context], Published | Checked] = execute,
    *,
    scratch: Path | None = None,
    record: RunRecord | None = None,
) -> FinishedRun:
    """Do what a config says on local folders.

    Args:
        config: the run.
        folder: stands for all storage.
        reporters: observers of its progress.
        work: what is done.
        scratch: folder in which the run makes one for its temporary files; by default ``folder``.
        record: takes what the run records about itself.
    """
    own = Path(tempfile.mkdtemp(prefix=".work-", dir=scratch or folder))
    tracker = tracker_of(config, folder)
    try:
        with StopSignal().listening() as stop, ProgressMeter(reporters) as progress:
            context = Context(
                run=config.run,
                stores=local_stores(folder, config),
                work=own,
                progress=progress,
                stop=stop,
                tracker=tracker,
                record=record or RunRecord(),
            )
            finished = capture_failures(lambda: work(config, context), context)
            if finished.left_nothing:
                leave_failure(config, finished.summary, context)
            return finished
    finally:
        shutil.rmtree(own)


def print_end(finished: FinishedRun, console: Console) -> int:
    """Print the report of a run, if there is one, and why it failed, if it did; return the exit code."""
    if finished.report:
        print_report(finished.report, Console())
    if finished.exit_code is not ExitCode.DONE:
        print_failure(console, finished.summary.reason.value, finished.summary.message)
    return finished.exit_code


def print_failure(console: Console, reason: str, message: str) -> None:
    """Print why something failed."""
    console.print(f"[bold red]{reason}[/]: ", end="")
    console.print(message, markup=False, highlight=False, soft_wrap=True)


def print_check(checked: Checked, console: Console) -> None:
    """Print the number of images of each split and label as a table, what the check says, and its warnings."""
    table = Table("images", "label", "count", title_justify="left")
    rows = [(split, label, count) for split, counts in checked.counts.items() for label, count in counts.most_common()]
    for split, label, count in rows[:_LABELS_SHOWN]:
        table.add_row(split, escape(label), str(count))
    if len(rows) > _LABELS_SHOWN:
        table.add_row("", f"{len(rows) - _LABELS_SHOWN} more labels", "")
    if rows:
        console.print(table)
    console.print(checked.summary.message, markup=False, highlight=False, soft_wrap=True)
    for warning in checked.summary.warnings:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)


def print_report(report: RunReport, console: Console) -> None:
    """Print metrics, thresholds, counts and the artifacts' location as a table, and the warnings below it."""
    summary = report.summary
    metrics, thresholds = summary.metrics or MetricValues(), summary.thresholds or ThresholdValues()
    table = Table(title=f"{report.run.namespace}/{report.run.name}", show_header=False, title_justify="left")
    for level, values in (("image", metrics.image), ("pixel", metrics.pixel)):
        for name, value in values.items():
            table.add_row(f"{level} {name}", f"{value:.6f}{_interval(report, level, name)}")
    for name, value in (metrics.synthetic or {}).items():
        table.add_row(f"synthetic {name}", f"{value:.6f}")
    for name, text in performance_rows(metrics.performance).items():
        table.add_row(name, text)
    for level, threshold in (("image", thresholds.image), ("pixel", thresholds.pixel)):
        if threshold is not None:
            table.add_row(f"{level} threshold", f"{threshold:.6g} ({thresholds.source})")
    for name, text in {**_images(report), **_addresses(report)}.items():
        table.add_row(name, text)
    console.print(table)
    _print_notes(summary, console)


def _images(report: RunReport) -> dict[str, str]:
    """What was learnt and scored; nothing for the end of a search with which nothing was trained."""
    if not report.dataset:
        return {}
    counts = report.summary.images or ImageCounts()
    told = f"{counts.train} learnt, {counts.predicted} scored, {counts.anomalous} anomalous"
    return {"dataset": report.dataset, "images": told}


def _addresses(report: RunReport) -> dict[str, str]:
    """How long it took, and where the results are."""
    artifacts = report.summary.artifacts or Artifacts()
    places = {"artifacts": artifacts.root, "report": artifacts.html, "sweep": artifacts.sweep}
    seconds = ", ".join(f"{stage} {value:.1f}" for stage, value in report.seconds.items())
    return {"seconds": seconds} | {name: place for name, place in places.items() if place is not None}


def _print_notes(summary: RunSummary, console: Console) -> None:
    if summary.reason is Reason.PRUNED:
        console.print(f"{summary.reason}: {summary.message}", markup=False, soft_wrap=True)
    for warning in summary.warnings:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)


def _interval(report: RunReport, level: str, name: str) -> str:
    if level != "image" or name not in report.intervals:
        return ""
    low, high = report.intervals[name]
    return f" (95 %: {low:.3f} to {high:.3f})"
