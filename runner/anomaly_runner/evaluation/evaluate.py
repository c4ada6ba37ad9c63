"""Stage evaluate: apply thresholds to raw scores, for decisions, metrics and the summaries of the report.

Metrics are computed from raw scores, never from normalised ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from anomaly_api.evaluation import Metrics
from anomaly_api.run import ConfusionMatrix, GoodScores, LabelSummary, Mistake, ScoreHistogram
from anomaly_api.status import MetricValues, ThresholdValues
from anomaly_runner.evaluation.curves import (
    ScoresByClass,
    auroc,
    average_precision,
    best_f1_threshold,
    confusion_at,
)
from anomaly_runner.evaluation.good_scores import share_of_good_below
from anomaly_runner.evaluation.intervals import Interval, image_intervals
from anomaly_runner.evaluation.labelled import LabelledScores
from anomaly_runner.evaluation.left_out import without_defects
from anomaly_runner.evaluation.normalize import ScoreNormalizer
from anomaly_runner.evaluation.summaries import confusion_matrix, label_summaries, score_histogram, worst_mistakes
from anomaly_runner.evaluation.thresholds import image_threshold
from anomaly_runner.scoring.predict import Predictions


@dataclass(frozen=True)
class EvaluationResult:
    """Decisions, metrics and summaries of a run's scores.

    ``anomalous`` (N,), ``normalized_scores`` (N,) and ``good_below`` (N,) are in the order of the predictions; the last
    one is the share of the good images held out in training that score lower, None if it is not known. ``labels``:
    summaries by label. ``metrics_by_defect``: metrics by kind of defect. ``intervals``: 95 % confidence intervals by
    image metric.
    """

    thresholds: ThresholdValues
    metrics: MetricValues
    normalizer: ScoreNormalizer
    anomalous: NDArray[np.bool_]
    normalized_scores: NDArray[np.float64]
    confusion: ConfusionMatrix | None
    labels: dict[str, LabelSummary]
    metrics_by_defect: dict[str, MetricValues] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    histogram: ScoreHistogram | None = None
    mistakes: tuple[Mistake, ...] = ()
    labelled: LabelledScores | None = None
    good_below: NDArray[np.float64] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def image_threshold(self) -> float:
        """Lowest raw image score of an anomalous image."""
        return image_threshold(self.thresholds)


def evaluate(
    predictions: Predictions,
    labelled: LabelledScores,
    thresholds: ThresholdValues,
    *,
    normalizer: ScoreNormalizer,
    metrics: Metrics,
    good: GoodScores | None = None,
    warnings: Sequence[str] = (),
) -> EvaluationResult:
    """Apply thresholds to the scores of a run.

    Args:
        predictions: raw scores of all images.
        labelled: the scores of those images that have labels.
        thresholds: lowest raw scores that are anomalous.
        normalizer: how scores are shown to people.
        metrics: which metrics are computed.
        good: scores of the good images held out in training.
        warnings: earlier warnings, to which those of the metrics are appended.

    Raises:
        ModelInvalid: there is no image threshold.
    """
    threshold = image_threshold(thresholds)
    # Decide about all images, labelled or not: an image at the threshold is anomalous.
    anomalous = predictions.scores.astype(np.float64) >= threshold
    # Compute metrics from the labelled images only.
    values, left_out = metrics_of_levels(labelled, metrics, thresholds)
    return EvaluationResult(
        thresholds=thresholds,
        metrics=values,
        normalizer=normalizer,
        anomalous=anomalous,
        normalized_scores=normalizer.image(predictions.scores),
        confusion=confusion_matrix(labelled.image, threshold),
        labels=label_summaries(predictions, anomalous),
        metrics_by_defect=_metrics_by_defect(labelled, metrics, thresholds),
        intervals=_intervals(labelled.image, threshold, metrics),
        histogram=score_histogram(predictions),
        mistakes=worst_mistakes(predictions, anomalous, threshold),
        labelled=labelled,
        good_below=None if good is None else share_of_good_below(good, predictions.scores),
        warnings=(*warnings, *left_out),
    )


def _intervals(image: ScoresByClass, threshold: float, metrics: Metrics) -> dict[str, Interval]:
    """95 % confidence intervals by name, of the reported image metrics that have one."""
    if not metrics.confidence_intervals or not image.has_both_classes:
        return {}
    found = image_intervals(image, confusion_at(image, threshold))
    return {name: interval for name, interval in found.items() if name in metrics.image}


def metrics_of_levels(
    labelled: LabelledScores, metrics: Metrics, thresholds: ThresholdValues
) -> tuple[MetricValues, tuple[str, ...]]:
    """Image metrics and, with masks and a pixel threshold, pixel metrics; with warnings about those left out."""
    if not labelled.image.empty and not len(labelled.image.positive):
        return MetricValues(), (without_defects(metrics, localises=labelled.max_pixel is not None),)
    image, warnings = _metrics(labelled.image, metrics.image, image_threshold(thresholds), "image")
    if labelled.pixel is None or thresholds.pixel is None:
        return MetricValues(image=image), warnings
    pixel, more = _metrics(labelled.pixel, metrics.pixel, thresholds.pixel, "pixel", labelled.aupro)
    return MetricValues(image=image, pixel=pixel), (*warnings, *more)


def _metrics(
    scores: ScoresByClass,
    names: Sequence[str],
    threshold: float,
    level: str,
    compute_aupro: Callable[[], float | None] = lambda: None,
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Metrics by name; all are left out with a warning if a class is missing."""
    if scores.empty:
        return {}, ()
    if not scores.has_both_classes:
        missing = "good" if not len(scores.negative) else "defective"
        items = "images" if level == "image" else "pixels"
        return {}, (f"no {missing} {items} among the labelled ones: {level} metrics are left out",)
    counts = confusion_at(scores, threshold)
    known: dict[str, Callable[[], float | None]] = {
        "AUROC": lambda: auroc(scores),
        "AUPR": lambda: average_precision(scores),
        "F1Score": lambda: counts.f1,
        "F1Max": lambda: confusion_at(scores, best_f1_threshold(scores)).f1,
        "Precision": lambda: counts.precision,
        "Recall": lambda: counts.recall,
        "Accuracy": lambda: counts.accuracy,
        "IoU": lambda: counts.iou,
        "Dice": lambda: counts.f1,
        "AUPRO": compute_aupro,
    }
    values = {name: known[name]() for name in names}
    return {name: value for name, value in values.items() if value is not None}, ()


def _metrics_by_defect(
    labelled: LabelledScores, metrics: Metrics, thresholds: ThresholdValues
) -> dict[str, MetricValues]:
    """Metrics of each kind of defect against all good images and pixels, without AUPRO, which needs all kinds."""
    found = {}
    for label, scores in labelled.image_by_defect.items():
        one_kind = LabelledScores(scores, labelled.pixel_by_defect.get(label))
        found[label], _ = metrics_of_levels(one_kind, metrics, thresholds)
    return found
