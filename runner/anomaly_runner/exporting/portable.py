"""Models in the shape that graph formats take: tensors in, a tuple of tensors out, in float32 or float16."""

import copy
from typing import Any

from torch import Tensor, nn

from anomaly_runner.models.base import ScoringModel


class TupleOutputModel(nn.Module):
    """A model whose outputs are a tuple of tensors, as graph formats want them: scores, and maps if it localises."""

    def __init__(self, model: ScoringModel) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Score images (B, 3, H, W): scores (B,), and maps (B, 1, H, W) if there are any."""
        return tuple(found for found in self.model(images) if found is not None)


class Float16Model(nn.Module):
    """A model that computes in float16, between float32 inputs and outputs."""

    def __init__(self, model: ScoringModel) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).half()
        for part in self.model.modules():
            if part._parameters:
                part.register_forward_pre_hook(_cast_to_float16)
        self.eval()  # an exporter puts every part back into the mode of the whole

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Score float32 images (B, 3, H, W) in float16; answers float32."""
        return tuple(found.float() for found in self.model(images.half()) if found is not None)


def _cast_to_float16(part: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Cast a layer's inputs to float16: some models make float32 tensors of their own on the way."""
    return tuple(value.half() if isinstance(value, Tensor) and value.is_floating_point() else value for value in inputs)
