"""From raw scores to the scores that people read: 0..1, or percent of a threshold.

The order of scores and the side of the threshold that each is on never change.
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
"""Smallest and largest raw score by level, image and pixel."""


@dataclass(frozen=True)
class ScoreNormalizer:
    """How raw scores are normalised, as evaluation.normalization says.

    minMax: 0..1 over ``ranges``, moved so that the threshold is at 0.5, and clipped. threshold: percent of the
    threshold. none: raw. minMax and threshold leave scores raw where there is no threshold.
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
        """The one of these thresholds that pixel scores are compared with (evaluation.thresholdType)."""
        return thresholds.image if self.pixel_threshold_from == "image" else thresholds.pixel

    def _normalize(self, scores: NDArray[np.float32], threshold: float | None, level: str) -> NDArray[np.float64]:
        values = scores.astype(np.float64)
        if self.method == "none" or threshold is None:
            return values
        normalized, at_threshold = self._around(values - threshold, threshold, level)
        # Rounding must not lift a score onto the threshold that it does not reach.
        below = np.minimum(normalized, np.nextafter(at_threshold, -np.inf))
        return np.where(values < threshold, below, normalized)

    def _around(self, above: NDArray[np.float64], threshold: float, level: str) -> tuple[NDArray[np.float64], float]:
        """Normalised scores from raw scores minus the threshold, and the normalised threshold."""
        if self.method == "threshold":
            return 100 + 100 * above / percent_unit(threshold, self.ranges.get(level)), 100.0
        low, high = self.ranges.get(level, (0.0, 0.0))
        spread = high - low if high > low else 1.0
        return np.clip(above / spread + 0.5, 0, 1), 0.5


def percent_unit(threshold: float, seen: Range | None) -> float:
    """How much raw score is 100 percent of a threshold.

    That is the threshold itself where scores are distances. Flows answer log-likelihoods, so that thresholds may be
    negative: then it is their size, and 110 percent is still the more tolerant threshold. Of a threshold of 0, it is
    the spread of the scores seen.
    """
    low, high = seen or (0.0, 0.0)
    return abs(threshold) or (high - low) or 1.0


def score_range(*scored: Predictions) -> ScoreRanges:
    """Smallest and largest raw score over all predictions; no pixel range where no model localises."""
    ends = {
        "image": [(float(one.scores.min()), float(one.scores.max())) for one in scored],
        "pixel": [one.pixel_range for one in scored if one.pixel_range],
    }
    return {level: (min(low for low, _ in seen), max(high for _, high in seen)) for level, seen in ends.items() if seen}


def experiment_normalizer(spec: Evaluation, thresholds: ThresholdValues, ranges: ScoreRanges) -> ScoreNormalizer:
    """How an experiment's scores are normalised: around its own thresholds."""
    return ScoreNormalizer(spec.normalization, thresholds, ranges, spec.threshold_type)


def inference_normalizer(manifest: ModelManifest, thresholds: ThresholdValues) -> ScoreNormalizer:
    """How an inference's scores are normalised: 100 percent stays the training threshold, whereas 0.5 (minMax) is
    always the threshold that decides.
    """
    method = manifest.score_normalization
    around = manifest.thresholds if method == "threshold" else thresholds
    return ScoreNormalizer(method, around, dict(manifest.score_range), manifest.threshold_type)
