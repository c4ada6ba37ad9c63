"""The pictures of a search as inline SVG, in the look of the report's. Pure functions of its findings.

A picture shows at most some hundred points: the best, and others spread over the rest. The tables beside it and
trials.csv have all of them.
"""

from collections.abc import Sequence
from html import escape
from itertools import accumulate

from anomaly_runner.reporting.figures import Axes, Curve, Point, line_chart
from anomaly_runner.reporting.sweep.findings import Findings
from anomaly_runner.reporting.sweep.leaders import json_text, number_text
from anomaly_search.evaluations import Evaluation
from anomaly_search.points import to_unit
from anomaly_search.space import Choices, Parameter
from anomaly_search.sweep import Objective

SHOWN = 400
"""Most points of a picture."""
_WIDTH, _HEIGHT = 1120, 380
_TOP, _BOTTOM, _SIDE = 64, 42, 70
_UNSET = 22
"""Distance below an axis at which a line passes where its parameter does not apply."""
_BEST_SHARE = 0.1
_LABEL = 18
"""Longest label of a tick, characters."""
_GOLDEN = 0.6180339887


def history_chart(findings: Findings) -> str:
    """Every measured point in the order in which they ended, and the best so far."""
    objective = findings.sweep.objectives[0]
    points = [(float(place), one) for place, one in enumerate(findings.in_time, start=1)]
    feasible = [(place, one.objectives[0]) for place, one in points if one.feasible]
    best = list(accumulate((value for _, value in feasible), lambda old, new: _better(objective, old, new)))
    counts = sorted({round(len(points) * quarter / 4) for quarter in range(5)})
    axes = Axes(
        "points, in the order in which they ended",
        objective.metric,
        (0.0, len(points)),
        _range(findings),
        x_ticks=[(float(count), str(count)) for count in counts],
    )
    shown = set(_shown(findings))
    dots = [_dot(one, (place, one.objectives[0])) for place, one in points if one.number in shown]
    steps = _steps([place for place, _ in feasible], best, float(len(points)))
    best_line = Curve("best so far", steps, "good")
    return line_chart("History of the best", axes, [best_line], dots=dots, legend=_kinds(findings))


def slice_chart(findings: Findings, parameter: Parameter) -> str:
    """The first objective by one parameter."""
    axes = Axes(
        parameter.path, findings.sweep.objectives[0].metric, (0.0, 1.0), _range(findings), x_ticks=_ticks(parameter)
    )
    shown = set(_shown(findings))
    points = [one for one in findings.measured if parameter.path in one.parameters and one.number in shown]
    dots = [_dot(one, (_place(parameter, one), one.objectives[0])) for one in points]
    return line_chart(parameter.path, axes, [], dots=dots, legend=_kinds(findings))


def front_chart(findings: Findings, other: int) -> str:
    """The first objective and another one, with the points that no other beats in all of them."""
    first, second = findings.sweep.objectives[0], findings.sweep.objectives[other]
    front = {one.number for one in findings.known.pareto_front}
    shown = set(_shown(findings)) | front
    axes = Axes(_with_goal(second), _with_goal(first), _range(findings, other), _range(findings))
    dots = [
        _dot(one, (one.objectives[other], one.objectives[0]), "pixel" if one.number in front else "faint")
        for one in sorted(findings.measured, key=lambda one: one.number in front)
        if one.number in shown
    ]
    line = sorted((one.objectives[other], one.objectives[0]) for one in findings.known.pareto_front)
    title = " and ".join(one.metric.removeprefix("performance.") for one in (first, second))
    return line_chart(title, axes, [Curve("Pareto front", line, "pixel")], dots=dots)


def parallel_chart(findings: Findings) -> str:
    """A line for each point through its parameters and its first objective, the best on top."""
    parameters = findings.sweep.space.parameters
    places = [_SIDE + place * (_WIDTH - 2 * _SIDE) / len(parameters) for place in range(len(parameters) + 1)]
    shown = set(_shown(findings))
    points = [one for one in findings.leaders if one.number in shown and one.rung == findings.sweep.rungs - 1]
    best = max(1, round(len(points) * _BEST_SHARE))
    lines = [
        _line(findings, one, places, "best" if rank < best else "other")
        for rank, one in reversed(list(enumerate(points)))
    ]
    axes = [_axis(x, parameter.path, _ticks(parameter)) for x, parameter in zip(places, parameters, strict=False)]
    low, high = _range(findings)
    ends = ((0.0, number_text(low)), (1.0, number_text(high)))
    axes.append(_axis(places[-1], findings.sweep.objectives[0].metric, ends))
    title = "Parameters and the first objective of each point"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}"><title>{title}</title>'
        f"{''.join(lines)}{''.join(axes)}</svg>"
    )


