"""Everything that a sweep leaves for people and programs, in one folder: sweep.html, trials.parquet, trials.csv and
optuna-journal.log."""

from pathlib import Path

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.run import SweepResult
from anomaly_api.status import MetricValues, Stage
from anomaly_api.storage import LocationRole
from anomaly_runner.context import Context
from anomaly_runner.reporting.sweep.findings import Findings, judge
from anomaly_runner.reporting.sweep.journal import JOURNAL, write_journal
from anomaly_runner.reporting.sweep.page import PAGE, render
from anomaly_runner.reporting.sweep.table import trial_columns, write_trials
from anomaly_runner.reporting.sweep.trials import find_trials, read_trials


def make_sweep_files(
    search: SweepResult,
    experiment: ExperimentSpec,
    folder: Path,
    context: Context,
    measured: MetricValues | None = None,
) -> None:
    """Read the trials' reports from the output location, and write what is made of them.

    Args:
        search: the sweep and its status.
        experiment: the spec with the winner's values.
        folder: takes the files.
        context: has the output; for progress and stopping.
        measured: what the winner measured when it was trained in full, if it was.

    Raises:
        StorageDenied, StorageUnavailable, DataInvalid: the reports cannot be read.
        Stopped: the run was asked to stop.
    """
    output = context.stores[LocationRole.OUTPUT]
    names = find_trials(output, context.run, search)
    with context.stage(Stage.VISUALIZE, len(names), "trials"):
        found = read_trials(output, context.run, search, names, context.advance)
        write_sweep_files(judge(context.run, search, found), experiment, folder, measured)


def write_sweep_files(
    findings: Findings, experiment: ExperimentSpec, folder: Path, measured: MetricValues | None
) -> None:
    """Write the page, the tables and the journal; ``measured`` as in ``make_sweep_files``."""
    write_trials(trial_columns(findings.spec, findings.trials), folder)
    write_journal(findings, folder / JOURNAL)
    (folder / PAGE).write_text(render(findings, experiment, measured), encoding="utf-8")
