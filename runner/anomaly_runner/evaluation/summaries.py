"""Summaries of scores and decisions for the report: confusion matrix, labels, histogram and mistakes."""

import numpy as np
from numpy.typing import NDArray

from anomaly_api.run import ConfusionMatrix, LabelSummary, Mistake, ScoreHistogram
from anomaly_runner.data.samples import GOOD
from anomaly_runner.evaluation.curves import ScoresByClass, confusion_at
from anomaly_runner.scoring.predict import Predictions

_BINS = 40
_MISTAKES = 100
"""Largest number of mistakes that are listed."""


def score_histogram(predictions: Predictions) -> ScoreHistogram:
    """Count the image scores of each class in bins of equal width."""
    scores = predictions.scores.astype(np.float64)
    edges = np.histogram_bin_edges(scores, _BINS)

    def counts(defect: bool | None) -> tuple[int, ...]:
        chosen = np.array([sample.defect is defect for sample in predictions.samples])
        return tuple(np.histogram(scores[chosen], edges)[0].tolist()) if chosen.any() or defect is not None else ()

    return ScoreHistogram(edges=tuple(edges.tolist()), good=counts(False), defect=counts(True), unknown=counts(None))


def worst_mistakes(predictions: Predictions, anomalous: NDArray[np.bool_], threshold: float) -> tuple[Mistake, ...]:
    """Images whose decision (N,) contradicts their label, furthest from the threshold first."""
    wrong = [
        index
        for index, sample in enumerate(predictions.samples)
        if sample.defect is not None and sample.defect != bool(anomalous[index])
    ]
    wrong.sort(key=lambda index: -abs(float(predictions.scores[index]) - threshold))
    return tuple(
        Mistake(
            path=predictions.samples[index].key,
            label=predictions.samples[index].label,
            score=float(predictions.scores[index]),
        )
        for index in wrong[:_MISTAKES]
    )


def confusion_matrix(scores: ScoresByClass, threshold: float) -> ConfusionMatrix | None:
    """The confusion matrix of the image decisions; None if no image is labelled."""
    if scores.empty:
        return None
    counts = confusion_at(scores, threshold)
    return ConfusionMatrix(
        true_negatives=counts.true_negative,
        false_positives=counts.false_positive,
        false_negatives=counts.false_negative,
        true_positives=counts.true_positive,
    )


def label_summaries(predictions: Predictions, anomalous: NDArray[np.bool_]) -> dict[str, LabelSummary]:
    """Summaries by label: good first, then kinds of defect and the unlabelled images in the order of their names."""
    labels = np.array([sample.label for sample in predictions.samples])
    ordered = sorted(set(labels.tolist()), key=lambda label: (label != GOOD, label))
    return {label: _summary(predictions.scores[labels == label], anomalous[labels == label]) for label in ordered}


def _summary(scores: NDArray[np.float32], anomalous: NDArray[np.bool_]) -> LabelSummary:
    mean = float(scores.mean(dtype=np.float64))
    return LabelSummary(images=len(scores), mean_score=mean, anomalous=int(anomalous.sum()))
