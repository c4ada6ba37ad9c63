"""Frozen feature extractors of timm: check names and layers, and build the network."""

import difflib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anomaly_runner.errors import InvalidConfig, WeightsNotFound
from anomaly_runner.models.compiled import CompiledNetwork, can_run_compiled
from anomaly_runner.models.damaged_weights import naming_damaged_weights
from anomaly_runner.models.lazy_compiler import lazy_compiler
from anomaly_runner.system.out_of_memory import is_out_of_memory

with lazy_compiler():
    import timm

_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights in a repository of the hub, in the order in which timm looks for them."""


@dataclass(frozen=True)
class BackboneChoice:
    """A backbone that timm knows, and the chosen layers, in the network's order."""

    name: str
    layers: tuple[str, ...]
    indices: tuple[int, ...]
    """Index of each layer in timm's ``feature_info``."""
    reductions: tuple[int, ...]
    """Stride of each layer: image pixels per feature along a side."""


def choose_backbone(name: str, layers: Sequence[str]) -> BackboneChoice:
    """Check a backbone and its layers against timm, before anything is fetched.

    Builds the network once with random weights, which advances torch's random generator: anomalib does the same, so
    that later random draws, such as PaDiM's channels, are the same for the same seed.

    Raises:
        InvalidConfig: the name or a layer is unknown, or the network has no feature layers; the message lists valid
            values.
    """
    if not timm.is_model(name) or name.startswith(("hf-hub:", "hf_hub:", "local-dir:")):
        raise InvalidConfig(f"model backbone {name!r} is not a timm model{_like(name, timm.list_models())}")
    found = _layers_of(name)
    available = [layer for layer, _ in found]
    unknown = [layer for layer in layers if layer not in available]
    if unknown:
        raise InvalidConfig(
            f"layers {', '.join(unknown)} are not in {name}{_like(unknown[0], available)}; "
            f"it has {', '.join(available)}"
        )
    indices = tuple(sorted({available.index(layer) for layer in layers}))
    names, reductions = zip(*(found[index] for index in indices), strict=True)
    return BackboneChoice(name, names, indices, reductions)


def _like(word: str, words: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, words, n=3, cutoff=0.6)
    return f" (did you mean {', '.join(close)}?)" if close else ""


def _layers_of(name: str) -> list[tuple[str, int]]:
    """Names and strides of all feature layers.

    Raises:
        InvalidConfig: the network has no feature layers.
    """
    try:
        network = timm.create_model(name, pretrained=False, features_only=True, exportable=True)
    except (RuntimeError, AttributeError, NotImplementedError, AssertionError) as error:
        if is_out_of_memory(error):
            raise
        raise InvalidConfig(f"model backbone {name!r} has no feature layers: {error}") from error
    return [(str(info["module"]), int(info["reduction"])) for info in network.feature_info.info]


def hub_repository(name: str) -> str | None:
    """Hugging Face repository of the backbone's weights, such as ``timm/resnet18.a1_in1k``."""
    config = timm.get_pretrained_cfg(name)
    return str(config.hf_hub_id) if config and config.hf_hub_id else None


class Backbone(nn.Module):
    """A frozen network up to its last chosen layer; ``forward`` returns the chosen layers' features, largest first.

    Args:
        choice: the network and its layers.
        pre_trained: load ImageNet weights from the hub's cache, or from the hub unless HF_HUB_OFFLINE is set.

    Raises:
        WeightsNotFound: the weights could not be loaded.
    """

    def __init__(self, choice: BackboneChoice, pre_trained: bool) -> None:
        super().__init__()
        network = _build(choice, pre_trained)
        self.channels: list[int] = network.feature_info.channels()
        self.network: nn.Module = network.eval().to(memory_format=torch.channels_last)
        self.requires_grad_(False)
        self._compiled: CompiledNetwork | None = None

    def accelerate(self) -> None:
        """Run the network in onnxruntime on the CPU from now on; its weights must not change afterwards."""
        self._compiled = CompiledNetwork(self.network)

    @property
    def accelerated(self) -> bool:
        """Whether onnxruntime may run the network."""
        return self._compiled is not None

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features of images (B, 3, H, W): one tensor (B, C, h, w) for each layer."""
        if self._compiled and can_run_compiled(images) and (features := self._compiled(images)):
            return features
        found: list[Tensor] = self.network(images.contiguous(memory_format=torch.channels_last))
        return found

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Rows and columns of each layer's features for an input of this size."""
        with torch.inference_mode():
            shapes = [feature.shape[-2:] for feature in self(torch.zeros(1, 3, height, width))]
        return [(int(rows), int(columns)) for rows, columns in shapes]


def _build(choice: BackboneChoice, pre_trained: bool) -> Any:
    try:
        with naming_damaged_weights(lambda: hub_repository(choice.name) or choice.name):
            return timm.create_model(
                choice.name, pretrained=pre_trained, features_only=True, exportable=True, out_indices=choice.indices
            )
    except (OSError, RuntimeError) as error:
        if not pre_trained or is_out_of_memory(error):
            raise
        raise _cannot_load(choice.name, error) from error


def check_on_hub(name: str) -> int | None:
    """Find the backbone's weights on the hub or in the hub's cache, as timm does, without downloading them.

    Returns:
        Size of the file in bytes; None if it is not told, or if timm loads the weights from elsewhere.

    Raises:
        WeightsNotFound: they are not there, or the hub does not answer.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    repository, _, revision = (hub_repository(name) or "").partition("@")
    if not repository:
        return None
    own = getattr(timm.get_pretrained_cfg(name), "hf_hub_filename", None)
    *alternatives, last = (own,) if own else _FILES
    try:
        for file in alternatives:
            with suppress(EntryNotFoundError):
                return hf_hub_download(repository, file, revision=revision or None, dry_run=True).file_size
        return hf_hub_download(repository, last, revision=revision or None, dry_run=True).file_size
    except (OSError, RuntimeError) as error:
        raise _cannot_load(name, error) from error


def _cannot_load(name: str, error: Exception) -> WeightsNotFound:
    return WeightsNotFound(
        f"cannot load the weights of {name} ({hub_repository(name)}): {error}; "
        "for a cluster with no internet set model.weights"
    )
