"""What passes between whoever runs the trials of a sweep, a cluster or a laptop, and the search.

Plain values: they are pickled on their way into the process of the search and back, and neither side of that loads the
other's libraries by reading them.
"""

import hashlib
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

from anomaly_api.reasons import Reason
from anomaly_api.status import Curve, Device, MetricValues
from anomaly_api.sweep_status import StopReason

Json = dict[str, Any]

TrialState = Literal["Running", "Complete", "Pruned", "Infeasible", "Failed"]
"""Running: begun and not over, be it at work or waiting. Infeasible: cannot work with these values."""

INFEASIBLE = frozenset({Reason.OUT_OF_MEMORY, Reason.DIVERGED, Reason.INVALID_CONFIG})
"""Failures that are about a trial's values: they teach the search, and do not count as failed."""

SYNTHETIC = "synthetic."
"""How the paths of metrics of synthetic defects begin."""
NAME_LIMIT = 253
"""Longest name of a resource, characters."""
DIGEST_LENGTH = 8
"""Hexadecimal digits of the digest in a shortened name."""


class RunOfPoint(NamedTuple):
    """Which run of which point; all of them count from 0."""

    number: int
    rung: int = 0
    replicate: int = 0


class TrialRecord(NamedTuple):
    """What is known of one run of a point.

    Attributes:
        values: of the searched parameters, by path, as in spec.trial.
        metrics: by the paths that objectives have: image.AUROC, performance.modelBytes.
        gpu_hours: used so far.
        reason: why it is over, unless it is complete.
        curve: the objective on validation images by epoch, counted from 0.
    """

    number: int
    rung: int
    replicate: int
    values: Mapping[str, Any]
    state: TrialState
    metrics: Mapping[str, float] = {}
    gpu_hours: float = 0.0
    started: datetime | None = None
    ended: datetime | None = None
    reason: str = ""
    curve: Mapping[int, float] = {}

    @property
    def which(self) -> RunOfPoint:
        """Which run it is."""
        return RunOfPoint(self.number, self.rung, self.replicate)


class NewTrial(NamedTuple):
    """A trial to start.

    Attributes:
        name: of its experiment.
        values: of the searched parameters, by path.
        spec: of its experiment, with spec.trial.
        repeats: number of an earlier trial with the same values, where the search has no other ones.
    """

    which: RunOfPoint
    name: str
    values: Mapping[str, Any]
    spec: Json
    repeats: int | None = None


class InvalidTrial(NamedTuple):
    """A point whose values are not valid together: it is infeasible without a run.

    Whoever keeps it as a record with the state Infeasible keeps its number; otherwise the number is asked again.

    Attributes:
        problem: why they are not.
        spec: of an experiment that stands for it, with the sweep's own values and spec.trial.
    """

    which: RunOfPoint
    name: str
    values: Mapping[str, Any]
    problem: str
    spec: Json

    def record(self) -> TrialRecord:
        """Return what is known of it."""
        return TrialRecord(*self.which, values=self.values, state="Infeasible", reason=Reason.INVALID_CONFIG)


class SweepEnd(NamedTuple):
    """Why a sweep is over, or waits, in one word and for people."""

    reason: StopReason
    message: str


class Plan(NamedTuple):
    """What is to be done now.

    Attributes:
        starts: trials to start.
        stops: runs that are at work though the sweep is over.
        end: the sweep is over, and why.
        waits: why nothing more is started although the sweep is not over yet.
        invalid: points that were suggested and cannot be run.
    """

    starts: tuple[NewTrial, ...] = ()
    stops: tuple[RunOfPoint, ...] = ()
    end: SweepEnd | None = None
    waits: SweepEnd | None = None
    invalid: tuple[InvalidTrial, ...] = ()


class Winner(NamedTuple):
    """The best point, and the spec with which it is trained in full under the sweep's own name."""

    number: int
    values: Mapping[str, Any]
    spec: Json


def trial_name(sweep: str, which: RunOfPoint, search_run: int = 1) -> str:
    """Return the name of a trial's experiment: ``NAME-t0012``, and ``NAME-s2-t0012-g1-r2``.

    Args:
        sweep: name of the sweep.
        which: the run; ``-g`` is its rung and ``-r`` its replicate, each unless it is 0.
        search_run: which run of the sweep, from 1; later ones have trials of their own.
    """
    run = f"-s{search_run}" if search_run > 1 else ""
    rung = f"-g{which.rung}" if which.rung else ""
    replicate = f"-r{which.replicate}" if which.replicate else ""
    suffix = f"{run}-t{which.number:04d}{rung}{replicate}"
    return _shortened(sweep, NAME_LIMIT - len(suffix)) + suffix


def ended_as(reason: str) -> TrialState:
    """Return the state of a trial whose run is over for this reason."""
    if reason == Reason.COMPLETE:
        return "Complete"
    if reason == Reason.PRUNED:
        return "Pruned"
    return "Infeasible" if reason in INFEASIBLE else "Failed"


def by_path(metrics: MetricValues | None) -> dict[str, float]:
    """Return metrics by the paths that objectives have, without those that are not finite."""
    groups = metrics.model_dump() if metrics else {}
    named = {f"{group}.{name}": value for group, values in groups.items() for name, value in (values or {}).items()}
    return {path: value for path, value in named.items() if math.isfinite(value)}


def watched_metric(objective: str) -> str:
    """Return what a training calls the metric of an objective; validations with synthetic defects say so beside it."""
    return objective.removeprefix(SYNTHETIC).replace(".", "")


def epochs_of(curve: Curve | None, objective: str | None) -> dict[int, float]:
    """Return the values of a curve by epoch, counted from 0; nothing for that of other metrics or defects."""
    if curve is None or objective is None:
        return {}
    is_synthetic = objective.startswith(SYNTHETIC)
    if is_synthetic != bool(curve.synthetic) or curve.metric != watched_metric(objective):
        return {}
    return {count - 1: value for count, value in curve.points}


def filled(curve: dict[int, float]) -> dict[int, float]:
    """Return the curve with a value at each epoch from its first to its last: a status keeps some of many points."""
    filled: dict[int, float] = {}
    for epoch in range(min(curve, default=0), max(curve, default=-1) + 1):
        filled[epoch] = curve.get(epoch, filled.get(epoch - 1, 0.0))
    return filled


def gpu_hours(device: Device | None, seconds: float) -> float:
    """Return the GPU-hours of a run of some seconds; 0 on CPUs."""
    return 0.0 if device is None or device.name == "CPU" else device.count * seconds / 3600


def _shortened(name: str, limit: int) -> str:
    if len(name) <= limit:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:DIGEST_LENGTH]
    return f"{name[: limit - DIGEST_LENGTH - 1].rstrip('-.')}-{digest}"
