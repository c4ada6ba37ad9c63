"""The data and the script with which the page decides anew at another threshold, without a server.

The script is the only one that the page's content security policy allows, by its digest.
"""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_api.run import ScoreHistogram
from anomaly_api.status import ThresholdValues
from anomaly_runner.data.samples import is_defect
from anomaly_runner.reporting.figures import score_range

MOST_SCORES = 100_000
"""Scores of a label that the page holds (half a megabyte); of more, as many as this, evenly spread, stand for all."""


def threshold_data(
    by_label: Mapping[str, NDArray[np.float32]], histogram: ScoreHistogram, thresholds: ThresholdValues
) -> dict[str, Any]:
    """Return what the script needs, to be written as JSON.

    Args:
        by_label: scores (N,) of each label's images, ascending, in the order of the page's labels.
        histogram: of all scores: its ends are those of the charts.
        thresholds: those of the run, with their method and what it promises; the image threshold is set.
    """
    low, high = score_range(histogram, thresholds.image)
    labels = [_label(label, scores) for label, scores in by_label.items()]
    return {
        "threshold": thresholds.image,
        "pixel": thresholds.pixel,
        "method": thresholds.source,
        "falseAlarms": thresholds.false_alarms.to_json_object() if thresholds.false_alarms else None,
        "low": low,
        "high": high,
        "labels": labels,
    }


def _label(label: str, scores: NDArray[np.float32]) -> dict[str, Any]:
    """Scores as base64 of float32 in little-endian order: JSON's digits would be twice as long."""
    kept = scores if len(scores) <= MOST_SCORES else scores[np.linspace(0, len(scores) - 1, MOST_SCORES).astype(int)]
    text = base64.b64encode(kept.astype("<f4").tobytes()).decode()
    return {"defect": is_defect(label), "images": len(scores), "scores": text}


@cache
def threshold_script() -> tuple[str, str]:
    """Return the script, and its source expression for the content security policy (CSP level 2, hash-source)."""
    script = (files("anomaly_runner.reporting") / "templates" / "threshold.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return script, f"'sha256-{digest}'"
