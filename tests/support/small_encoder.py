"""A stand-in for AnomalyVFM's encoder, RADIO (ViT-L): what surrounds it is anomalib's own and ours."""

from contextlib import AbstractContextManager, nullcontext
from unittest.mock import patch

import torch
from torch import Tensor, nn

from anomaly_api.model import ModelName
from support.model_rows import ROWS

_FEATURES = 1024
_PATCH = 16


class SmallEncoder(nn.Module):
    """Answers as RADIO does: a summary (B, 3072) and the features (B, N, 1024) of the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, _FEATURES, _PATCH, _PATCH)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the summary and the features of images (B, 3, H, W)."""
        features = self.patches(images).flatten(2).transpose(1, 2)
        return torch.cat([features.mean(1), features.amax(1), features.amin(1)], 1), features


def encoder_of(name: ModelName) -> AbstractContextManager[object]:
    """Have anomalib build AnomalyVFM with the stand-in inside this block; change nothing of other models."""
    if not ROWS[name].small_encoder:
        return nullcontext()
    return patch("anomalib.models.image.anomalyvfm.torch_model.RADIOModel", SmallEncoder)
