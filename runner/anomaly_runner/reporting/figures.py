"""Charts of the report as inline SVG, written directly so that the page needs no library. Pure functions of numbers.

Colours are CSS variables of the page; every chart has a title for screen readers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from anomaly_api.run import ScoreHistogram
from anomaly_runner.evaluation.curves import ScoresByClass

_WIDTH, _HEIGHT = 420, 280
_LEFT, _TOP, _RIGHT, _BOTTOM = 60, 42, 14, 40
_POINTS = 300
_TICKS = 5

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """A named line through points (x, y), with its CSS class."""

    name: str
    points: Sequence[Point]
    style: str


@dataclass(frozen=True)
class Axes:
    """Labels and ranges of both axes; with ``x_ticks``, places on the first one and their names."""

    x_label: str
    y_label: str
    x: Point
    y: Point
    x_ticks: Sequence[tuple[float, str]] = ()

    def place(self, point: Point) -> Point:
        """Position of a point in the drawing, in SVG units (x to the right, y downwards)."""
        x = _LEFT + _share(point[0], self.x) * (_WIDTH - _LEFT - _RIGHT)
        y = _HEIGHT - _BOTTOM - _share(point[1], self.y) * (_HEIGHT - _TOP - _BOTTOM)
        return round(x, 2), round(y, 2)


def _share(value: float, ends: Point) -> float:
    return (value - ends[0]) / ((ends[1] - ends[0]) or 1.0)


def roc_points(scores: ScoresByClass) -> list[Point]:
    """The ROC curve as points (false positive rate, recall), thinned to some hundred."""
    missed, passed = _at_thresholds(scores)
    found, alarms = 1 - missed / len(scores.positive), 1 - passed / len(scores.negative)
    return [(0.0, 0.0), *_pairs(alarms[::-1], found[::-1]), (1.0, 1.0)]


def precision_recall_points(scores: ScoresByClass) -> list[Point]:
    """The precision-recall curve as points (recall, precision), thinned to some hundred."""
    missed, passed = _at_thresholds(scores)
    found, alarms = len(scores.positive) - missed, len(scores.negative) - passed
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(found + alarms > 0, found / (found + alarms), 1.0)
    return _pairs(found[::-1] / len(scores.positive), precision[::-1])


def _at_thresholds(scores: ScoresByClass) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """False negatives and true negatives at up to 300 scores of each class, spread evenly over its sorted items."""
    chosen = np.unique(np.concatenate([_spread(scores.positive), _spread(scores.negative)]))
    return np.searchsorted(scores.positive, chosen), np.searchsorted(scores.negative, chosen)


def _spread(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = scores[np.unique(np.linspace(0, len(scores) - 1, _POINTS).astype(int))]
    return found


def _pairs(first: NDArray[np.float64], second: NDArray[np.float64]) -> list[Point]:
    return list(zip(first.tolist(), second.tolist(), strict=True))


def line_chart(
    title: str,
    axes: Axes,
    curves: Sequence[Curve],
    *,
    marks: Sequence[Curve] = (),
    dots: Sequence[Curve] = (),
    legend: Sequence[tuple[str, str]] = (),
) -> str:
    """Draw curves with a frame, ticks and a legend.

    Args:
        title: also for screen readers.
        axes: labels and ranges.
        curves: lines with an entry in the legend.
        marks: lines without an entry.
        dots: highlighted points; their names are shown as tooltips.
        legend: names and CSS classes of the dots' kinds.
    """
    lines = [_polyline(curve, axes) for curve in (*marks, *curves)]
    circles = [_dot(dot.name, axes.place(point), dot.style) for dot in dots for point in dot.points]
    entries = [*((one.name, one.style) for one in curves), *legend]
    return _drawing(title, [*_frame(axes), *lines, *circles, _legend(entries)])


def _polyline(curve: Curve, axes: Axes) -> str:
    points = " ".join(f"{x},{y}" for x, y in map(axes.place, curve.points))
    return f'<polyline points="{points}" class="line {curve.style}"/>'


def _dot(name: str, place: Point, style: str) -> str:
    return f'<circle cx="{place[0]}" cy="{place[1]}" r="4" class="dot {style}"><title>{escape(name)}</title></circle>'


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    """Names in their colours below the title."""
    names = "   ".join(f'<tspan class="{style}">\u25a0 {escape(name)}</tspan>' for name, style in entries)
    return f'<text x="{_LEFT}" y="32" xml:space="preserve">{names}</text>'


def histogram_chart(histogram: ScoreHistogram, threshold: float | None) -> str:
    """Draw the numbers of images by score and label, with the threshold."""
    kinds = [
        (name, style, counts)
        for name, style, counts in (
            ("good", "good", histogram.good),
            ("defective", "defect", histogram.defect),
            ("unknown", "unknown", histogram.unknown),
        )
        if any(counts)
    ]
    highest = max((count for _, _, counts in kinds for count in counts), default=1)
    step = -(-highest // (_TICKS - 1))  # ticks are whole numbers of images
    axes = Axes("raw image score", "images", score_range(histogram, threshold), (0, step * (_TICKS - 1)))
    bins = list(zip(histogram.edges, histogram.edges[1:], strict=False))
    bars = [
        _bar(axes, *ends, count, style)
        for _, style, counts in kinds
        for ends, count in zip(bins, counts, strict=True)
        if count
    ]
    legend = _legend([(name, style) for name, style, _ in kinds])
    return _drawing("Images by score", [*_frame(axes), *bars, *_threshold(axes, threshold), legend])


def cumulative_chart(histogram: ScoreHistogram, threshold: float | None) -> str:
    """Draw the share of good images below and of defective images above each score: the effect of any threshold."""
    axes = Axes("raw image score", "share of images", score_range(histogram, threshold), (0, 1))
    curves = []
    good, defect = np.cumsum([0, *histogram.good]), np.cumsum([0, *histogram.defect])
    if good[-1]:
        curves.append(Curve("good below", _pairs(np.array(histogram.edges), good / good[-1]), "good"))
    if defect[-1]:
        curves.append(Curve("defective above", _pairs(np.array(histogram.edges), 1 - defect / defect[-1]), "defect"))
    lines = [_polyline(curve, axes) for curve in curves]
    legend = _legend([(curve.name, curve.style) for curve in curves])
    return _drawing("Share of images by score", [*_frame(axes), *lines, *_threshold(axes, threshold), legend])


def score_range(histogram: ScoreHistogram, threshold: float | None) -> Point:
    """Range of the histogram, extended to a threshold outside of it, with a small margin."""
    ends = [histogram.edges[0], histogram.edges[-1]]
    if threshold is None or ends[0] < threshold < ends[1]:
        return ends[0], ends[1]
    room = 0.03 * (ends[1] - ends[0])
    return min(ends[0], threshold - room), max(ends[1], threshold + room)


def _bar(axes: Axes, low: float, high: float, count: int, style: str) -> str:
    left, top = axes.place((low, count))
    right, bottom = axes.place((high, 0))
    size = f'width="{max(right - left, 1):.2f}" height="{bottom - top:.2f}"'
    return f'<rect x="{left}" y="{top}" {size} class="bar {style}"/>'


def _threshold(axes: Axes, threshold: float | None) -> list[str]:
    if threshold is None:
        return []
    x, _ = axes.place((threshold, axes.y[0]))
    side, shift = ("end", -4) if x > (_LEFT + _WIDTH) / 2 else ("start", 4)
    line = f'<line x1="{x}" x2="{x}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" class="threshold"/>'
    name = f'<text x="{x + shift}" y="{_TOP + 10}" text-anchor="{side}" class="mark">threshold</text>'
    return [f'<g class="threshold-mark">{line}{name}</g>']


def _frame(axes: Axes) -> list[str]:
    floor, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [f'<rect x="{_LEFT}" y="{_TOP}" width="{right - _LEFT}" height="{floor - _TOP}" class="frame"/>']
    for value, name in axes.x_ticks or [(value, f"{value:.3g}") for value in np.linspace(*axes.x, _TICKS).tolist()]:
        x, _ = axes.place((value, axes.y[0]))
        parts.append(f'<text x="{x}" y="{floor + 14}" text-anchor="middle">{escape(name)}</text>')
    for value in np.linspace(*axes.y, _TICKS).tolist():
        _, y = axes.place((axes.x[0], value))
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 3}" text-anchor="end">{value:.3g}</text>')
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}" class="grid"/>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(axes.x_label)}</text>')
    turned = f"rotate(-90 12 {(_TOP + floor) / 2})"
    parts.append(
        f'<text x="12" y="{(_TOP + floor) / 2}" text-anchor="middle" transform="{turned}">{escape(axes.y_label)}</text>'
    )
    return parts


def _drawing(title: str, parts: Sequence[str]) -> str:
    name = escape(title, quote=True)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}"><title>{name}</title>'
        f'<text x="{_LEFT}" y="16" class="title">{name}</text>{"".join(parts)}</svg>'
    )
