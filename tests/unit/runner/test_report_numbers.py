"""Numbers of the page for people, by hand: charts, which pictures it has, units, and what is said of thresholds."""

import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import pytest

from anomaly_api.run import PerformanceReport, RunConfig, RunReport, RunSummary, ScoreHistogram, TrainingReport
from anomaly_api.status import FalseAlarms, MetricValues, Stage, ThresholdValues
from anomaly_runner.data.samples import Sample
from anomaly_runner.evaluation.curves import ScoresByClass
from anomaly_runner.evaluation.labelled import LabelledScores
from anomaly_runner.reporting import html_report
from anomaly_runner.reporting.figures import cumulative_chart, histogram_chart
from anomaly_runner.reporting.gallery import GalleryItem, select_images
from anomaly_runner.reporting.performance_text import measured_with, performance_rows
from support import objects
from support.contexts import RUN

SVG = "{http://www.w3.org/2000/svg}"
HISTOGRAM = ScoreHistogram(edges=(0.0, 1.0, 2.0), good=(2, 1), defect=(0, 4))
"""The frame is 346 x 198 units, its left upper corner at (60, 42); the axis of numbers goes to 4."""


def shapes(svg: str, name: str) -> list[dict[str, str]]:
    return [dict(found.attrib) for found in ElementTree.fromstring(svg).iter() if found.tag.removeprefix(SVG) == name]


def numbers(shape: dict[str, str], *names: str) -> tuple[float, ...]:
    return tuple(float(shape[name]) for name in names)


def test_bars_are_as_high_as_there_are_images() -> None:
    drawn = histogram_chart(HISTOGRAM, 1.5)
    bars = [
        (bar["class"], *numbers(bar, "x", "y", "width", "height"))
        for bar in shapes(drawn, "rect")
        if bar["class"].startswith("bar")
    ]
    assert bars == [
        ("bar good", 60, 141, 173, 99),
        ("bar good", 233, 190.5, 173, 49.5),
        ("bar defect", 233, 42, 173, 198),
    ]
    assert [numbers(line, "x1", "x2") for line in shapes(drawn, "line") if line["class"] == "threshold"] == [
        (319.5, 319.5)
    ]


@pytest.mark.parametrize("highest", range(1, 12))
def test_the_highest_bar_is_in_the_frame(highest: int) -> None:
    drawn = histogram_chart(ScoreHistogram(edges=(0.0, 1.0), good=(highest,), defect=(0,)), None)
    (bar,) = (shape for shape in shapes(drawn, "rect") if shape["class"] == "bar good")
    top, height = numbers(bar, "y", "height")
    assert top >= 42
    assert top + height == 240
    assert height >= 198 / 4, "and not at its foot"


def points(svg: str) -> dict[str, list[tuple[float, ...]]]:
    """The points of each line by its class."""
    return {
        line["class"].removeprefix("line "): [tuple(map(float, pair.split(","))) for pair in line["points"].split()]
        for line in shapes(svg, "polyline")
    }


def test_shares_are_of_good_images_below_and_of_defective_ones_above() -> None:
    good = [(60.0, 240.0), (233.0, 108.0), (406.0, 42.0)]  # 0, 2/3 and all of them
    defect = [(60.0, 42.0), (233.0, 42.0), (406.0, 240.0)]
    assert points(cumulative_chart(HISTOGRAM, None)) == {"good": good, "defect": defect}


def report(thresholds: ThresholdValues | None = None, **fields: Any) -> RunReport:
    config = RunConfig.model_validate({"run": RUN, "experiment": objects.EXPERIMENT["spec"]})
    summary = RunSummary(
        reason="Complete", stage=Stage.DONE, thresholds=thresholds, metrics=fields.pop("metrics", None)
    )
    return RunReport(run=RUN, summary=summary, config=config, **fields)


def test_points_of_the_curves_are_where_the_threshold_is() -> None:
    """At 3: 3 of 4 defects are found (recall 0.75), 2 of 5 good images are alarms, so precision is 3 of 5."""
    scores = ScoresByClass(np.array([2, 4, 5, 6], np.float32), np.array([0.5, 1, 1.5, 3, 3.5], np.float32))
    labelled = LabelledScores(image=scores, pixel=None)
    roc, recall = html_report._charts(report(ThresholdValues(image=3.0, source="manual")), labelled)
    assert [numbers(dot, "cx", "cy") for dot in shapes(roc, "circle")] == [(198.4, 91.5)]
    assert [numbers(dot, "cx", "cy") for dot in shapes(recall, "circle")] == [(319.5, 121.2)]
    assert "ROC curve" in roc
    assert "Precision and recall" in recall


def test_a_training_has_a_chart_for_each_metric_with_more_than_one_value() -> None:
    history = {"trainLoss": ((2, 3.0), (4, 1.0)), "imageAUROC": ((4, 0.5),)}
    training = TrainingReport(epochs=2, steps=4, batch_size=1, history=history)
    (chart,) = html_report._charts(report(training=training), None)
    assert "trainLoss over training" in chart
    assert points(chart) == {"image": [(60.0, 42.0), (406.0, 240.0)]}


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ("validation", "Chosen on the validation images."),
        ("test", "Chosen on the images that are judged here"),
        ("synthetic", "synthetic defects: real ones may score otherwise"),
        ("manual", "Set by hand."),
        (None, ""),
    ],
)
def test_the_page_says_where_thresholds_come_from(origin: Any, said: str) -> None:
    found = html_report._origin(report(ThresholdValues(image=1.0, source="adaptive"), thresholds_from=origin))
    assert said in found
    assert bool(found) is bool(origin)


