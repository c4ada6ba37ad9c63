"""Make results.json: the result of each image, in the format of quadra's tools. See ``anomaly_api.results``."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly_api.results import ConfusionTable, ImageResults, Observation, ResultMetrics
from anomaly_api.run import ConfusionMatrix
from anomaly_api.status import ThresholdValues
from anomaly_runner.evaluation.curves import ScoresByClass
from anomaly_runner.evaluation.evaluate import EvaluationResult
from anomaly_runner.evaluation.normalize import percent_unit
from anomaly_runner.reporting.visualize import verdict_of
from anomaly_runner.scoring.predict import Predictions


def image_results(
    predictions: Predictions, evaluated: EvaluationResult, training: ThresholdValues, folder: Path
) -> ImageResults:
    """Make results.json.

    Args:
        predictions: raw scores.
        evaluated: decisions and threshold.
        training: its image threshold is 100 percent; if it has none, the run's own threshold is.
        folder: the run's artifacts, including its pictures.
    """
    threshold = evaluated.image_threshold
    base = threshold if training.image is None else training.image
    unit = percent_unit(base, evaluated.normalizer.ranges.get("image"))
    confusion = evaluated.confusion or ConfusionMatrix(
        true_negatives=0, false_positives=0, false_negatives=0, true_positives=0
    )
    return ImageResults(
        observations=tuple(_observations(predictions, evaluated, (base, unit), folder)),
        threshold=100 + 100 * (threshold - base) / unit,
        unnormalized_threshold=threshold,
        f1_score=_f1(confusion),
        metrics=ResultMetrics(
            overlapping_scores=_overlapping(predictions.scores, evaluated), confusion_matrix=_table(confusion)
        ),
    )


def _observations(
    predictions: Predictions, evaluated: EvaluationResult, percent: tuple[float, float], folder: Path
) -> Iterator[Observation]:
    base, unit = percent
    raw = predictions.scores.astype(np.float64)
    probability = _probability(raw, evaluated.image_threshold)
    for index, sample in enumerate(predictions.samples):
        folder_of_image, _, name = sample.key.rpartition("/")
        anomalous = bool(evaluated.anomalous[index])
        mask, heat = _pictures(predictions, evaluated, index, folder)
        yield Observation(
            image_path=folder_of_image or ".",
            file_name=name,
            expectation="" if sample.defect is None else int(sample.defect),
            prediction=1 if anomalous else 0,
            prediction_mask=mask,
            prediction_heatmap=heat,
            is_correct=sample.defect is None or sample.defect == anomalous,
            anomaly_score=float(100 + 100 * (raw[index] - base) / unit),
            unnormalized_score=float(raw[index]),
            anomaly_probability=float(probability[index]),
            good_below=None if evaluated.good_below is None else float(evaluated.good_below[index]),
        )


def _probability(scores: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    spread = float(scores.max() - scores.min()) or 1.0
    probability: NDArray[np.float64] = np.clip((scores - threshold) / spread + 0.5, 0, 1)
    return probability


def _pictures(predictions: Predictions, evaluated: EvaluationResult, index: int, folder: Path) -> tuple[str, str]:
    """Paths of segmentation and heat map, relative to the artifacts; empty if they were not drawn."""
    name = verdict_of(predictions, evaluated, index).file_name(index)
    files = [f"visualizations/{name}_{kind}.png" for kind in ("segmentation", "heatmap")]
    mask, heat = (file if (folder / file).exists() else "" for file in files)
    return mask, heat


def _overlapping(scores: NDArray[np.float32], evaluated: EvaluationResult) -> int:
    """Number of images with scores from the lowest of a defective image to the highest of a good one."""
    labelled: ScoresByClass | None = evaluated.labelled.image if evaluated.labelled else None
    if labelled is None or not labelled.has_both_classes:
        return 0
    return int(((scores >= labelled.positive[0]) & (scores <= labelled.negative[-1])).sum())


def _f1(confusion: ConfusionMatrix) -> float:
    found = 2 * confusion.true_positives
    counted = found + confusion.false_positives + confusion.false_negatives
    return found / counted if counted else 0.0


def _table(confusion: ConfusionMatrix) -> ConfusionTable:
    good = (confusion.true_negatives, confusion.false_positives)
    return ConfusionTable(matrix=(good, (confusion.false_negatives, confusion.true_positives)))
