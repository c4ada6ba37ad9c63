"""Hyper-parameter sweeps: a search space over fields of the spec."""

from typing import Annotated, Literal

from pydantic import Field

from anomaly_api.base import Contract
from anomaly_api.primitives import RelativePath, Text
from anomaly_api.rules import exactly_one


class FloatRange(Contract):
    """An interval of real numbers."""

    low: float
    """Smallest value."""
    high: float
    """Largest value."""
    log: bool = False
    """Draw on a logarithmic scale."""


class IntRange(Contract):
    """An interval of whole numbers."""

    low: int
    """Smallest value."""
    high: int
    """Largest value."""
    step: Annotated[int, Field(ge=1)] = 1
    """Distance between values."""


class SearchParameter(Contract):
    """One dimension of the search space."""

    rules = (exactly_one("choices", "floats", "integers"),)

    path: RelativePath
    """Field of the spec, such as model.padim.nFeatures."""
    choices: Annotated[tuple[Text, ...], Field(min_length=1, max_length=64)] | None = None
    """A list of values, each written as YAML: "0.1", "[blocks.0, blocks.1]"."""
    floats: FloatRange | None = None
    """Real numbers."""
    integers: IntRange | None = None
    """Whole numbers."""


class Objective(Contract):
    """What is optimised."""

    metric: Text = "image.AUROC"
    """A metric of status.metrics."""
    goal: Literal["maximize", "minimize"] = "maximize"
    """Direction."""


class SweepBudget(Contract):
    """Limits on what the sweep may use."""

    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """GPU-hours over all trials."""
    wall_clock_seconds: Annotated[int, Field(ge=1)] | None = None
    """Seconds since the sweep began."""


class Sweep(Contract):
    """Many trials of one experiment."""

    parameters: Annotated[tuple[SearchParameter, ...], Field(min_length=1, max_length=32)]
    """The search space."""
    algorithm: Literal["grid", "random", "tpe", "cmaes", "sobol"] = "tpe"
    """How values are drawn."""
    objective: Objective = Objective()
    """What is optimised."""
    max_trials: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Number of trials in total."""
    parallel_trials: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Number of trials that run at the same time."""
    max_failed_trials: Annotated[int, Field(ge=0, le=100_000)] = 3
    """Failures after which the sweep fails."""
    pruning: Literal["none", "median", "hyperband"] = "none"
    """How bad trials are stopped early."""
    budget: SweepBudget | None = None
    """Limits on what the sweep may use."""