def test_the_page_says_what_a_threshold_promises() -> None:
    promise = FalseAlarms(good_images=199, expected=0.01, low=0.00204, high=0.02345)
    said = html_report._promise(ThresholdValues(image=1.0, source="falseAlarmRate", false_alarms=promise))
    assert said == (
        " By 199 good images, 1.000% of new good ones are false alarms in expectation; the true share lies between "
        "0.204% and 2.345% with a probability of 90 %."
    )
    assert html_report._promise(ThresholdValues(image=1.0, source="adaptive")) == ""


class Chosen(NamedTuple):
    """Scores with their labels, and which are mistakes at a threshold."""

    labels: Sequence[str]
    scores: Sequence[float]
    threshold: float

    def select(self) -> list[int]:
        samples = tuple(Sample(f"{index}.png", label) for index, label in enumerate(self.labels))
        wrong = [
            index
            for index, sample in enumerate(samples)
            if sample.defect is not None and sample.defect != (self.scores[index] >= self.threshold)
        ]
        wrong.sort(key=lambda index: -abs(self.scores[index] - self.threshold))
        predictions: Any = SimpleNamespace(samples=samples, scores=np.array(self.scores, np.float32))
        evaluated: Any = SimpleNamespace(
            mistakes=[SimpleNamespace(path=f"{index}.png") for index in wrong], image_threshold=self.threshold
        )
        return select_images(predictions, evaluated)


def test_the_gallery_has_the_worst_mistakes_then_what_is_decided_closely() -> None:
    """Of the good images the highest 8, of the defects the lowest 8; the closest to the threshold 10 come first."""
    labels = ["good"] * 12 + ["dent"] * 12
    scores = [*range(11), 14.5, 9.75, *range(11, 22)]
    found = Chosen(labels, [float(score) for score in scores], 10.0).select()
    assert found[:3] == [11, 12, 10], "14.5 is an alarm, 9.75 is missed, 10 is an alarm"
    assert found[3:] == [9, 13, 8, 14, 7, 15, 6, 16, 5, 17, 4, 18, 19]


def test_no_more_than_18_mistakes_are_pictured() -> None:
    found = Chosen(["dent"] * 30, [float(index) for index in range(30)], 100.0).select()
    assert found[:18] == list(range(18))
    assert len(found) == 18


def test_without_labels_the_most_anomalous_are_pictured() -> None:
    scores = [float(index * 7 % 20) for index in range(20)]
    found = Chosen(["unknown"] * 20, scores, 10.0).select()
    assert [scores[index] for index in found] == [19, 18, 17, 16, 15, 14, 13, 12]


@pytest.mark.parametrize(
    ("label", "anomalous", "mistake"),
    [
        ("good", True, True),
        ("good", False, False),
        ("dent", False, True),
        ("dent", True, False),
        ("unknown", True, False),
    ],
)
def test_a_mistake_is_a_decision_against_the_label(label: str, anomalous: bool, mistake: bool) -> None:
    assert GalleryItem("a.png", label, 1.0, anomalous, "data:").mistake is mistake


def test_costs_have_their_units() -> None:
    assert performance_rows(
        {
            "latencyMilliseconds": 12.34567,
            "latencyMillisecondsP90": 1.0,
            "imagesPerSecond": 98.76543,
            "modelBytes": 999_999_999.0,
            "peakMemoryBytes": 1_000_000_000.0,
            "trainSeconds": 61.23456,
        }
    ) == {
        "latencyMilliseconds": "12.35 ms",
        "latencyMillisecondsP90": "1 ms",
        "imagesPerSecond": "98.77",
        "modelBytes": "1000.00 MB",
        "peakMemoryBytes": "1.00 GB",
        "trainSeconds": "61.23 s",
    }


@pytest.mark.parametrize(
    ("model", "parallel", "begins", "ends"),
    [
        (
            "onnx",
            2,
            "The onnx model (float16) on CPU (CPUExecutionProvider), 1 thread",
            "batches of 8, 2 at the same time",
        ),
        ("torch", 1, "The torch model on CPU (CPUExecutionProvider), 1 thread", "batches of 8, one after the other"),
    ],
)
def test_what_was_measured_is_said(model: Any, parallel: int, begins: str, ends: str) -> None:
    found = PerformanceReport(
        model=model,
        precision="float16",
        provider="CPUExecutionProvider",
        device="CPU",
        images_timed=17,
        latency_range=(1.25, 33.75),
        batch_size=8,
        parallel_batches=parallel,
    )
    said = measured_with(report(performance=found))
    assert said.startswith(begins)
    assert "median of 17 single images, 1.25 to 33.75 ms" in said
    assert re.search(rf"{ends}\.$", said)
    whole = report(metrics=MetricValues(performance={"imagesPerSecond": 3.0}))
    assert measured_with(whole).startswith("Images a second of the whole stage predict")
    assert measured_with(report(metrics=MetricValues(performance={"modelBytes": 3.0}))) == ""
