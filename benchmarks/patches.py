"""Patches for the benchmarks of PatchCore: gravel, photographed, in EfficientNet-Lite0 with its ImageNet weights."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from anomaly_api.parameters import PatchcoreParameters
from anomaly_runner.models.base import MemoryModel
from anomaly_runner.models.memory_models import build_memory_model
from anomaly_runner.models.threads import MICRO_BATCH, TorchThreads
from anomaly_runner.models.weights import use_cache

MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
"""Of ImageNet's channels."""


def patchcore(side: int, threads: TorchThreads, **parameters: object) -> MemoryModel:
    """PatchCore on EfficientNet-Lite0, for images of this side in pixels."""
    from hack.demo.weights import write_efficientnet_lite0

    chosen = {"backbone": "tf_efficientnet_lite0", "layers": ("blocks.2", "blocks.4")} | parameters
    with tempfile.TemporaryDirectory() as cache:
        write_efficientnet_lite0(Path(cache))
        use_cache(Path(cache))
        model = build_memory_model(PatchcoreParameters.model_validate(chosen), (side, side), threads, None)
    model.eval().backbone.accelerate()
    return model


def as_input(image: Image.Image, side: int) -> Tensor:
    """A picture as the networks take it: (3, side, side)."""
    pixels = torch.from_numpy(np.asarray(image.convert("RGB").resize((side, side)), np.float32) / 255)
    return ((pixels - MEAN) / DEVIATION).permute(2, 0, 1)


def gravel_patches(count: int, side: int, threads: TorchThreads) -> Tensor:
    """The first patches (count, 152) of as many pictures of gravel as they take."""
    from hack.demo.gravel import gravel

    model = patchcore(side, threads)
    with torch.inference_mode():
        pictures = -(-count // len(model.embed(as_input(gravel(0), side)[None])))
        inputs = torch.split(torch.arange(pictures), MICRO_BATCH)
        batches = (torch.stack([as_input(gravel(int(number)), side) for number in part]) for part in inputs)
        return torch.cat([model.embed(batch) for batch in batches])[:count]
