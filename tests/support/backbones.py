"""Backbones of torchvision with random weights, as files of a weights cache."""

from pathlib import Path

import torch
import torchvision
from torch import Tensor

EFFICIENTNET_B5 = "torch/hub/checkpoints/efficientnet_b5_lukemelas-1a07897c.pth"
RESNET18 = "torch/hub/checkpoints/resnet18-f37072fd.pth"


def write_resnet18(cache: Path) -> None:
    """Write the backbone that CFA loads."""
    _write(torchvision.models.resnet18(weights=None), cache / RESNET18)


def write_efficientnet_b5(cache: Path, images: Tensor) -> None:
    """Write the backbone that CS-Flow loads.

    Random weights make features vanish, so they are scaled to unit deviation on ``images`` (B, 3, H, W).
    """
    torch.manual_seed(0)
    network = torchvision.models.efficientnet_b5(weights=None).eval()
    with torch.no_grad():
        size = network.features[:7](images).std()
        network.features[6][0].block[-1][1].weight /= size
    _write(network, cache / EFFICIENTNET_B5)


def _write(network: torch.nn.Module, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), file)
