"""Normalise raw scores for people: to 0..1, or to percent of a threshold.

Normalisation keeps the order of scores, and never moves a score across the threshold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anomaly_api.evaluation import Evaluation
from anomaly_api.run import ModelManifest
from anomaly_api.status import ThresholdValues
from anomaly_runner.scoring.predict import Predictions

Range = tuple[float, float]
ScoreRanges = dict[str, Range]
"""Smallest and largest raw score by level: image, and pixel if the model localises."""


@dataclass(frozen=True)
class ScoreNormalizer:
    """Normalises raw scores by the method of evaluation.normalization.

    minMax: divided by the spread of ``ranges``, shifted so that the threshold is at 0.5, and clipped to 0..1.
    threshold: percent of the threshold. none: raw. Without a threshold, every method leaves scores raw.
    """

    method: Literal["minMax", "threshold", "none"]
    thresholds: ThresholdValues
    ranges: Mapping[str, Range]
    pixel_threshold_from: Literal["image", "pixel"] = "pixel"

    def image(self, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """Normalise image scores of any shape."""
        return self._normalize(scores, self.thresholds.image, "image")

    def pixel(self, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """Normalise pixel scores of any shape."""
        return self._normalize(scores, self.pixel_threshold(self.thresholds), "pixel")

    def pixel_threshold(self, thresholds: ThresholdValues) -> float | None:
        """The threshold that pixel scores are compared with (evaluation.thresholdType); None if there is none."""
        return thresholds.image if self.pixel_threshold_from == "image" else thresholds.pixel

    def _normalize(self, scores: NDArray[np.float32], threshold: float | None, level: str) -> NDArray[np.float64]:
        values = scores.astype(np.float64)
        if self.method == "none" or threshold is None:
            return values
        normalized, at_threshold = self._around(values - threshold, threshold, level)
        # Rounding must not lift a score that is below the threshold onto it.
        below = np.minimum(normalized, np.nextafter(at_threshold, -np.inf))
        return np.where(values < threshold, below, normalized)

    def _around(self, above: NDArray[np.float64], threshold: float, level: str) -> tuple[NDArray[np.float64], float]:
        """Normalised scores and threshold, from the raw scores minus the threshold (``above``)."""
        if self.method == "threshold":
            return 100 + 100 * above / percent_unit(threshold, self.ranges.get(level)), 100.0
        low, high = self.ranges.get(level, (0.0, 0.0))
        spread = high - low if high > low else 1.0
        return np.clip(above / spread + 0.5, 0, 1), 0.5


def percent_unit(threshold: float, seen: Range | None) -> float:
    """Difference of raw scores that counts as 100 percent of a threshold.

    For scores that are distances it is the threshold itself. Flows return log-likelihoods, so that a threshold may be
    negative: then it is the absolute value, and 110 percent is still the more tolerant threshold. For a threshold of 0
    it is the spread of the scores ``seen`` (lowest, highest).
    """
    low, high = seen or (0.0, 0.0)
    return abs(threshold) or (high - low) or 1.0


def score_range(*scored: Predictions) -> ScoreRanges:
    """Smallest and largest raw score over all predictions, by level; no pixel range if the model does not localise."""
    ends = {
        "image": [(float(one.scores.min()), float(one.scores.max())) for one in scored],
        "pixel": [one.pixel_range for one in scored if one.pixel_range],
    }
    return {level: (min(low for low, _ in seen), max(high for _, high in seen)) for level, seen in ends.items() if seen}


def experiment_normalizer(spec: Evaluation, thresholds: ThresholdValues, ranges: ScoreRanges) -> ScoreNormalizer:
    """The normaliser of an experiment, which uses the experiment's own thresholds."""
    return ScoreNormalizer(spec.normalization, thresholds, ranges, spec.threshold_type)


def inference_normalizer(manifest: ModelManifest, thresholds: ThresholdValues) -> ScoreNormalizer:
    """The normaliser of an inference.

    100 percent is always the training threshold, whereas 0.5 (minMax) is the threshold that decides in this run.
    """
    method = manifest.score_normalization
    around = manifest.thresholds if method == "threshold" else thresholds
    return ScoreNormalizer(method, around, dict(manifest.score_range), manifest.threshold_type)
