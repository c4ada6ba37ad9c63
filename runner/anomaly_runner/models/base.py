"""What training, prediction and export need to know of a model: they see these types, and no model's own."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from anomaly_runner.models.backbone import Backbone
from anomaly_runner.models.threads import TorchThreads


class ScoringModel(nn.Module):
    """A model that is ready to score.

    ``forward`` takes images (B, 3, H, W), float32, and answers raw scores (B,) and raw anomaly maps (B, 1, H, W), or
    None in place of the maps where ``localises`` is false.
    """

    localises: bool = True
    """Whether it answers anomaly maps beside image scores."""
    concurrent: bool = True
    """Whether it may be called from several threads at once."""

    @property
    def accelerated(self) -> bool:
        """Whether a part of it may run in onnxruntime."""
        return any(isinstance(part, Backbone) and part.accelerated for part in self.modules())


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory that a model takes, in bytes."""

    fitted: int
    """The model, once it is fitted."""
    peak: int
    """At the peak of fitting it."""


class MemoryModel(ScoringModel, ABC):
    """A model that is fitted to features of a frozen backbone, in one pass."""

    size_parameter: ClassVar[str]
    """Parameter of the manifest that the fitted model's size goes by."""
    backbone: Backbone

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Features of a few images (B, 3, H, W), in the model's own layout; may be called from several threads."""

    @abstractmethod
    def observe(self, embeddings: Sequence[Tensor]) -> None:
        """Learn from one training step: the embeddings of its parts, in order."""

    @abstractmethod
    def finish(self) -> None:
        """Turn what was observed into what scores.

        Raises:
            InvalidConfig: too little was observed for the parameters.
        """

    @abstractmethod
    def memory_estimate(self, images: int) -> MemoryEstimate:
        """What it will take for this many training images."""

    @abstractmethod
    def memory_advice(self, images: int) -> str:
        """What to change in a manifest so that it takes less, for people."""

    def learn(self, steps: Iterable[Tensor], threads: TorchThreads) -> None:
        """Fit to training images, one step (B, 3, H, W) at a time.

        Raises:
            InvalidConfig: there are too few for the parameters.
        """
        self.backbone.accelerate()
        with torch.inference_mode():
            for images in steps:
                self.observe(list(threads.map(self.embed, threads.split(images))))
            self.finish()
