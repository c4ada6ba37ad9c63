"""Memory that the tensors of a forward pass take at their peak, found without a GPU and without that memory.

The pass runs on torch's meta device, where a tensor has a shape and no content, in the same operators as on a GPU. What
is counted are the tensors that are alive at the same time, beside the weights. Not counted are the workspaces of cuDNN
and cuBLAS and the gaps between blocks, so that the estimate is what the pass needs at least.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anomaly_runner.models.lazy_compiler import lazy_compiler

_META = torch.device("meta")


def peak_activations(
    function: Callable[[Tensor], object],
    model: nn.Module,
    images: tuple[int, int, int, int],
    fitted: Mapping[str, Sequence[int]] | None = None,
) -> int:
    """Bytes of the images and of all tensors that are computed from them, at the peak.

    Args:
        function: a method of the model that takes images.
        model: may be on any device; it is not changed.
        images: shape of the batch, (B, 3, H, W).
        fitted: shapes of buffers, float32, that have another one once the model is fitted.
    """
    state = {name: torch.empty_like(tensor, device=_META) for name, tensor in _state(model).items()}
    state |= {name: torch.empty(tuple(shape), device=_META) for name, shape in (fitted or {}).items()}
    batch = torch.empty(images, device=_META)
    live = _LiveBytes(state.values())
    with torch.no_grad(), live, lazy_compiler():
        live.count(batch)
        torch.func.functional_call(
            _Method(function, model), {f"model.{name}": tensor for name, tensor in state.items()}, (batch,)
        )
    return live.peak


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


class _Method(nn.Module):
    """A method of a model as the forward pass of a module."""

    def __init__(self, function: Callable[[Tensor], object], model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._function = function

    def forward(self, images: Tensor) -> object:
        return self._function(images)


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that operators make inside the block, until they are freed.

    Args:
        known: tensors whose storages do not count.
    """

    def __init__(self, known: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak: int = 0
        self._now = 0
        self._live: set[int] = {tensor.untyped_storage()._cdata for tensor in known}

    def count(self, tensor: Tensor) -> None:
        """Add a tensor's storage, unless it is counted already."""
        storage = tensor.untyped_storage()
        identity, size = storage._cdata, storage.nbytes()
        if identity in self._live:
            return
        self._live.add(identity)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._free, identity, size)

    def _free(self, identity: int, size: int) -> None:
        self._live.discard(identity)
        self._now -= size

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self.count(leaf)
        return found
