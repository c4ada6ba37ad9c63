"""The interfaces of models: training, prediction and export use these types, not those of a single model."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anomaly_runner.models.backbone import Backbone
from anomaly_runner.models.threads import TorchThreads


class ScoringModel(nn.Module):
    """A model that scores images.

    ``forward`` takes images (B, 3, H, W), float32, and returns raw scores (B,) and raw anomaly maps (B, 1, H, W), or
    None for the maps if ``localises`` is false.
    """

    localises: bool = True
    """Whether the model returns anomaly maps besides image scores."""
    concurrent: bool = True
    """Whether several threads may call the model at the same time."""

    @property
    def accelerated(self) -> bool:
        """Whether a part of the model may run in onnxruntime."""
        return any(isinstance(part, Backbone) and part.accelerated for part in self.modules())


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory that a model needs, in bytes, beside its backbone."""

    fitted: int
    """Size of the fitted model."""
    reading: int
    """What is held when the last training image is read."""
    peak: int
    """Largest memory during the fit, without activations."""


class MemoryModel(ScoringModel, ABC):
    """A model that is fitted to features of a frozen backbone, in one pass."""

    backbone: Backbone

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Return features of images (B, 3, H, W), in the model's own layout; may be called from several threads."""

    @abstractmethod
    def observe(self, embeddings: Sequence[Tensor]) -> None:
        """Learn from the embeddings of one training step, which was split into parts; in order."""

    @abstractmethod
    def finish(self) -> None:
        """Complete the fit after the last step, so that the model can score.

        Raises:
            InvalidConfig: there were too few images for the parameters.
        """

    @abstractmethod
    def memory_estimate(self, images: int) -> MemoryEstimate:
        """Memory that the model will need for this number of training images."""

    @abstractmethod
    def fitted_shapes(self, images: int) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the buffers that a fit to this number of training images changes, by their name."""

    @abstractmethod
    def memory_advice(self, images: int) -> str:
        """Advice for people on what to change in the manifest so that the model needs less memory."""

    def adapt_to_memory(self, images: int, free: int) -> str:
        """Choose how to fit to this number of training images in ``free`` bytes, where a model can.

        Returns:
            What is done differently than it would be with more memory, for the user; empty for nothing.
        """
        return ""

    def learn(self, steps: Iterable[Tensor], threads: TorchThreads) -> None:
        """Fit to training images, one step (B, 3, H, W) at a time.

        Raises:
            InvalidConfig: there were too few images for the parameters.
        """
        self.backbone.accelerate()
        with torch.inference_mode():
            for images in steps:
                self.observe(list(threads.map(self.embed, threads.split(images))))
            self.finish()
