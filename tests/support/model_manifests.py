"""The manifest of a trained model, as small as it can be."""

from typing import Any

from anomaly_api.run import ModelManifest, RunIdentity
from anomaly_api.status import ThresholdValues


def model_manifest(run: RunIdentity, **fields: Any) -> ModelManifest:
    """Return that of a PaDiM without exports and thresholds, at 8 x 16 pixels, but for what ``fields`` say."""
    usual = {
        "run": run,
        "model": "padim",
        "input_height": 8,
        "input_width": 16,
        "normalization": "none",
        "exports": (),
        "thresholds": ThresholdValues(),
        "score_normalization": "none",
        "threshold_type": "image",
        "task": "classification",
    }
    return ModelManifest.model_validate(usual | fields)
