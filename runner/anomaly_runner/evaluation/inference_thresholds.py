"""Thresholds of an inference's raw scores: found on its own labelled images, or taken over from training."""

from collections.abc import Mapping

from anomaly_api.inference import InferenceThreshold
from anomaly_api.status import FalseAlarms, ThresholdValues
from anomaly_runner.errors import ModelInvalid
from anomaly_runner.evaluation.curves import best_f1_threshold
from anomaly_runner.evaluation.goals import false_alarm_threshold, goal_threshold, needed_good_images
from anomaly_runner.evaluation.labelled import LabelledScores
from anomaly_runner.evaluation.normalize import percent_unit
from anomaly_runner.evaluation.thresholds import Warnings, image_threshold


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
    if spec.source == "falseAlarmRate":
        return _promised(spec, training, labelled)
    if spec.source in ("optimalF1", "recall", "cost"):
        return _optimal(spec, training, labelled)
    if spec.source == "training":
        return _from_training(training), ()
    base = getattr(_from_training(training), spec.type)
    if base is None:
        raise ModelInvalid(f"the model has no {spec.type} threshold to take a percentage of")
    value = base + percent_unit(base, (ranges or {}).get(spec.type)) * (spec.percent - 100) / 100
    return _with(training, spec, value), ()


def _optimal(
    spec: InferenceThreshold, training: ThresholdValues, labelled: LabelledScores
) -> tuple[ThresholdValues, Warnings]:
    """The threshold that is best on this run's labelled images; the training threshold if a class is missing."""
    scores = labelled.image if spec.type == "image" else labelled.pixel
    if scores is None or not scores.has_both_classes:
        what = "labelled images" if spec.type == "image" else "masks"
        return _fall_back(spec, training, f"needs {what} of both classes")
    if spec.source == "optimalF1":
        return _with(training, spec, best_f1_threshold(scores)), ()
    return _with(training, spec, goal_threshold(spec, scores, pixels=spec.type == "pixel")), ()


def _promised(
    spec: InferenceThreshold, training: ThresholdValues, labelled: LabelledScores
) -> tuple[ThresholdValues, Warnings]:
    """The threshold that promises a rate of false alarms; the training threshold if there are too few good images."""
    scores, rate = labelled.image if spec.type == "image" else labelled.max_pixel, spec.false_alarm_rate or 1.0
    if scores is None:
        return _fall_back(spec, training, "needs a model with pixel scores")
    needed, found = needed_good_images(rate), len(scores.negative)
    if found < needed:
        return _fall_back(spec, training, f"needs {needed} images labelled good for {rate:g}, and {found} are")
    threshold, promise = false_alarm_threshold(scores.negative, rate)
    return _with(training, spec, threshold, promise), ()


def _fall_back(spec: InferenceThreshold, training: ThresholdValues, why: str) -> tuple[ThresholdValues, Warnings]:
    return _from_training(training), (f"threshold.source {spec.source} {why}: the training threshold is used",)


def _with(
    training: ThresholdValues, spec: InferenceThreshold, value: float, promise: FalseAlarms | None = None
) -> ThresholdValues:
    """The thresholds of training, with another one at the level that the spec names."""
    return training.model_copy(update={spec.type: value, "source": spec.source, "false_alarms": promise})


def _from_training(training: ThresholdValues) -> ThresholdValues:
    image_threshold(training)
    return training.model_copy(update={"source": "training"})
