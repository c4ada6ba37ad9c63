"""What is known from synthetic defects, apart from what is known from real ones."""

from dataclasses import replace

from anomaly_api.evaluation import Metrics
from anomaly_api.status import ThresholdValues
from anomaly_runner.evaluation.evaluate import EvaluationResult, metrics_of_levels
from anomaly_runner.evaluation.labelled import LabelledScores

_WITHOUT_THRESHOLD = ("AUROC", "AUPR", "AUPRO")
"""Metrics that are not those of a threshold, which is chosen on the same images."""


def marked_synthetic(thresholds: ThresholdValues) -> ThresholdValues:
    """Thresholds as found with synthetic defects; those that no defect has a part in stay as they are."""
    if thresholds.source in ("manual", "falseAlarmRate"):
        return thresholds
    return thresholds.model_copy(update={"synthetic": True})


def with_synthetic_metrics(
    evaluated: EvaluationResult, validation: LabelledScores, metrics: Metrics
) -> EvaluationResult:
    """Add metrics of synthetic defects, under names of their own.

    Args:
        evaluated: of the test images.
        validation: scores of good validation images and of synthetic defects.
        metrics: those that were asked for.
    """
    wanted = Metrics(
        image=tuple(name for name in metrics.image if name in _WITHOUT_THRESHOLD),
        pixel=tuple(name for name in metrics.pixel if name in _WITHOUT_THRESHOLD),
    )
    found, _ = metrics_of_levels(validation, wanted, evaluated.thresholds)
    named = {f"image{name}": value for name, value in found.image.items()}
    named |= {f"pixel{name}": value for name, value in found.pixel.items()}
    return replace(evaluated, metrics=evaluated.metrics.model_copy(update={"synthetic": named}))