def _line(findings: Findings, one: Evaluation, places: Sequence[float], style: str) -> str:
    heights = [
        _height(to_unit(parameter.domain, one.parameters[parameter.path]))
        if parameter.path in one.parameters
        else _height(0.0) + _UNSET
        for parameter in findings.sweep.space.parameters
    ]
    low, high = _range(findings)
    heights.append(_height((one.objectives[0] - low) / ((high - low) or 1.0)))
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(places, heights, strict=True))
    name = escape(f"point {one.number}: {one.objectives[0]:.6g}")
    return f'<polyline points="{points}" class="line thread {style}"><title>{name}</title></polyline>'


def _axis(x: float, name: str, ticks: Sequence[tuple[float, str]]) -> str:
    labels = "".join(
        f'<text x="{x + 5:.1f}" y="{_height(place) + 4:.1f}" class="tick">{escape(_cut(text))}</text>'
        for place, text in ticks
    )
    line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" class="axis"/>'
    title = f'<text x="{x:.1f}" y="{_TOP - 14}" text-anchor="middle" class="name">{escape(_last(name))}</text>'
    return f"{line}{labels}{title}"


def _height(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _last(path: str) -> str:
    """The end of a path, which tells the parameters of most sweeps apart."""
    return _cut(path if len(path) <= _LABEL else path.rpartition(".")[2])


def _cut(text: str) -> str:
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 1]}\u2026"


def _ticks(parameter: Parameter) -> tuple[tuple[float, str], ...]:
    """Places in the unit interval and their names: each choice, or the ends of a range and its middle."""
    domain = parameter.domain
    if isinstance(domain, Choices):
        return tuple((to_unit(domain, value), _cut(json_text(value))) for value in domain.values)
    low, high = domain.low, domain.high
    middle = (low * high) ** 0.5 if domain.log else (low + high) / 2
    return tuple((place, number_text(value)) for place, value in ((0.0, low), (0.5, middle), (1.0, high)))


def _place(parameter: Parameter, one: Evaluation) -> float:
    """Where a point is on the parameter's axis; those of one choice beside each other."""
    place = to_unit(parameter.domain, one.parameters[parameter.path])
    if not isinstance(parameter.domain, Choices):
        return place
    return place + (one.number * _GOLDEN % 1.0 - 0.5) * 0.5 / parameter.domain.size


def _dot(one: Evaluation, place: Point, style: str | None = None) -> Curve:
    values = ", ".join(f"{value:.6g}" for value in one.objectives)
    return Curve(f"point {one.number}: {values}", [place], style or ("image" if one.feasible else "defect"))


def _kinds(findings: Findings) -> list[tuple[str, str]]:
    """What the colours of points say; nothing where all have one."""
    if all(one.feasible for one in findings.measured):
        return []
    return [("within the constraints", "image"), ("beyond one", "defect")]


def _with_goal(objective: Objective) -> str:
    return f"{objective.metric}, {'more' if objective.goal == 'maximize' else 'less'} is better"


def _better(objective: Objective, one: float, other: float) -> float:
    return other if objective.loss(other) < objective.loss(one) else one


def _steps(places: Sequence[float], values: Sequence[float], end: float) -> list[Point]:
    """A line that keeps each value until the next one."""
    points: list[Point] = []
    for place, value in zip(places, values, strict=True):
        if points and value == points[-1][1]:
            continue
        points += [(place, points[-1][1])] if points else []
        points.append((place, value))
    return [*points, (end, points[-1][1])] if points else []


def _range(findings: Findings, objective: int = 0) -> Point:
    values = [one.objectives[objective] for one in findings.measured] or [0.0, 1.0]
    return (min(values), max(values)) if min(values) < max(values) else (values[0] - 0.5, values[0] + 0.5)


def _shown(findings: Findings) -> list[int]:
    """Numbers of the points in the pictures: the better half of them the best ones, the others spread over the rest."""
    best = [one.number for one in findings.leaders if one.rung == findings.sweep.rungs - 1]
    known = set(best)
    rest = [one.number for one in findings.measured if one.number not in known]
    numbers = [*best, *rest]
    if len(numbers) <= SHOWN:
        return numbers
    half = SHOWN // 2
    others = numbers[half:]
    return numbers[:half] + [others[place * len(others) // half] for place in range(half)]
