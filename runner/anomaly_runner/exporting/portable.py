"""Wrap models for graph formats: a tensor in, a tuple of tensors out, computed in float32 or float16."""

import copy
from typing import Any

from torch import Tensor, nn

from anomaly_runner.models.base import ScoringModel


class TupleOutputModel(nn.Module):
    """A model that returns a tuple without None, as graph formats need it: scores, and maps if it localises."""

    def __init__(self, model: ScoringModel) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return scores (B,), and maps (B, 1, H, W) if the model localises, of images (B, 3, H, W)."""
        return tuple(found for found in self.model(images) if found is not None)


class Float16Model(nn.Module):
    """A model that computes in float16 and has float32 inputs and outputs."""

    def __init__(self, model: ScoringModel) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).half()
        for part in self.model.modules():
            if part._parameters:
                part.register_forward_pre_hook(_cast_to_float16)
        self.eval()  # exporters restore all modules to the mode of this one

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return float32 scores (B,), and maps (B, 1, H, W) if the model localises, of float32 images (B, 3, H, W)."""
        return tuple(found.float() for found in self.model(images.half()) if found is not None)


def _cast_to_float16(part: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Cast a layer's inputs to float16: some models create float32 tensors in their forward pass."""
    return tuple(value.half() if isinstance(value, Tensor) and value.is_floating_point() else value for value in inputs)
