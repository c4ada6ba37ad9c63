"""results.json: every image's outcome in the form of quadra's anomaly report, for tools that read that.

Field names are quadra's own (snake_case). Two things are better than there: numbers are numbers, at full precision, and
what is unknown can be told from what is right.
"""

from typing import Literal

from pydantic import ConfigDict, Field

from anomaly_api.base import Contract

RESULTS = "results.json"
"""Name in a run's folder of artifacts."""


class _Quadra(Contract):
    model_config = ConfigDict(alias_generator=None)


class Observation(_Quadra):
    """One image."""

    image_path: str
    """Folder of the image, below the dataset's root."""
    file_name: str
    """Its file."""
    expectation: Literal[0, 1, ""]
    """1 for a defect, 0 for a good part, empty where nobody knows."""
    prediction: Literal[0, 1]
    """1 where it was decided anomalous."""
    prediction_mask: str
    """Segmentation at the image's resolution, below the run's folder; empty unless visualization.rawOutputs."""
    prediction_heatmap: str
    """Heat map likewise."""
    is_correct: bool
    """Decided as expected; true where nothing is expected."""
    anomaly_score: float
    """Percent of the training threshold."""
    unnormalized_score: float
    """Raw image score."""
    anomaly_probability: float = Field(ge=0, le=1)
    """0.5 at the threshold, on the scale of the scores of this run."""


class ConfusionTable(_Quadra):
    """Decisions against labels, images."""

    class_labels: tuple[str, str] = ("normal", "anomaly")
    """Rows are labels, columns decisions."""
    matrix: tuple[tuple[int, int], tuple[int, int]]
    """Images."""


class ResultMetrics(_Quadra):
    """What the decisions came to."""

    overlapping_scores: int
    """Images between the lowest score of a defect and the highest of a good part."""
    confusion_matrix: ConfusionTable
    """Decisions against labels."""


class ImageResults(_Quadra):
    """The whole file."""

    observations: tuple[Observation, ...]
    """Images in the order in which they were scored."""
    threshold: float
    """Image threshold, in percent of the training threshold."""
    unnormalized_threshold: float
    """Image threshold of raw scores."""
    f1_score: float
    """At the threshold; 0 where no image is labelled."""
    metrics: ResultMetrics
    """What the decisions came to."""
