"""Keep a model in the host's memory while its exports are written and compared.

On a GPU, constants that an exporter folds and tensors that a model makes may end on two devices, a copy in half
precision would double what the model takes, and the runtimes that load the exports need its memory. A model gives the
same graph wherever it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_CPU = torch.device("cpu")
_REGISTERED = ("_parameters", "_buffers", "_modules")


@contextmanager
def on_cpu(model: nn.Module) -> Iterator[None]:
    """Move a model to the CPU inside this block, and back to its device afterwards.

    What torch keeps of the GPU's memory for later is given back, so that other libraries can have it.
    """
    device = _device(model)
    if device == _CPU:
        yield
        return
    plain = [(holder, key, holder[key].device) for holder, key in _plain_tensors(model)]
    model.to(_CPU)
    for holder, key, _ in plain:
        holder[key] = holder[key].to(_CPU)
    torch.cuda.empty_cache()
    try:
        yield
    finally:
        torch.cuda.empty_cache()
        model.to(device)
        for holder, key, before in plain:
            holder[key] = holder[key].to(before)


def _device(model: nn.Module) -> torch.device:
    """Where a model's tensors are; the CPU if it has none."""
    return next((tensor.device for tensor in (*model.buffers(), *model.parameters())), _CPU)


def _plain_tensors(model: nn.Module) -> Iterator[tuple[Any, Any]]:
    """Places of the tensors that parts of a model hold as plain attributes, which ``Module.to`` skips.

    Yields:
        The attributes, list or mapping that holds the tensor, and its name, index or key there.
    """
    for part in model.modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, Tensor):
                yield vars(part), name
            elif name not in _REGISTERED:
                yield from _inside(value)


def _inside(value: Any) -> Iterator[tuple[Any, Any]]:
    """Places of the tensors in lists and mappings. They are changed in place, because hooks hold some of them too."""
    if not isinstance(value, list | dict):
        return
    for key, one in list(value.items() if isinstance(value, dict) else enumerate(value)):
        if isinstance(one, Tensor):
            yield value, key
        else:
            yield from _inside(one)
