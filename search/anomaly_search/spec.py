"""A sweep of the contract as a task of the search, and what is known of it as a status.

Both programs come in and go out here: the operator with `spec.sweep` of a resource, the runner with the same from a
file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import takewhile

from anomaly_api import sweep as api
from anomaly_api.sweep_space import SearchParameter
from anomaly_api.sweep_status import BestTrial, ParetoPoint, StopReason, SweepStatus
from anomaly_search.evaluations import Evaluation
from anomaly_search.prune import MedianPruning
from anomaly_search.space import Choices, Condition, Domain, FloatRange, IntRange, Parameter, Space, Value
from anomaly_search.summary import Summary
from anomaly_search.sweep import (
    Algorithm,
    Budget,
    Constraint,
    Fidelity,
    Limits,
    Objective,
    Racing,
    Replicates,
    Sweep,
)

FRONT = 32
"""Points of the Pareto front that a status has."""


def sweep_of(spec: api.Sweep, start: Sequence[Mapping[str, Value]] = ()) -> Sweep:
    """Return the task.

    Args:
        spec: the sweep as users write it.
        start: points of an earlier experiment to try after the spec's own; those that the space does not hold are left
            out.

    Raises:
        SpaceError: the space contradicts itself in a way that the contract does not see.
    """
    space = space_of(spec)
    own = tuple(spec.start.points or ()) if spec.start else ()
    return Sweep(
        space=space,
        limits=Limits(spec.most_trials, spec.trials.parallel, spec.trials.max_failed),
        objectives=tuple(Objective(one.metric, one.goal, one.target) for one in spec.objectives),
        algorithm=_algorithm(spec.algorithm),
        constraints=tuple(Constraint(one.metric, one.max, one.min) for one in spec.constraints),
        replicates=_replicates(spec.replicates),
        fidelity=Fidelity(spec.fidelity.values, spec.fidelity.reduction) if spec.fidelity else None,
        budget=_budget(spec.budget),
        start=(*own, *(point for point in start if space.restrict(point) is not None)),
    )


def space_of(spec: api.Sweep) -> Space:
    """Return the search space.

    Raises:
        SpaceError: a choice is listed twice, or a condition waits for a value that never is.
    """
    return Space(tuple(_parameter(parameter) for parameter in spec.parameters))


def pruning_of(spec: api.Sweep) -> MedianPruning | None:
    """Return when running trials are stopped; None for never."""
    if spec.pruning is None:
        return None
    return MedianPruning(spec.objectives[0].goal, spec.pruning.after_trials, spec.pruning.after_epochs)


def status_of(sweep: Sweep, known: Summary, stop: StopReason | None, *, removed_hours: float = 0.0) -> SweepStatus:
    """Return what a resource's status says of the sweep, within its size.

    Of correlations those before the first unknown one are told, so that the first belongs to the first two rungs. Once
    the search is over, points of which some replicates are missing are given up.

    Args:
        sweep: the task.
        known: what is known of it.
        stop: why no further points are tried; None while the search goes on.
        removed_hours: GPU-hours of trials that are no longer there, which count too.
    """
    counts = known.counts
    given_up = counts.running if stop else 0
    return SweepStatus(
        asked=counts.asked,
        running=counts.running - given_up,
        complete=counts.complete,
        pruned=counts.pruned + given_up,
        infeasible=counts.infeasible,
        failed=counts.failed,
        gpu_hours=known.gpu_hours + removed_hours,
        removed_gpu_hours=removed_hours,
        best=tuple(_best(sweep, one) for one in known.best),
        pareto_front=tuple(
            ParetoPoint(number=one.number, objectives=_by_metric(sweep, one.objectives))
            for one in _spread(known.pareto_front)
        ),
        choice=_choice(sweep, known) if stop else None,
        importances=dict(known.importances),
        rung_correlation=tuple(
            value for value in takewhile(lambda value: value is not None, known.rung_correlations) if value is not None
        ),
        stop_reason=stop,
    ).bounded()


def _parameter(parameter: SearchParameter) -> Parameter:
    condition = Condition(parameter.when.path, parameter.when.values) if parameter.when else None
    return Parameter(parameter.path, _domain(parameter), condition)


def _domain(parameter: SearchParameter) -> Domain:
    if parameter.float is not None:
        return FloatRange(parameter.float.low, parameter.float.high, parameter.float.log, parameter.float.step)
    if parameter.int is not None:
        return IntRange(parameter.int.low, parameter.int.high, parameter.int.log, parameter.int.step)
    return Choices(parameter.choices or ())


def _algorithm(algorithm: api.Algorithm) -> Algorithm:
    tpe, cmaes = algorithm.tpe or api.TpeSettings(), algorithm.cmaes or api.CmaesSettings()
    return Algorithm(
        name=algorithm.name,
        seed=algorithm.seed,
        startup_trials=tpe.startup_trials,
        candidates=tpe.candidates,
        population=cmaes.population_size,
        sigma=Algorithm.sigma if cmaes.sigma is None else cmaes.sigma,
    )


def _replicates(replicates: api.Replicates | None) -> Replicates:
    if replicates is None:
        return Replicates()
    pruning = replicates.pruning
    return Replicates(
        count=math.prod(len(path.values) for path in replicates.paths),
        aggregate=replicates.aggregate,
        racing=None if pruning.method == "none" else Racing(pruning.after_replicates, pruning.p_value),
    )


def _budget(budget: api.SweepBudget | None) -> Budget:
    if budget is None:
        return Budget()
    seconds = budget.wall_clock_seconds
    clock = None if seconds is None else timedelta(seconds=seconds)
    return Budget(budget.gpu_hours, clock, budget.without_improvement)


def _best(sweep: Sweep, one: Evaluation) -> BestTrial:
    metrics = [objective.metric for objective in sweep.objectives]
    errors = {metric: error for metric, error in zip(metrics, one.errors, strict=True) if error is not None}
    return BestTrial(
        number=one.number,
        objectives=_by_metric(sweep, one.objectives),
        standard_errors=errors,
        values=dict(one.parameters),
    )


def _choice(sweep: Sweep, known: Summary) -> str | None:
    """Return which point of the Pareto front comes first, and why; None where there is no choice."""
    if sweep.single or not known.best:
        return None
    first, front = known.best[0].number, len(known.pareto_front)
    if front == 1:
        return f"trial {first}: the Pareto front has no other point"
    metric = sweep.objectives[0].metric
    return f"trial {first}: of the {front} points of the Pareto front it has the best {metric}, the first objective"


def _by_metric(sweep: Sweep, objectives: Iterable[float]) -> dict[str, float]:
    return {objective.metric: value for objective, value in zip(sweep.objectives, objectives, strict=True)}


def _spread(front: Sequence[Evaluation]) -> list[Evaluation]:
    """Return at most FRONT points, evenly over the front in the order of the first objective, both ends among them."""
    ordered = sorted(front, key=lambda one: one.objectives[0])
    if len(front) <= FRONT:
        return ordered
    return [ordered[round(place * (len(front) - 1) / (FRONT - 1))] for place in range(FRONT)]
