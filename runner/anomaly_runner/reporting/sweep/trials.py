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

from anomaly_api.reasons import Reason
from anomaly_api.run import FAILURE, REPORT, RunIdentity, RunReport, SweepResult
from anomaly_api.status import Device
from anomaly_api.sweep import Sweep
from anomaly_api.sweep_exchange import RunOfPoint, by_path, ended_as, trial_name
from anomaly_api.sweep_status import Trial as TrialIdentity
from anomaly_api.sweep_trial import replicate_points, rung_point
from anomaly_runner.storage import Store
from anomaly_runner.storage.s3 import THREADS
from anomaly_runner.system.parallel import ordered_map
from anomaly_search.trials import State, Trial

_NEVER = datetime.min.replace(tzinfo=UTC)
_NUMBERS = re.compile(r"-t(\d+)(?:-g(\d+))?(?:-r(\d+))?$")
_LONGEST_PREFIX = 200
"""Characters of a sweep's name with which its trials' names begin; the rest of a longer one may be a digest."""
_CURVES = {"image.AUROC": "imageAUROC", "image.F1Max": "imageF1Max", "pixel.AUROC": "pixelAUROC"}
"""Names of metrics in a training's curve."""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One run of one point, as its report has it.

    Attributes:
        name: of its experiment.
        folder: of its artifacts below the output location, NAMESPACE/NAME/UID.
        report: name of the report's file there.
        number, rung, replicate: which run of which point, each from 0.
        state: how it ended.
        reason: why, in one word; empty if it is complete.
        message: the same for people.
        values: of the searched parameters that apply, by path.
        settings: of the fields that its replicate and its rung set, by path.
        metrics: by path, as objectives have them.
        seed: dataset.seed of its spec.
        curve: the first objective on the validation images by epoch, counted from 0.
        gpu_hours: of the pod that finished it.
        started: when that pod began, UTC.
        seconds: wall time of that pod's stages.
    """

    name: str
    folder: str
    report: str
    number: int
    rung: int
    replicate: int
    state: State
    reason: str = ""
    message: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    seed: int | None = None
    curve: Mapping[int, float] = field(default_factory=dict)
    gpu_hours: float = 0.0
    started: datetime | None = None
    seconds: float = 0.0

    @property
    def which(self) -> tuple[int, int, int]:
        """Number, rung and replicate."""
        return self.number, self.rung, self.replicate

    @property
    def ended(self) -> datetime | None:
        """When it was over, UTC."""
        return self.started + timedelta(seconds=self.seconds) if self.started else None


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
    found: dict[tuple[int, int, int], TrialResult] = {}
    unreadable: list[str] = []
    reader = _Reader(output.subfolder(run.namespace), run, search)
    for results, broken in ordered_map(reader.read, names, THREADS):
        unreadable += broken
        for result in results:
            found[result.which] = _better_known(found.get(result.which), result)
        done(1)
    return FoundTrials(tuple(found[which] for which in sorted(found)), tuple(unreadable))


def _better_known(first: TrialResult | None, second: TrialResult) -> TrialResult:
    """The one to be kept of two runs of a trial, which was deleted and ran again: one with results, else the later."""
    if first is None:
        return second
    return max(first, second, key=lambda one: (one.state is not State.FAILED, one.started or _NEVER))


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
    summary, experiment = report.summary, report.config.experiment
    seconds = sum(report.seconds.values())
    state = state_of(summary.reason)
    return TrialResult(
        name=report.run.name,
        folder=folder,
        report=file,
        number=trial.number,
        rung=trial.rung,
        replicate=trial.replicate,
        state=state,
        reason="" if state is State.COMPLETE else summary.reason.value,
        message=summary.message,
        values=dict(trial.values),
        settings=_settings(sweep, trial.rung, trial.replicate),
        metrics={path: float(value) for path, value in by_path(summary.metrics).items()},
        seed=experiment.dataset.seed if experiment else None,
        curve=_curve(report, sweep),
        gpu_hours=gpu_hours(summary.device, seconds),
        started=datetime.fromisoformat(report.started) if report.started else None,
        seconds=seconds,
    )


def state_of(reason: Reason) -> State:
    """How a trial ended, from the reason of its run's end."""
    return State.PRUNED if reason.value == State.PRUNED.value else State(ended_as(reason))


def gpu_hours(device: Device | None, seconds: float) -> float:
    """GPU hours of a pod that worked for some seconds; 0 on CPUs."""
    return device.count * seconds / 3600 if device and device.name != "CPU" else 0.0


def _settings(sweep: Sweep, rung: int, replicate: int) -> dict[str, Any]:
    points = replicate_points(sweep)
    of_replicate = points[replicate] if replicate < len(points) else {}
    return of_replicate | rung_point(sweep, rung)


def _curve(report: RunReport, sweep: Sweep) -> dict[int, float]:
    curve = report.summary.curve
    if curve is None or curve.metric != _CURVES.get(sweep.objectives[0].metric):
        return {}
    return {epochs - 1: value for epochs, value in curve.points}


def as_trial(result: TrialResult, sweep: Sweep) -> Trial:
    """The trial in the terms of the search."""
    return Trial(
        number=result.number,
        parameters=result.values,
        state=result.state,
        objectives=tuple(map(result.metrics.get, (one.metric for one in sweep.objectives))),
        constraints=tuple(map(result.metrics.get, (one.metric for one in sweep.constraints))),
        rung=result.rung,
        replicate=result.replicate,
        curve=result.curve,
        gpu_hours=result.gpu_hours,
        started=result.started,
        ended=result.ended,
        reason=result.reason,
    )
