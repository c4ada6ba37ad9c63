"""The trials of a search, from the reports that they left in the output location.

A trial's report is at ``NAMESPACE/NAME-t0012/UID/report.json``. Names alone do not say which search a trial is of: a
sweep may have been deleted and applied again. Its report does, and only those of the same search are kept. A trial
that failed leaves ``failure.json`` there, unless its pod was killed.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from anomaly_api.run import FAILURE, REPORT, RunIdentity, RunReport, SweepResult
from anomaly_api.sweep import Sweep
from anomaly_api.sweep_exchange import RunOfPoint, TrialRecord, by_path, ended_as, epochs_of, gpu_hours, trial_name
from anomaly_api.sweep_status import Trial as TrialIdentity
from anomaly_api.sweep_trial import replicate_points, rung_point
from anomaly_runner.storage import Store
from anomaly_runner.storage.s3 import THREADS
from anomaly_runner.system.parallel import ordered_map

_NEVER = datetime.min.replace(tzinfo=UTC)
_NUMBERS = re.compile(r"-t(\d+)(?:-g(\d+))?(?:-r(\d+))?$")
_LONGEST_PREFIX = 200
"""Characters of a sweep's name with which its trials' names begin; the rest of a longer one may be a digest."""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One run of one point, as its report has it.

    Attributes:
        name: of its experiment.
        folder: of its artifacts below the output location, NAMESPACE/NAME/UID.
        report: name of the report's file there.
        record: what the search knows of it; times and GPU hours are those of the pod that finished it, times in UTC.
        message: why it ended as it did, for people.
        settings: of the fields that its replicate and its rung set, by path.
        seed: dataset.seed of its spec.
        seconds: wall time of that pod's stages.
    """

    name: str
    folder: str
    report: str
    record: TrialRecord
    message: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class FoundTrials:
    """The trials of a search, by number, rung and replicate.

    Attributes:
        results: one for each run that left a report.
        unreadable: folders whose report is none of this version.
    """

    results: tuple[TrialResult, ...]
    unreadable: tuple[str, ...] = ()


def find_trials(output: Store, run: RunIdentity, search: SweepResult) -> list[str]:
    """Names of the folders, below the namespace's, that may be of this search's trials, sorted.

    Raises:
        StorageDenied, StorageUnavailable, DataInvalid: the output cannot be listed.
    """
    first = trial_name(run.name, RunOfPoint(0), search.status.search_run).removesuffix("0000")
    # A long name is cut, and has a digest, by the length of what follows it.
    prefix = first if len(run.name) <= _LONGEST_PREFIX else run.name[:_LONGEST_PREFIX]
    names = output.subfolder(run.namespace).folders(prefix)
    return [name for name in names if _is_trial(name, run.name, search.status.search_run)]


def _is_trial(name: str, sweep: str, search_run: int) -> bool:
    found = _NUMBERS.search(name)
    if found is None:
        return False
    number, rung, replicate = (int(digits or 0) for digits in found.groups())
    return name == trial_name(sweep, RunOfPoint(number, rung, replicate), search_run)


def read_trials(
    output: Store, run: RunIdentity, search: SweepResult, names: Iterable[str], done: Callable[[int], None]
) -> FoundTrials:
    """Read the reports of a search's trials, in parallel.

    Args:
        output: the output location of the sweep and its trials.
        run: the sweep's resource.
        search: which search of it.
        names: of the folders, from ``find_trials``.
        done: called with 1 after each folder; may raise to stop.

    Raises:
        StorageDenied, StorageUnavailable, DataInvalid: a report cannot be read.
    """
    found: dict[RunOfPoint, TrialResult] = {}
    unreadable: list[str] = []
    reader = _Reader(output.subfolder(run.namespace), run, search)
    for results, broken in ordered_map(reader.read, names, THREADS):
        unreadable += broken
        for result in results:
            which = result.record.which
            found[which] = _better_known(found.get(which), result)
        done(1)
    return FoundTrials(tuple(found[which] for which in sorted(found)), tuple(unreadable))


def _better_known(first: TrialResult | None, second: TrialResult) -> TrialResult:
    """The one to be kept of two runs of a trial, which was deleted and ran again: one with results, else the later."""
    if first is None:
        return second
    return max(first, second, key=lambda one: (one.record.state != "Failed", one.record.started or _NEVER))


@dataclass(frozen=True)
class _Reader:
    """Reads the reports below a namespace's folder."""

    store: Store
    run: RunIdentity
    search: SweepResult

    def read(self, name: str) -> tuple[list[TrialResult], list[str]]:
        """Results of the trial in a folder: more than one if it ran again; and folders that could not be understood."""
        results, broken = [], []
        for uid in self.store.subfolder(name).folders():
            try:
                found = self._report(f"{name}/{uid}")
            except ValidationError:
                broken.append(f"{self.run.namespace}/{name}/{uid}")
                continue
            if found is not None:
                results.append(found)
        return results, broken

    def _report(self, folder: str) -> TrialResult | None:
        for file in (REPORT, FAILURE):
            content = self.store.read(f"{folder}/{file}")
            if content is not None:
                report = RunReport.model_validate_json(content)
                return self._result(report, folder, file)
        return None

    def _result(self, report: RunReport, folder: str, file: str) -> TrialResult | None:
        experiment = report.config.experiment
        trial = experiment.trial if experiment else None
        if trial is None or (trial.sweep_uid, trial.search) != (self.run.uid, self.search.status.search):
            return None
        return trial_result(report, trial, self.search.spec, f"{self.run.namespace}/{folder}", file)


def trial_result(report: RunReport, trial: TrialIdentity, sweep: Sweep, folder: str, file: str = REPORT) -> TrialResult:
    """Take what a table of trials needs from a trial's report.

    Args:
        report: of the trial's run.
        trial: which trial it is.
        sweep: that it belongs to.
        folder: of its artifacts below the output location.
        file: name of the report there.
    """
    experiment = report.config.experiment
    return TrialResult(
        name=report.run.name,
        folder=folder,
        report=file,
        record=_record(report, trial, sweep.objectives[0].metric),
        message=report.summary.message,
        settings=_settings(sweep, trial.rung, trial.replicate),
        seed=experiment.dataset.seed if experiment else None,
        seconds=sum(report.seconds.values()),
    )


def _record(report: RunReport, trial: TrialIdentity, objective: str) -> TrialRecord:
    summary, seconds = report.summary, sum(report.seconds.values())
    started = datetime.fromisoformat(report.started) if report.started else None
    state = ended_as(summary.reason)
    return TrialRecord(
        number=trial.number,
        rung=trial.rung,
        replicate=trial.replicate,
        values=dict(trial.values),
        state=state,
        metrics={path: float(value) for path, value in by_path(summary.metrics).items()},
        gpu_hours=gpu_hours(summary.device, seconds),
        started=started,
        ended=started + timedelta(seconds=seconds) if started else None,
        reason="" if state == "Complete" else summary.reason.value,
        curve=epochs_of(summary.curve, objective),
    )


def _settings(sweep: Sweep, rung: int, replicate: int) -> dict[str, Any]:
    points = replicate_points(sweep)
    of_replicate = points[replicate] if replicate < len(points) else {}
    return of_replicate | rung_point(sweep, rung)
