"""The networks that the benchmarks compare: blocks of a manifest and arguments of anomalib, with random weights."""

from collections.abc import Mapping
from typing import Any

MODELS = ("padim", "patchcore", "fastflow", "efficientad")
SIDES = {"efficientad": 256}
"""Sides of the input in pixels; 224 by default."""
BATCHES = {"efficientad": 1}
"""Images per training step; 32 by default."""
EPOCHS = {"fastflow": 2, "efficientad": 1}
"""Passes over the training images; 0 by default, for models without epochs."""
LEARNT = {"patchcore": 100, "efficientad": 10}
"""Most training images: a memory bank grows with them, and a step of EfficientAD takes two seconds."""

_OURS: dict[str, dict[str, Any]] = {
    "padim": {"backbone": "resnet18", "layers": ["layer1", "layer2", "layer3"], "preTrained": False},
    "patchcore": {"backbone": "resnet18", "layers": ["layer2", "layer3"], "preTrained": False},
    "fastflow": {"backbone": "resnet18", "preTrained": False},
    "efficientad": {},
}
_NAMES = {"preTrained": "pre_trained", "nFeatures": "n_features"}


def parameters(name: str) -> dict[str, Any]:
    """Return the block ``model.NAME`` of a manifest."""
    return _OURS[name]


def arguments(name: str) -> dict[str, Any]:
    """Return the same parameters for anomalib's constructor."""
    return anomalib_names(_OURS[name])


def anomalib_names(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a manifest's block under anomalib's names."""
    return {_NAMES.get(key, key): value for key, value in block.items()}
