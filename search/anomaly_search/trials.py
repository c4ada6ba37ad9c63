"""What is known of one run of one point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from anomaly_search.space import Value


class State(StrEnum):
    """How a trial is; Optuna's states, and Vizier's infeasible."""

    RUNNING = "Running"
    """Asked and not over: waiting, at work, or to be tried again after a preemption."""
    COMPLETE = "Complete"
    """Measured."""
    PRUNED = "Pruned"
    """Stopped early for its curve."""
    INFEASIBLE = "Infeasible"
    """Cannot work with these parameters: out of memory, diverged, an invalid combination. Others are to be tried."""
    FAILED = "Failed"
    """Ended for a reason that has nothing to do with its parameters."""


@dataclass(frozen=True)
class Trial:
    """One run: a point's parameters, at one fidelity (rung), under one replicate's seed and category.

    `objectives` and `constraints` are raw metrics in the order of the sweep's objectives and constraints; None where
    the run has no such metric. `curve` has the objective by epoch, counted from 0. GPU hours count those of a running
    trial up to now. Numbers, rungs and replicates count from 0.
    """

    number: int
    parameters: Mapping[str, Value]
    state: State
    objectives: tuple[float | None, ...] = ()
    constraints: tuple[float | None, ...] = ()
    rung: int = 0
    replicate: int = 0
    curve: Mapping[int, float] = field(default_factory=dict)
    gpu_hours: float = 0.0
    started: datetime | None = None
    ended: datetime | None = None
    reason: str = ""
