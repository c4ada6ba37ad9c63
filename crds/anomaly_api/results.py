"""results.json: every image's outcome in the format of quadra's anomaly report, for tools that read it.

Field names are quadra's own (snake_case). Unlike in quadra, numbers are JSON numbers at full
precision, and an unknown label differs from a good one.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from anomaly_api.base import Contract

RESULTS = "results.json"
"""File name in a run's folder of artifacts."""


class _Quadra(Contract):
    model_config = ConfigDict(alias_generator=None)


class Observation(_Quadra):
    """One image."""

    image_path: str
    """Folder of the image, below the dataset's root."""
    file_name: str
    """File name of the image."""
    expectation: Literal[0, 1, ""]
    """1 for a defect, 0 for a good part, empty if the label is unknown."""
    prediction: Literal[0, 1]
    """1 if the image was classified as anomalous."""
    prediction_mask: str
    """Segmentation at the image's resolution, below the run's folder; empty unless visualization.rawOutputs."""
    prediction_heatmap: str
    """Heat map at the image's resolution, below the run's folder; empty unless visualization.rawOutputs."""
    is_correct: bool
    """Whether the prediction matches the label; true if the label is unknown."""
    anomaly_score: float
    """Percent of the training threshold."""
    unnormalized_score: float
    """Raw image score."""
    anomaly_probability: float = Field(ge=0, le=1)
    """0.5 at the threshold, on the scale of the scores of this run."""
    good_below: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the good images held out in training that score lower; no field of quadra's. Unset if unknown."""


class ConfusionTable(_Quadra):
    """Decisions against labels."""

    class_labels: tuple[str, str] = ("normal", "anomaly")
    """Rows are labels, columns decisions."""
    matrix: tuple[tuple[int, int], tuple[int, int]]
    """Numbers of images."""


class ResultMetrics(_Quadra):
    """Metrics of the decisions."""

    overlapping_scores: int
    """Number of images between the lowest score of a defect and the highest of a good part."""
    confusion_matrix: ConfusionTable
    """Decisions against labels."""


class ImageResults(_Quadra):
    """The content of results.json."""

    observations: tuple[Observation, ...]
    """Images in the order in which they were scored."""
    threshold: float
    """Image threshold, in percent of the training threshold."""
    unnormalized_threshold: float
    """Image threshold of raw scores."""
    f1_score: float
    """F1 score at the threshold; 0 if no image is labelled."""
    metrics: ResultMetrics
    """Metrics of the decisions."""
