"""The networks that the benchmarks compare, as anomalib's arguments and as the manifest's, with random weights."""

from pathlib import Path
from typing import Any

MODELS = ("padim", "patchcore", "fastflow", "efficientad")
SIDES = {"efficientad": 256}
"""Pixels; 224 where nothing is said."""
BATCHES = {"efficientad": 1}
"""Images a training step; 32 where nothing is said."""
EPOCHS = {"fastflow": 2, "efficientad": 1}
"""Passes over the training images; 0 for models that need none."""
LEARNT = {"patchcore": 100, "efficientad": 20}
"""Training images at most: a memory bank grows with them, and a step of EfficientAD takes two seconds."""

_OURS: dict[str, dict[str, Any]] = {
    "padim": {"backbone": "resnet18", "layers": ["layer1", "layer2", "layer3"], "preTrained": False},
    "patchcore": {"backbone": "resnet18", "layers": ["layer2", "layer3"], "preTrained": False},
    "fastflow": {"backbone": "resnet18", "preTrained": False},
    "efficientad": {},
}
_NAMES = {"preTrained": "pre_trained"}


def parameters(name: str) -> dict[str, Any]:
    """The block ``model.NAME`` of a manifest."""
    return _OURS[name]


def arguments(name: str) -> dict[str, Any]:
    """The same for anomalib's constructor."""
    return {_NAMES.get(key, key): value for key, value in _OURS[name].items()}


def write_weights(folder: Path, side: int = 256, pictures: int = 32) -> None:
    """What EfficientAD loads, in the layout of ``model.weights``: a random teacher, and photographs' crops."""
    import numpy as np
    import skimage.data
    import torch
    from anomalib.models.image.efficient_ad.torch_model import SmallPatchDescriptionNetwork
    from PIL import Image

    teacher = folder / "anomalib/pre_trained/efficientad_pretrained_weights/pretrained_teacher_small.pth"
    teacher.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(SmallPatchDescriptionNetwork(out_channels=384, padding=False).state_dict(), teacher)
    photographs = folder / "datasets/imagenette/photographs"
    photographs.mkdir(parents=True)
    for index in range(pictures):
        whole = (skimage.data.astronaut, skimage.data.coffee, skimage.data.chelsea)[index % 3]()
        top, left = np.random.default_rng(index).integers(0, np.array(whole.shape[:2]) - side)
        Image.fromarray(whole[top : top + side, left : left + side]).save(photographs / f"{index}.jpg")
