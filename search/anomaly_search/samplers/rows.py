"""Evaluations as Optuna's trials: what each sort of outcome teaches.

- Complete at the full fidelity: COMPLETE, with its violations.
- Measured at lower fidelities only, or pruned: PRUNED with intermediate values, as if it had been stopped there. With
  several objectives such rows make TPE fail, so they are left out.
- Infeasible: PRUNED with a violated constraint. Told as FAIL it would be ignored, and asked again and again.
- Running: RUNNING, with its parameters: the constant liar keeps parallel suggestions apart.
- Failed: left out. It says nothing of its parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from anomaly_search.evaluations import Evaluation
from anomaly_search.memo import Memo
from anomaly_search.samplers.storage import frozen
from anomaly_search.space import Choices, Domain, FloatRange, Parameter, Space, Value
from anomaly_search.sweep import Sweep
from anomaly_search.trials import State

STRIDE = 1_000_000
"""Steps of a rung: more than a trial has epochs, so that a higher rung always counts as further."""
INFEASIBLE = "infeasible"


class Outcome(NamedTuple):
    """What Optuna is told of a point."""

    state: TrialState
    values: tuple[float, ...] | None = None
    intermediate: dict[int, float] | None = None
    constraints: dict[str, float] | None = None


def rows(sweep: Sweep, evaluations: Iterable[Evaluation], memo: Memo | None = None) -> list[FrozenTrial]:
    """Return what is known, by number; points that the space does not hold are left out."""
    memo = memo or Memo()
    told: list[FrozenTrial] = []
    distributions = memo.get("distributions", (sweep.space,), distributions_of)
    for number, group in groupby(evaluations, key=lambda one: one.number):
        told += memo.get(("row", number), (sweep, distributions, *group), partial(_row, number=number))
    return told


def directions(sweep: Sweep) -> list[StudyDirection]:
    """Return what is better, by objective."""
    return [StudyDirection[objective.goal.upper()] for objective in sweep.objectives]


def distributions_of(space: Space) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution of each parameter; choices by their place in the list, since Optuna knows scalars
    only."""
    return {parameter.path: distribution_of(parameter.domain) for parameter in space.parameters}


def optuna_value(parameter: Parameter, value: Value) -> Any:
    """Return the value as Optuna has it."""
    if isinstance(parameter.domain, Choices):
        return parameter.domain.index(value)
    return float(value) if isinstance(parameter.domain, FloatRange) else int(value)


def _row(
    sweep: Sweep, distributions: Mapping[str, BaseDistribution], *group: Evaluation, number: int
) -> tuple[FrozenTrial, ...]:
    """Return the row of a point; none if nothing is known of it."""
    point = sweep.space.restrict(group[0].parameters)
    outcome = _outcome(sweep, group)
    if point is None or outcome is None:
        return ()
    parameters = [parameter for parameter in sweep.space.parameters if parameter.path in point]
    row = frozen(
        outcome.state,
        number,
        {parameter.path: optuna_value(parameter, point[parameter.path]) for parameter in parameters},
        {parameter.path: distributions[parameter.path] for parameter in parameters},
        values=outcome.values,
        intermediate=outcome.intermediate,
        constraints=outcome.constraints,
    )
    return (row,)


def _outcome(sweep: Sweep, group: Sequence[Evaluation]) -> Outcome | None:
    """Return what a point's evaluations, by rung, say; None if that is nothing."""
    states = {one.state for one in group}
    if State.INFEASIBLE in states:
        return Outcome(TrialState.PRUNED, constraints={INFEASIBLE: 1.0})
    last = group[-1]
    if last.state is State.COMPLETE and last.rung == sweep.rungs - 1:
        return Outcome(TrialState.COMPLETE, values=last.objectives, constraints=constraints_of(sweep, last))
    intermediate = dict(_intermediate(group)) if sweep.single else {}
    if intermediate:
        known = [one for one in group if one.violations]
        return Outcome(
            TrialState.PRUNED,
            intermediate=intermediate,
            constraints=constraints_of(sweep, known[-1]) if known else None,
        )
    return Outcome(TrialState.RUNNING) if State.RUNNING in states else None


def constraints_of(sweep: Sweep, one: Evaluation) -> dict[str, float]:
    """Return the violations by name; none where nothing is measured."""
    return {
        f"{place}:{constraint.metric}": violation
        for place, (constraint, violation) in enumerate(zip(sweep.constraints, one.violations, strict=False))
    }


def _intermediate(group: Iterable[Evaluation]) -> Iterator[tuple[int, float]]:
    for one in group:
        if one.state is State.COMPLETE:
            yield (one.rung + 1) * STRIDE - 1, one.objectives[0]
        elif one.state is State.PRUNED:
            yield from ((one.rung * STRIDE + epoch, value) for epoch, value in one.curve.items())
            if one.objectives:
                yield (one.rung + 1) * STRIDE - 2, one.objectives[0]


def distribution_of(domain: Domain) -> BaseDistribution:
    """Return Optuna's distribution of a domain; choices by their place in the list."""
    if isinstance(domain, Choices):
        return CategoricalDistribution(tuple(range(domain.size)))
    if isinstance(domain, FloatRange):
        high = domain.high if domain.size is None else domain.at(domain.size - 1)
        return FloatDistribution(domain.low, high, log=domain.log, step=domain.step)
    return IntDistribution(domain.low, domain.at(domain.size - 1), log=domain.log, step=domain.step)
