"""The report for people: one self-contained HTML file that loads nothing.

Names of files and labels come from the dataset and are not trusted, so everything is escaped, and the page's content
security policy allows no address and no script but the one that moves the threshold.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.run import RunReport, TrainingReport
from anomaly_api.status import ThresholdValues
from anomaly_runner.evaluation.curves import confusion_at
from anomaly_runner.evaluation.labelled import LabelledScores
from anomaly_runner.reporting.figures import (
    Axes,
    Curve,
    cumulative_chart,
    histogram_chart,
    line_chart,
    precision_recall_points,
    roc_points,
)
from anomaly_runner.reporting.gallery import GalleryItem
from anomaly_runner.reporting.live_threshold import threshold_data, threshold_script
from anomaly_runner.reporting.performance_text import measured_with, performance_rows

_TEMPLATES = Path(__file__).parent / "templates"
_UNIT = (0.0, 1.0)
_LISTED = 100
"""Largest number of rows of a list of files, which keeps the page small."""
_ORIGINS = {
    "validation": "Chosen on the validation images.",
    "synthetic": "Chosen on good validation images and synthetic defects: real ones may score otherwise.",
    "test": "Chosen on the images that are judged here, so the decisions are better than they would be on new ones.",
    "manual": "Set by hand.",
    "model": "Taken over from the trained model.",
}
_CHOSEN = "The {level} threshold was chosen on the images that are judged here: decisions are better than on new ones."
_SCALED = "The {level} threshold is {value:g} % of the trained model's."
_OTHER = " The {level} threshold is the trained model's."


def render(report: RunReport, labelled: LabelledScores | None, gallery: Sequence[GalleryItem]) -> str:
    """Render the page.

    Args:
        report: the content of report.json.
        labelled: scores by label, for the curves and the threshold that can be moved; None to leave these out.
        gallery: pictures, already rendered.
    """
    spec = report.config.spec
    script, script_source = threshold_script()
    return template("report.html.j2").render(
        report=report,
        summary=report.summary,
        model=spec.model.name if isinstance(spec, ExperimentSpec) else "",
        charts=[Markup(chart) for chart in _charts(report, labelled)],  # noqa: S704 - drawn by figures.py, which escapes
        gallery=gallery,
        gallery_title=_gallery_title(report),
        origin=_origin(report) + _promise(report.summary.thresholds),
        limit=_LISTED,
        performance=performance_rows(report.summary.metrics.performance) if report.summary.metrics else {},
        measured=measured_with(report),
        device=report.summary.device.to_json_object() if report.summary.device else {},
        trained_by=report.summary.trained_by,
        live=_live(report, labelled),
        script=Markup(script),  # noqa: S704 - a file of this package
        script_source=Markup(script_source),  # noqa: S704 - its digest
        config=yaml.safe_dump(spec.to_json_object(), sort_keys=False, allow_unicode=True),
    )


def _origin(report: RunReport) -> str:
    """Describe the origin of the thresholds; an inference may choose one and take the other from the trained model."""
    if report.thresholds_from is None:
        return ""
    spec, found = report.config.spec, report.summary.thresholds
    if isinstance(spec, ExperimentSpec) or found is None or found.source == "training":
        return _ORIGINS[report.thresholds_from]
    asked = spec.threshold
    own = _SCALED if found.source == "custom" else _CHOSEN
    other = "pixel" if asked.type == "image" else "image"
    return own.format(level=asked.type, value=asked.value) + _OTHER.format(level=other)


def _live(report: RunReport, labelled: LabelledScores | None) -> dict[str, Any] | None:
    """Return what the page needs to move the threshold; None without scores or a threshold."""
    by_label = {label: labelled.image_by_label[label] for label in report.labels} if labelled else {}
    thresholds = report.summary.thresholds
    if not by_label or report.histogram is None or thresholds is None or thresholds.image is None:
        return None
    return threshold_data(by_label, report.histogram, thresholds)


def _promise(found: ThresholdValues | None) -> str:
    """What a threshold that was found by a rate of false alarms promises; empty for any other."""
    if found is None or found.false_alarms is None:
        return ""
    alarms = found.false_alarms
    return (
        f" By {alarms.good_images} good images, {alarms.expected:.3%} of new good ones are false alarms in "
        f"expectation; the true share lies between {alarms.low:.3%} and {alarms.high:.3%} with a probability of 90 %."
    )


def _gallery_title(report: RunReport) -> str:
    return "Worst mistakes and closest decisions" if report.confusion else "Most anomalous images"


@cache
def template(name: str) -> Template:
    """A page's template, compiled once."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _charts(report: RunReport, labelled: LabelledScores | None) -> list[str]:
    threshold = report.summary.thresholds.image if report.summary.thresholds else None
    charts = []
    if report.histogram:
        charts += [histogram_chart(report.histogram, threshold), cumulative_chart(report.histogram, threshold)]
    if labelled:
        charts += _curves(labelled, report.summary.thresholds or ThresholdValues())
    if report.training:
        charts += _training(report.training)
    return charts


def _curves(labelled: LabelledScores, thresholds: ThresholdValues) -> list[str]:
    levels = [
        ("images", labelled.image, "image", thresholds.image),
        ("pixels", labelled.pixel, "pixel", thresholds.pixel),
    ]
    roc, recall, at_roc, at_recall = [], [], [], []
    for name, scores, style, threshold in levels:
        if scores is None or not scores.has_both_classes:
            continue
        roc.append(Curve(name, roc_points(scores), style))
        recall.append(Curve(name, precision_recall_points(scores), style))
        if threshold is not None:
            counts, where = confusion_at(scores, threshold), f"{name} at the threshold"
            alarms = counts.false_positive / len(scores.negative)
            at_roc.append(Curve(where, [(alarms, counts.recall)], style))
            at_recall.append(Curve(where, [(counts.recall, counts.precision)], style))
    if not roc:
        return []
    chance = [Curve("chance", [(0.0, 0.0), (1.0, 1.0)], "dashed")]
    rates, shares = Axes("false positive rate", "recall", _UNIT, _UNIT), Axes("recall", "precision", _UNIT, _UNIT)
    return [
        line_chart("ROC curve", rates, roc, marks=chance, dots=at_roc),
        line_chart("Precision and recall", shares, recall, dots=at_recall),
    ]


def _training(training: TrainingReport) -> list[str]:
    charts = []
    for name, values in training.history.items():
        if len(values) > 1:
            steps, heights = [float(step) for step, _ in values], [value for _, value in values]
            axes = Axes("step", name, (min(steps), max(steps)), (min(heights), max(heights)))
            charts.append(line_chart(f"{name} over training", axes, [Curve(name, values, "image")]))
    return charts
