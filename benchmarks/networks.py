"""The networks that the benchmarks compare, as anomalib's arguments and as the manifest's, with random weights."""

from collections.abc import Mapping
from typing import Any

MODELS = ("padim", "patchcore", "fastflow", "efficientad")
SIDES = {"efficientad": 256}
"""Pixels; 224 where nothing is said."""
BATCHES = {"efficientad": 1}
"""Images a training step; 32 where nothing is said."""
EPOCHS = {"fastflow": 2, "efficientad": 1}
"""Passes over the training images; 0 for models that need none."""
LEARNT = {"patchcore": 100, "efficientad": 10}
"""Training images at most: a memory bank grows with them, and a step of EfficientAD takes two seconds."""

_OURS: dict[str, dict[str, Any]] = {
    "padim": {"backbone": "resnet18", "layers": ["layer1", "layer2", "layer3"], "preTrained": False},
    "patchcore": {"backbone": "resnet18", "layers": ["layer2", "layer3"], "preTrained": False},
    "fastflow": {"backbone": "resnet18", "preTrained": False},
    "efficientad": {},
}
_NAMES = {"preTrained": "pre_trained", "nFeatures": "n_features"}


def parameters(name: str) -> dict[str, Any]:
    """The block ``model.NAME`` of a manifest."""
    return _OURS[name]


def arguments(name: str) -> dict[str, Any]:
    """The same for anomalib's constructor."""
    return anomalib_names(_OURS[name])


def anomalib_names(block: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters under the names that they have there."""
    return {_NAMES.get(key, key): value for key, value in block.items()}
