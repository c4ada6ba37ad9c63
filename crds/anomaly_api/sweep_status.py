"""What is known of a sweep: which trial a resource is, and how the whole search goes."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field

from anomaly_api.base import Contract
from anomaly_api.primitives import Name
from anomaly_api.sweep import MAX_TRIALS, MetricPath, Point

SWEEP_STATUS_LIMIT = 32 * 1024
"""Most bytes of a sweep's status as the API server keeps it: JSON without spaces."""

MAX_EARLIER = 15
"""Most points of earlier sweeps that a search begins with."""

EARLIER_LIMIT = 8 * 1024
"""Most bytes that they have in a status, as JSON without spaces."""

MAX_PROBLEM = 1024
"""Longest text about values that cannot be together, characters."""

TrialNumber = Annotated[int, Field(ge=0, lt=MAX_TRIALS)]
Counter = Annotated[int, Field(ge=0)]
ObjectiveValues = Annotated[dict[str, float], Field(max_length=4)]
"""Values by metric path."""


class Trial(Contract):
    """Which trial of which sweep an experiment is."""

    sweep: Name
    """Name of the AnomalyExperiment with the sweep."""
    sweep_uid: Annotated[str, Field(max_length=64)] | None = None
    """Its UID."""
    search: Annotated[str, Field(max_length=64)] | None = None
    """Which search of that resource, as in its status.sweep.search: one with another space begins anew."""
    number: TrialNumber
    """Number of the point, from 0."""
    rung: Annotated[int, Field(ge=0, lt=8)] = 0
    """Which of fidelity.values it runs at, from 0."""
    replicate: Annotated[int, Field(ge=0, lt=1_000_000)] = 0
    """Which combination of the values of replicates it runs at, from 0; the last path's change fastest."""
    objective: MetricPath | None = None
    """What the sweep optimises, the first of its objectives."""
    values: Point = Field(default_factory=dict)
    """Values of the searched parameters by path, as they are in its spec; without those that do not apply."""
    problem: Annotated[str, Field(max_length=MAX_PROBLEM)] | None = None
    """Why its values cannot be together: such a trial fails at once, and its spec has the sweep's own values."""


class StopReason(StrEnum):
    """Why no further points are tried."""

    MAX_TRIALS = "MaxTrials"
    EXHAUSTED = "Exhausted"
    TARGET_REACHED = "TargetReached"
    WITHOUT_IMPROVEMENT = "WithoutImprovement"
    GPU_HOURS = "GpuHours"
    WALL_CLOCK = "WallClock"
    MAX_FAILED = "MaxFailed"
    DEADLINE_EXCEEDED = "DeadlineExceeded"


class BestTrial(Contract):
    """One of the best points."""

    number: TrialNumber
    """Its number."""
    objectives: ObjectiveValues
    """Its values by metric, over its replicates."""
    standard_errors: ObjectiveValues = Field(default_factory=dict)
    """Standard errors of these values; empty without replicates."""
    values: Point | None = None
    """Values of its parameters by path; unset where they are too long for the status: the trial's spec has them."""


class ParetoPoint(Contract):
    """A point that no other one beats in all objectives."""

    number: TrialNumber
    """Its number."""
    objectives: ObjectiveValues
    """Its values by metric."""


class Remeasurement(Contract):
    """The best point measured again: the best of many values is partly luck, and this says how much."""

    objectives: ObjectiveValues
    """Its values by metric, on what the search did not use."""
    gap: ObjectiveValues
    """By metric: the value that the search found less the one measured again."""
    measured_on: Annotated[str, Field(max_length=256)]
    """Which seeds or images it was measured on."""


class SweepStatus(Contract):
    """How a sweep goes. Points are counted once, however many runs they take; asked is the sum of the others."""

    search: Annotated[str, Field(max_length=64)] = ""
    """Which search this is: a digest of all in the spec but the limits, which may change while it goes on."""
    search_run: Annotated[int, Field(ge=1)] = 1
    """Number of the run that began it; a run after another that only had other limits goes on with its trials."""
    earlier: Annotated[tuple[Point, ...], Field(max_length=MAX_EARLIER)] | None = None
    """Points of earlier sweeps that it begins with, as they were when it began; unset for none."""
    limits: Annotated[str, Field(max_length=64)] = ""
    """Digest of the limits (trials, budget, targets) that ended it."""
    asked: Counter = 0
    """Points that were begun."""
    running: Counter = 0
    """Points with runs that are not over."""
    complete: Counter = 0
    """Points that are measured."""
    pruned: Counter = 0
    """Points that were given up."""
    infeasible: Counter = 0
    """Points that cannot work (out of memory, diverged, invalid together) or that violate a constraint."""
    failed: Counter = 0
    """Points that failed otherwise."""
    gpu_hours: Annotated[float, Field(ge=0)] = 0.0
    """GPU-hours used by all trials, those that are deleted since too."""
    removed_gpu_hours: Annotated[float, Field(ge=0)] = 0.0
    """Those of them that were used for trials that are no longer there."""
    best: Annotated[tuple[BestTrial, ...], Field(max_length=10)] = ()
    """The best points, best first; with several objectives those of the Pareto front, then the front of the rest, and
    so on, each by the first objective."""
    pareto_front: Annotated[tuple[ParetoPoint, ...], Field(max_length=32)] = ()
    """With several objectives: points that no other one beats in all of them, at most 32 spread over the front."""
    choice: Annotated[str, Field(max_length=256)] | None = None
    """With several objectives, once the search is over: which point of the front comes first, and is trained in full
    where final is train, and why."""
    importances: Annotated[dict[str, float], Field(max_length=32)] = Field(default_factory=dict)
    """Share of each parameter, by path, in what makes points good or bad (PED-ANOVA); they add up to 1."""
    rung_correlation: Annotated[tuple[float, ...], Field(max_length=7)] = ()
    """Spearman's rank correlation between the results of the same points at each of fidelity.values and at the next:
    below 0.5, the cheap look says little."""
    stop_reason: StopReason | None = None
    """Why no further points are tried; unset while the search goes on."""
    remeasured: Remeasurement | None = None
    """The best point, measured again."""

    def bounded(self) -> Self:
        """Return the status with as many of the best points' values as fit into SWEEP_STATUS_LIMIT, best first.

        Everything else has bounds of its own, which leave room for them.
        """
        for shown in range(len(self.best), -1, -1):
            best = (
                trial if place < shown else trial.model_copy(update={"values": None})
                for place, trial in enumerate(self.best)
            )
            status = self.model_copy(update={"best": tuple(best)})
            if len(status.model_dump_json(by_alias=True, exclude_none=True).encode()) <= SWEEP_STATUS_LIMIT:
                break
        return status
