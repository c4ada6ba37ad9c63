"""Stage evaluate: raw scores to thresholds, decisions, metrics and normalised scores. numpy alone."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray

from anomaly_api.evaluation import Evaluation, Metrics, Threshold
from anomaly_api.run import ConfusionMatrix, LabelSummary
from anomaly_api.status import MetricValues, ThresholdValues
from anomaly_runner.curves import Ranked, auroc, average_precision, best_f1_threshold, count_at, rank
from anomaly_runner.dataset import GOOD, Sample
from anomaly_runner.predict import Predictions

ScoreRange = dict[str, tuple[float, float]]
Masks = Callable[[Sample], NDArray[np.bool_]]
"""Ground truth of a labelled sample at the maps' size."""


@dataclass(frozen=True)
class ScoreScale:
    """How raw scores are shown. minMax and threshold need the thresholds, minMax also the ranges."""

    method: Literal["minMax", "threshold", "none"]
    thresholds: ThresholdValues
    ranges: Mapping[str, tuple[float, float]]
    pixel_threshold_from: Literal["image", "pixel"] = "image"

    def image(self, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """Image scores as shown."""
        return self._scaled(scores, self.thresholds.image, "image")

    def pixel(self, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """Pixel scores as shown."""
        level = self.pixel_threshold_from
        return self._scaled(scores, getattr(self.thresholds, level), "pixel")

    def _scaled(self, scores: NDArray[np.float32], threshold: float | None, level: str) -> NDArray[np.float64]:
        values = scores.astype(np.float64)
        if self.method == "none" or threshold is None:
            return values
        if self.method == "threshold":
            return values / threshold * 100 if threshold else values
        low, high = self.ranges[level]
        spread = high - low if high > low else 1.0
        return np.clip((values - threshold) / spread + 0.5, 0, 1)


@dataclass(frozen=True)
class Evaluated:
    """What the scores mean.

    ``anomalous`` (N,) and ``shown`` (N,), normalised scores, are in the order of the predictions.
    """

    thresholds: ThresholdValues
    metrics: MetricValues
    scale: ScoreScale
    anomalous: NDArray[np.bool_]
    shown: NDArray[np.float64]
    confusion: ConfusionMatrix | None
    labels: dict[str, LabelSummary]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Truth:
    """Scores that have labels, by level, sorted: ``pixel`` is None where there are no masks."""

    image: Ranked
    pixel: Ranked | None


def rank_truth(predictions: Predictions, masks: Masks | None, work: Path) -> Truth:
    """Sort what is labelled. Pixel scores are sorted in files that memory can let go of.

    Args:
        predictions: raw outputs, with maps if ``masks`` is given.
        masks: ground truth of a labelled sample; None for image level alone.
        work: folder for the files.
    """
    labelled = np.array([sample.defect is not None for sample in predictions.samples])
    positive = np.array([bool(sample.defect) for sample in predictions.samples])
    image = rank(predictions.scores[labelled], positive[labelled])
    return Truth(image, None if masks is None else _rank_pixels(predictions, masks, work))


def _rank_pixels(predictions: Predictions, masks: Masks, work: Path) -> Ranked:
    assert predictions.maps is not None
    with tempfile.TemporaryFile(dir=work) as defective, tempfile.TemporaryFile(dir=work) as good:
        for sample, scores in zip(predictions.samples, predictions.maps, strict=True):
            if sample.defect is not None:
                mask = masks(sample)
                scores[mask].tofile(defective)
                scores[~mask].tofile(good)
        return Ranked(_sorted_file(defective), _sorted_file(good))


def _sorted_file(file: IO[bytes]) -> NDArray[np.float32]:
    file.flush()
    if file.tell() == 0:
        return np.empty(0, np.float32)
    values = np.memmap(file, np.float32, "r+")
    values.sort()
    return values


def score_range(predictions: Predictions) -> ScoreRange:
    """Smallest and largest raw score seen, for image and pixel."""
    scores = predictions.scores
    return {"image": (float(scores.min()), float(scores.max())), "pixel": predictions.pixel_range}


def experiment_thresholds(spec: Threshold, truth: Truth) -> tuple[ThresholdValues, tuple[str, ...]]:
    """Thresholds of an experiment, and warnings."""
    if spec.method == "manual":
        pixel = spec.image if spec.pixel is None else spec.pixel
        return ThresholdValues(image=spec.image, pixel=pixel, source="manual"), ()
    image, warnings = _adaptive(truth.image)
    pixel = best_f1_threshold(truth.pixel) if truth.pixel and truth.pixel.both_classes else image
    return ThresholdValues(image=image, pixel=pixel, source="adaptive"), warnings


def _adaptive(image: Ranked) -> tuple[float, tuple[str, ...]]:
    if len(image.positive):
        only = () if len(image.negative) else ("no good test images: the threshold accepts every defect",)
        return best_f1_threshold(image), only
    # F1 is undefined without defects: the lowest threshold that raises no alarm on what is known to be good.
    highest = np.nextafter(image.negative[-1], np.float32(np.inf))
    return float(highest), ("no defective test images: the threshold is just above the highest good score",)


def evaluate(
    predictions: Predictions,
    truth: Truth,
    thresholds: ThresholdValues,
    *,
    scale: ScoreScale,
    metrics: Metrics,
    warnings: Sequence[str] = (),
) -> Evaluated:
    """Apply thresholds: decisions, metrics, normalised scores, summaries."""
    assert thresholds.image is not None
    anomalous = predictions.scores.astype(np.float64) >= thresholds.image
    image, image_warnings = _metrics(truth.image, metrics.image, thresholds.image, "image")
    pixel: dict[str, float] = {}
    pixel_warnings: tuple[str, ...] = ()
    if truth.pixel is not None and thresholds.pixel is not None:
        pixel, pixel_warnings = _metrics(truth.pixel, metrics.pixel, thresholds.pixel, "pixel")
    return Evaluated(
        thresholds=thresholds,
        metrics=MetricValues(image=image, pixel=pixel),
        scale=scale,
        anomalous=anomalous,
        shown=scale.image(predictions.scores),
        confusion=_confusion(truth.image, thresholds.image),
        labels=_label_summaries(predictions, anomalous),
        warnings=(*warnings, *image_warnings, *pixel_warnings),
    )


def _metrics(
    ranked: Ranked, names: Sequence[str], threshold: float, level: str
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Metrics by name; those that need both classes are left out where one is missing, with a warning."""
    if not len(ranked.positive) and not len(ranked.negative):
        return {}, ()
    if not ranked.both_classes:
        missing = "good" if not len(ranked.negative) else "defective"
        items = "images" if level == "image" else "pixels"
        return {}, (f"no {missing} {items} among the labelled ones: {level} metrics are left out",)
    counts = count_at(ranked, threshold)
    known: dict[str, Callable[[], float]] = {
        "AUROC": lambda: auroc(ranked),
        "AUPR": lambda: average_precision(ranked),
        "F1Score": lambda: counts.f1,
        "Precision": lambda: counts.precision,
        "Recall": lambda: counts.recall,
    }
    return {name: known[name]() for name in names}, ()


def _confusion(ranked: Ranked, threshold: float) -> ConfusionMatrix | None:
    if not len(ranked.positive) and not len(ranked.negative):
        return None
    counts = count_at(ranked, threshold)
    return ConfusionMatrix(
        true_negatives=counts.true_negative,
        false_positives=counts.false_positive,
        false_negatives=counts.false_negative,
        true_positives=counts.true_positive,
    )


def _label_summaries(predictions: Predictions, anomalous: NDArray[np.bool_]) -> dict[str, LabelSummary]:
    labels = np.array([sample.label for sample in predictions.samples])
    ordered = sorted(set(labels.tolist()), key=lambda label: (label != GOOD, label))
    return {label: _summary(predictions.scores[labels == label], anomalous[labels == label]) for label in ordered}


def _summary(scores: NDArray[np.float32], anomalous: NDArray[np.bool_]) -> LabelSummary:
    mean = float(scores.mean(dtype=np.float64))
    return LabelSummary(images=len(scores), mean_score=mean, anomalous=int(anomalous.sum()))


def experiment_scale(spec: Evaluation, thresholds: ThresholdValues, ranges: ScoreRange) -> ScoreScale:
    """How an experiment's scores are shown."""
    return ScoreScale(spec.normalization, thresholds, ranges, spec.threshold_type)
