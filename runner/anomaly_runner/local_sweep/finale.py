"""The end of a sweep: a leaderboard; then the best point, trained in full under the sweep's own name, or the page.

The page also tells of a search that failed.
"""

from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.reasons import ExitCode
from anomaly_api.run import REPORT, RunConfig, RunIdentity, RunReport, SweepResult
from anomaly_api.sweep import Sweep
from anomaly_api.sweep_exchange import SweepEnd, Winner
from anomaly_api.sweep_status import SweepStatus
from anomaly_runner.local import print_end, print_failure, print_report, run_config
from anomaly_runner.local_sweep.records import TRIAL_LOG
from anomaly_runner.local_sweep.view import counts_text, leaderboard
from anomaly_runner.progress import BarReporter
from anomaly_search.summary import is_weak


def tell(status: SweepStatus, sweep: Sweep, end: SweepEnd, console: Console) -> None:
    """Print why the search ended and what it found."""
    if status.best:
        console.print(leaderboard(status, sweep.objectives))
    if status.pareto_front:
        front = ", ".join(f"t{point.number:04d}" for point in status.pareto_front)
        console.print(f"Pareto front: {front}", soft_wrap=True)
    for path, share in sorted(status.importances.items(), key=lambda item: -item[1]):
        console.print(f"importance of {path}: {share:.2f}", highlight=False)
    for rung, correlation in enumerate(status.rung_correlation):
        doubt = ": the cheap look says little" if is_weak(correlation) else ""
        console.print(f"rank correlation of rungs {rung} and {rung + 1}: {correlation:.2f}{doubt}", highlight=False)
    console.print(f"{end.reason.value}: {end.message}; {counts_text(status)}", highlight=False, soft_wrap=True)


def finish(run: RunIdentity, search: SweepResult, best: Winner, home: Path, folder: Path) -> int:
    """Do what the sweep's end is, unless that is done already; print its report and return the exit code.

    Args:
        run: the sweep's resource.
        search: what was searched, and what was found.
        best: the best point.
        home: where the results of the sweep's own name lie.
        folder: stands for all storage.
    """
    step, spec = search.spec.final, ExperimentSpec.model_validate(best.spec)
    config = RunConfig(run=run, experiment=spec, step=step, sweep=search)
    what = f"it is trained in full as {run.name}" if step == "train" else "the page has all of them"
    Console().print(f"trial {best.number} is the best: {what}", highlight=False)
    return _end(config, home, folder)


def fail(run: RunIdentity, spec: ExperimentSpec, search: SweepResult, home: Path, folder: Path) -> int:
    """Make the page of a search that failed, print why it did, and return the exit code.

    Args:
        run: the sweep's resource.
        spec: its spec.
        search: what was searched, and why it failed.
        home: where the results of the sweep's own name lie.
        folder: stands for all storage.
    """
    without = spec.model_copy(update={"sweep": None})
    code = _end(RunConfig(run=run, experiment=without, step="report", sweep=search), home, folder)
    logs = f"see each trial's {TRIAL_LOG} below {home.parent.parent}; one whose folder is deleted runs again"
    if search.failure is not None:
        print_failure(Console(stderr=True), search.failure.reason.value, f"{search.failure.message}; {logs}")
    return ExitCode.INTERNAL_ERROR if code == ExitCode.DONE else code


def _end(config: RunConfig, home: Path, folder: Path) -> int:
    """Do the last step unless it is done already, print its report, and return its exit code."""
    if done := _published(config, home / REPORT):
        print_report(done, Console())
        return ExitCode.DONE
    errors = Console(stderr=True)
    return print_end(run_config(config, folder, [BarReporter(errors)]), errors)


def _published(config: RunConfig, file: Path) -> RunReport | None:
    """Return the report of this very run, if it is there."""
    if not file.is_file():
        return None
    try:
        report = RunReport.model_validate_json(file.read_bytes())
    except ValidationError:  # of another version of this program
        return None
    return report if report.config == config else None
