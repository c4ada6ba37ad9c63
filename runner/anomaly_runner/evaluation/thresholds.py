"""Thresholds of raw scores: found on labelled scores, set by hand, or taken over from training."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from anomaly_api.evaluation import Threshold
from anomaly_api.inference import InferenceThreshold
from anomaly_api.status import ThresholdValues
from anomaly_runner.errors import DataInvalid, ModelInvalid
from anomaly_runner.evaluation.curves import ScoresByClass, best_f1_threshold
from anomaly_runner.evaluation.labelled import LabelledScores
from anomaly_runner.evaluation.normalize import percent_unit

Warnings = tuple[str, ...]


def image_threshold(thresholds: ThresholdValues) -> float:
    """The threshold of image scores, which every decision needs.

    Raises:
        ModelInvalid: there is none; only a damaged model.json leads to this.
    """
    if thresholds.image is None:
        raise ModelInvalid("the model has no image threshold from training")
    return thresholds.image


def experiment_thresholds(
    spec: Threshold, labelled: LabelledScores, found_on: Literal["test", "validation"] = "test"
) -> tuple[ThresholdValues, Warnings]:
    """The thresholds of an experiment, and warnings.

    Without good and defective pixels in masks, the pixel threshold is the one that separates images best by their
    highest pixel score, because image and pixel scores may have different scales.

    Args:
        spec: the method, and manual thresholds.
        labelled: scores of the images that the thresholds are found on.
        found_on: name of these images, for messages.

    Raises:
        DataInvalid: no labelled image was readable.
    """
    if spec.method == "manual":
        pixel = spec.image if spec.pixel is None else spec.pixel
        return ThresholdValues(image=spec.image, pixel=pixel, source="manual"), ()
    if labelled.image.empty:
        raise DataInvalid(f"no labelled {found_on} image can be read, and the threshold is to be found on them")
    pixel_scores = labelled.pixel if labelled.pixel and labelled.pixel.has_both_classes else labelled.max_pixel
    thresholds = ThresholdValues(
        image=_adaptive(labelled.image), pixel=_adaptive(pixel_scores) if pixel_scores else None, source="adaptive"
    )
    return thresholds, _missing_class_warnings(labelled.image, found_on)


def _adaptive(scores: ScoresByClass) -> float:
    """The threshold with the best F1; without defects, where F1 is undefined, just above the highest good score."""
    if len(scores.positive):
        return best_f1_threshold(scores)
    return float(np.nextafter(scores.negative[-1], np.float32(np.inf)))


def _missing_class_warnings(image: ScoresByClass, found_on: str) -> Warnings:
    if image.has_both_classes:
        return ()
    if len(image.positive):
        return (f"no good {found_on} images: the threshold finds every defect",)
    return (f"no defective {found_on} images: the threshold is just above the highest good score",)


def inference_thresholds(
    spec: InferenceThreshold,
    training: ThresholdValues,
    labelled: LabelledScores,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[ThresholdValues, Warnings]:
    """The thresholds of an inference, and warnings; a level that the spec does not name keeps its training threshold.

    Args:
        spec: level and source of the threshold.
        training: thresholds of the model.
        labelled: scores of this run.
        ranges: lowest and highest scores of the experiment, by level.

    Raises:
        ModelInvalid: a training threshold is needed and the model has none.
    """
    if spec.source == "optimalF1":
        return _optimal(spec, training, labelled)
    if spec.source == "training":
        return _from_training(training), ()
    base = getattr(_from_training(training), spec.type)
    if base is None:
        raise ModelInvalid(f"the model has no {spec.type} threshold to take a percentage of")
    value = base + percent_unit(base, (ranges or {}).get(spec.type)) * (spec.percent - 100) / 100
    return training.model_copy(update={spec.type: value, "source": "custom"}), ()


def _optimal(
    spec: InferenceThreshold, training: ThresholdValues, labelled: LabelledScores
) -> tuple[ThresholdValues, Warnings]:
    """The threshold with the best F1 on this run's labelled images; the training threshold if a class is missing."""
    scores = labelled.image if spec.type == "image" else labelled.pixel
    if scores is not None and scores.has_both_classes:
        return training.model_copy(update={spec.type: best_f1_threshold(scores), "source": "optimalF1"}), ()
    why = "needs labelled images of both classes" if spec.type == "image" else "needs masks of both classes"
    return _from_training(training), (f"threshold.source optimalF1 {why}: the training threshold is used",)


def _from_training(training: ThresholdValues) -> ThresholdValues:
    image_threshold(training)
    return training.model_copy(update={"source": "training"})
