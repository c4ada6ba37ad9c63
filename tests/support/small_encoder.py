"""Small encoders in the place of large ones: what surrounds them is anomalib's own and ours."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

import open_clip
import torch
from torch import Tensor, nn

from anomaly_api.model import ModelName
from support.model_rows import ROWS

_FEATURES = 1024
_PATCH = 16


class SmallEncoder(nn.Module):
    """Answers as AnomalyVFM's RADIO (ViT-L) does: a summary (B, 3072), and the features (B, N, 1024) of the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, _FEATURES, _PATCH, _PATCH)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the summary and the features of images (B, 3, H, W)."""
        features = self.patches(images).flatten(2).transpose(1, 2)
        return torch.cat([features.mean(1), features.amax(1), features.amin(1)], 1), features


def _short_clip(*arguments: Any, made: Any = open_clip.create_model_and_transforms, **options: Any) -> Any:
    """Return WinCLIP's encoders of images and of texts with the first two of their twelve layers."""
    clip, *transforms = made(*arguments, **options)
    for transformer in (clip.visual.transformer, clip.transformer):
        transformer.resblocks = transformer.resblocks[:2]
    return clip, *transforms


_SMALL = {
    "anomalyVfm": ("anomalib.models.image.anomalyvfm.torch_model.RADIOModel", SmallEncoder),
    "winclip": ("open_clip.create_model_and_transforms", _short_clip),
}


def encoder_of(name: ModelName) -> AbstractContextManager[object]:
    """Have anomalib build a model with its small encoder inside this block; change nothing of models without one."""
    return patch(*_SMALL[name]) if ROWS[name].small_encoder else nullcontext()
