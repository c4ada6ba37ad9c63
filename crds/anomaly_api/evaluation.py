"""How scores become decisions, metrics and pictures.

Metrics come from raw scores; an image (or pixel) is anomalous when ``score >= threshold``.
"""

from typing import Annotated, Literal

from pydantic import Field

from anomaly_api.base import Contract
from anomaly_api.dataset import Task
from anomaly_api.rules import only_when, required_when
from anomaly_api.threshold_goals import GoalSettings, goal_rules

ImageMetric = Literal["AUROC", "AUPR", "F1Score", "F1Max", "Precision", "Recall", "Accuracy"]
PixelMetric = Literal["AUROC", "AUPR", "F1Score", "F1Max", "Precision", "Recall", "AUPRO", "IoU", "Dice"]
ScoreLevel = Literal["image", "pixel"]


class Threshold(GoalSettings):
    """The score from which an image or a pixel counts as anomalous."""

    rules = (
        required_when("image", "method", "manual"),
        only_when("image", "method", "manual"),
        only_when("pixel", "method", "manual"),
        *goal_rules("method"),
    )

    method: Literal["adaptive", "manual", "falseAlarmRate", "recall", "cost"] = "adaptive"
    """How it is found, on the labelled validation images or, without any, on the test images. adaptive: the score with
    the best F1. manual: the values below. falseAlarmRate: the lowest threshold that, in expectation, at most this share
    of new good images reaches; it needs no defect, and 1 / falseAlarmRate - 1 good images at least. recall: the highest
    threshold that finds at least this share of the defects, so that nothing but false alarms is saved. cost: the
    threshold at which misses and false alarms cost least, the lowest one of several. The pixel threshold is found in
    the same way on pixels; on the highest pixel score of each image where there are no masks, and always for
    falseAlarmRate, since pixels of one image are not independent of each other."""
    image: float | None = None
    """Manual threshold of the raw image score."""
    pixel: float | None = None
    """Manual threshold of the raw pixel score; unset means the image threshold."""


class Metrics(Contract):
    """Which metrics are reported."""

    image: Annotated[tuple[ImageMetric, ...], Field(max_length=16)] = (
        "AUROC",
        "AUPR",
        "F1Score",
        "Precision",
        "Recall",
    )
    """Metrics of image scores against good and defect."""
    pixel: Annotated[tuple[PixelMetric, ...], Field(max_length=16)] = ("AUROC", "AUPR", "F1Score")
    """Metrics of pixel scores against the masks; none are computed if empty or for classification. AUPRO is the
    area under the per-region overlap up to a false positive rate of 0.3 (Bergmann et al., CVPR 2020); F1Score, IoU,
    Dice, Precision and Recall are those at the pixel threshold."""
    confidence_intervals: bool = True
    """Report 95 % intervals beside the image metrics: DeLong's for AUROC, Wilson's for proportions."""

    def of_task(self, task: Task) -> "Metrics":
        """The metrics that are computed in a task: those of pixels for segmentation alone."""
        return self if task == "segmentation" else self.model_copy(update={"pixel": ()})


class Visualization(Contract):
    """Pictures of predictions: image, heat map, segmentation."""

    enabled: bool = False
    """Draw pictures."""
    only_wrong: bool = False
    """Draw only images that were classified wrongly."""
    raw_outputs: bool = False
    """Also write, as separate files: the heat map (grey PNG, 128 is the threshold) and the segmentation (PNG), both of
    the image's size, and the normalised pixel scores as the model answers them (compressed TIFF of float32, of the
    model's input size; its ImageDescription says which part of the image it covers)."""


class Latency(Contract):
    """The time that the model takes for an image, measured at the end of the run."""

    enabled: bool = True
    """Measure it. A trial of a sweep does so only where an objective or a constraint is about it."""


class Evaluation(Contract):
    """Threshold, normalisation, metrics, latency, pictures."""

    threshold: Threshold = Threshold()
    """How the threshold is found."""
    normalization: Literal["minMax", "threshold", "none"] = "minMax"
    """Scale of the scores in predictions and pictures. minMax: 0..1 over the scores seen, threshold at 0.5;
    threshold: percent of the threshold (100 = threshold); none: raw."""
    threshold_type: ScoreLevel = "pixel"
    """Threshold that normalises pixel scores, and so is 128 in heat maps; segmentations always use the pixel
    threshold."""
    metrics: Metrics = Metrics()
    """Which metrics are reported."""
    latency: Latency = Latency()
    """The model's time for an image."""
    visualization: Visualization = Visualization()
    """Pictures of predictions."""
