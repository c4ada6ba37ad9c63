"""Thresholds of an experiment's raw scores: found on labelled scores, or set by hand."""

from functools import partial
from typing import Literal

from anomaly_api.evaluation import Threshold
from anomaly_api.status import ThresholdValues
from anomaly_runner.data.samples import DatasetIndex
from anomaly_runner.errors import DataInvalid, InvalidConfig, ModelInvalid
from anomaly_runner.evaluation.curves import ScoresByClass, best_f1_threshold
from anomaly_runner.evaluation.goals import (
    false_alarm_threshold,
    goal_threshold,
    just_above,
    needed_good_images,
)
from anomaly_runner.evaluation.labelled import LabelledScores

Warnings = tuple[str, ...]


def image_threshold(thresholds: ThresholdValues) -> float:
    """The threshold of image scores, which every decision needs.

    Raises:
        ModelInvalid: there is none; only a damaged model.json leads to this.
    """
    if thresholds.image is None:
        raise ModelInvalid("the model has no image threshold from training")
    return thresholds.image


def check_goal(spec: Threshold, dataset: DatasetIndex) -> None:
    """Check, before anything is trained, that the threshold can be found on the images that are held out for it.

    Raises:
        InvalidConfig: there are too few good ones, or no defective one.
    """
    held_out, where = (dataset.validation, "validation") if dataset.validation else (dataset.test, "test")
    good = sum(sample.defect is False for sample in held_out)
    if spec.method in ("recall", "cost") and not any(sample.defect for sample in held_out):
        raise InvalidConfig(
            f"evaluation.threshold.method {spec.method} needs defective images, and no {where} image is defective: "
            "falseAlarmRate needs none"
        )
    if spec.false_alarm_rate is not None and good < needed_good_images(spec.false_alarm_rate):
        raise InvalidConfig(
            f"evaluation.threshold.falseAlarmRate {spec.false_alarm_rate:g} needs "
            f"{needed_good_images(spec.false_alarm_rate)} good {where} images, and there are {good}, by which "
            f"{_smallest_rate(good)} can be promised at best: hold out more (dataset.splits), or ask for less"
        )


def _smallest_rate(good: int) -> str:
    return f"{1 / (good + 1):.2g}"


def experiment_thresholds(
    spec: Threshold, labelled: LabelledScores, found_on: Literal["test", "validation"] = "test"
) -> tuple[ThresholdValues, Warnings]:
    """The thresholds of an experiment, and warnings.

    Without good and defective pixels in masks, the pixel threshold is found on the highest pixel score of each image,
    because image and pixel scores may have different scales.

    Args:
        spec: the method, and manual thresholds.
        labelled: scores of the images that the thresholds are found on.
        found_on: name of these images, for messages.

    Raises:
        DataInvalid: none of the labelled images that the method needs was readable.
    """
    if spec.method == "manual":
        return _manual(spec), ()
    if labelled.image.empty:
        raise DataInvalid(f"no labelled {found_on} image can be read, and the threshold is to be found on them")
    if spec.false_alarm_rate is not None:
        return _by_false_alarms(labelled, spec.false_alarm_rate, found_on)
    if spec.method != "adaptive" and not labelled.image.has_both_classes:
        raise DataInvalid(f"no {_missing(labelled.image)} {found_on} image can be read, and {spec.method} needs some")
    return _by_labels(spec, labelled), _missing_class_warnings(labelled.image, found_on)


def _manual(spec: Threshold) -> ThresholdValues:
    return ThresholdValues(image=spec.image, pixel=spec.image if spec.pixel is None else spec.pixel, source="manual")


def _by_labels(spec: Threshold, labelled: LabelledScores) -> ThresholdValues:
    pixels = labelled.pixel if labelled.pixel and labelled.pixel.has_both_classes else labelled.max_pixel
    find = _adaptive if spec.method == "adaptive" else partial(goal_threshold, spec)
    pixel = find(pixels, pixels=pixels is labelled.pixel) if pixels else None
    return ThresholdValues(image=find(labelled.image), pixel=pixel, source=spec.method)


def _by_false_alarms(labelled: LabelledScores, rate: float, found_on: str) -> tuple[ThresholdValues, Warnings]:
    good, pixels = labelled.image.negative, labelled.max_pixel
    if not len(good):
        raise DataInvalid(f"no good {found_on} image can be read, and falseAlarmRate needs some")
    image, promise = false_alarm_threshold(good, rate)
    thresholds = ThresholdValues(
        image=image,
        pixel=false_alarm_threshold(pixels.negative, rate)[0] if pixels else None,
        source="falseAlarmRate",
        false_alarms=promise,
    )
    if len(good) >= needed_good_images(rate):
        return thresholds, ()
    best = f"falseAlarmRate {rate:g} cannot be promised by {len(good)} good {found_on} images"
    return thresholds, (f"{best} that could be read: the threshold promises {_smallest_rate(len(good))}",)


def _adaptive(scores: ScoresByClass, *, pixels: bool = False) -> float:
    """The threshold with the best F1; without defects, where F1 is undefined, just above the highest good score."""
    return best_f1_threshold(scores) if len(scores.positive) else just_above(scores.negative[-1])


def _missing(scores: ScoresByClass) -> str:
    return "defective" if len(scores.negative) else "good"


def _missing_class_warnings(image: ScoresByClass, found_on: str) -> Warnings:
    if image.has_both_classes:
        return ()
    if len(image.positive):
        return (f"no good {found_on} images: the threshold finds every defect",)
    return (
        f"no defective {found_on} images: the threshold is just above the highest good score; "
        "evaluation.threshold.method falseAlarmRate would promise a rate of false alarms",
    )
