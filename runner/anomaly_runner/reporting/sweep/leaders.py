"""Tables of the page: the leaderboard, the values of each parameter, what ended without a value, all trials.

Numbers and values become text here, and folders become links relative to the page's folder, which lies beside those of
the trials: ``../../NAME-t0012/UID/report.json``.
"""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from anomaly_api.sweep_space import canonical
from anomaly_runner.reporting.performance_text import performance_rows
from anomaly_runner.reporting.sweep.findings import Findings
from anomaly_runner.reporting.sweep.trials import TrialResult
from anomaly_search.evaluations import Evaluation
from anomaly_search.points import to_unit
from anomaly_search.space import Choices, Parameter
from anomaly_search.trials import State

_PARTS = 4
"""Parts of equal width of a range, on its own scale."""


@dataclass(frozen=True)
class Link:
    """A trial as a number that leads to its report; without an address where there is none."""

    text: str
    address: str = ""


@dataclass(frozen=True)
class Leader:
    """A row of the leaderboard.

    Attributes:
        place: from 1.
        trial: the point, with a link to the report of its first run.
        objectives: pairs of the value and its standard error (or an empty text).
        constraints: values of the metrics that constraints bound.
        values: of the parameters; a dash where one does not apply.
        rung: value of the fidelity's field, if there is one.
        gpu_hours: of all its runs at this fidelity.
    """

    place: int
    trial: Link
    objectives: tuple[tuple[str, str], ...]
    constraints: tuple[str, ...]
    values: tuple[str, ...]
    rung: str
    gpu_hours: str


@dataclass(frozen=True)
class Group:
    """Points that share a value, or a part of a range."""

    value: str
    points: int
    best: str
    mean: str


@dataclass(frozen=True)
class Ended:
    """A trial without a value, and why."""

    trial: Link
    state: str
    reason: str
    message: str


def leaderboard(findings: Findings, most: int) -> list[Leader]:
    """The best points, best first."""
    return [_leader(findings, place, one) for place, one in enumerate(findings.leaders[:most], start=1)]


def _leader(findings: Findings, place: int, one: Evaluation) -> Leader:
    first = findings.run_of(one)
    fidelity = findings.sweep.fidelity
    return Leader(
        place=place,
        trial=Link(str(one.number), address(first)),
        objectives=tuple(objective_texts(findings, one)),
        constraints=tuple(
            metric_text(constraint.metric, value)
            for constraint, value in zip(findings.spec.constraints, _means(findings, one), strict=True)
        ),
        values=tuple(value_text(one.parameters, path) for path in paths(findings)),
        rung=number_text(fidelity.values[one.rung]) if fidelity else "",
        gpu_hours=f"{one.gpu_hours:.3g}",
    )


def _means(findings: Findings, one: Evaluation) -> list[float]:
    """The means over its runs of the metrics that constraints bound."""
    complete = [trial for trial in one.trials if trial.state is State.COMPLETE]
    columns = zip(*(trial.constraints for trial in complete), strict=True)
    means = [statistics.fmean(value for value in column if value is not None) for column in columns]
    return means or [float("nan")] * len(findings.spec.constraints)


def objective_texts(findings: Findings, one: Evaluation) -> Iterable[tuple[str, str]]:
    """Pairs of each objective's value and its standard error, which is empty without replicates."""
    for objective, value, error in zip(findings.spec.objectives, one.objectives, one.errors, strict=True):
        yield metric_text(objective.metric, value), error_text(objective.metric, error)


def paths(findings: Findings) -> list[str]:
    """Paths of the parameters that have more than one value."""
    return [one.path for one in findings.spec.parameters if one.choices is None or len(one.choices) > 1]


def metric_text(metric: str, value: float) -> str:
    """A metric's value for people, with its unit if it has one."""
    group, _, name = metric.partition(".")
    return performance_rows({name: value})[name] if group == "performance" else f"{value:.4f}"


def error_text(metric: str, error: float | None) -> str:
    """A standard error for people, in two digits or as many as the value has; empty without one."""
    if error is None:
        return ""
    return metric_text(metric, float(f"{error:.2g}") if metric.startswith("performance.") else error)


def value_text(values: Any, path: str) -> str:
    """The value of a parameter; a dash where it does not apply."""
    return json_text(values[path]) if path in values else "\u2013"


def json_text(value: Any) -> str:
    """A value of any type as a short text."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, dict):
        if set(value) == {"height", "width"}:
            return f"{value['height']} x {value['width']}"
        return ", ".join(f"{name} {json_text(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(json_text, value))
    return json.dumps(value)


def number_text(value: float) -> str:
    """A number in few digits."""
    return f"{value:.4g}"


def address(trial: TrialResult) -> str:
    """The way from the page to a trial's report."""
    return quote(f"../../{trial.folder.partition('/')[2]}/{trial.report}")


def groups(findings: Findings, parameter: Parameter) -> list[Group]:
    """The measured points by the parameter's value, or by four parts of its range, in its order."""
    points = [one for one in findings.measured if one.feasible and parameter.path in one.parameters]
    if isinstance(parameter.domain, Choices):
        found = [
            (json_text(value), [one for one in points if canonical(one.parameters[parameter.path]) == canonical(value)])
            for value in parameter.domain.values
        ]
    else:
        found = _parts(parameter, points)
    return [_group(findings, name, members) for name, members in found if members]


def _parts(parameter: Parameter, points: Sequence[Evaluation]) -> list[tuple[str, list[Evaluation]]]:
    parts: list[list[Evaluation]] = [[] for _ in range(_PARTS)]
    for one in points:
        place = to_unit(parameter.domain, one.parameters[parameter.path])
        parts[min(int(place * _PARTS), _PARTS - 1)].append(one)
    return [(_ends([one.parameters[parameter.path] for one in part]), part) for part in parts]


def _ends(values: Sequence[float]) -> str:
    low, high = min(values, default=0), max(values, default=0)
    return number_text(low) if low == high else f"{number_text(low)} to {number_text(high)}"


def _group(findings: Findings, name: str, members: Sequence[Evaluation]) -> Group:
    objective = findings.sweep.objectives[0]
    values = [one.objectives[0] for one in members]
    best = min(values, key=objective.loss)
    mean = statistics.fmean(values)
    return Group(name, len(values), metric_text(objective.metric, best), metric_text(objective.metric, mean))


def without_value(findings: Findings) -> list[Ended]:
    """Trials that failed, cannot work, were given up, or are beyond a constraint, with the reason."""
    ended = [
        Ended(Link(trial.name, address(trial)), trial.record.state, trial.record.reason, trial.message)
        for trial in findings.trials
        if trial.record.state != "Complete"
    ]
    return ended + list(_beyond(findings))


def _beyond(findings: Findings) -> Iterable[Ended]:
    for one in findings.highest:
        if one.state is not State.COMPLETE or one.feasible:
            continue
        broken = [
            f"{constraint.metric} {metric_text(constraint.metric, value)}"
            for constraint, value, violation in zip(
                findings.spec.constraints, _means(findings, one), one.violations, strict=True
            )
            if violation > 0
        ]
        first = findings.run_of(one)
        yield Ended(Link(first.name, address(first)), State.INFEASIBLE.value, "Constraint", ", ".join(broken))
