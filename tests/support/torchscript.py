"""Inspection of TorchScript programs."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_PRODUCTS = {"matmul", "mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot"}
"""What matrix products become; CUDA has them for real and complex numbers alone."""
_COPIES = {"_to_copy", "copy_"}


def device_constants(program: Any) -> list[str]:
    """Return the devices that a program hard-codes, on which it computes wherever it is loaded."""
    graph = program.inlined_graph  # kept, because its nodes do not outlive it
    constants = graph.findAllNodes("prim::Constant")
    return [node.s("value") for node in constants if node.output().type().kind() == "DeviceObjType"]


def faults_off_the_cpu(file: Path, side: int) -> list[str]:
    """Run a program with its images and weights on the meta device, and return what a GPU could not do.

    The meta device computes shapes alone; it stands for any device but the CPU.

    Args:
        file: the program.
        side: of its square images in pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.jit.load(str(file))  # type: ignore[no-untyped-call]
    with torch.no_grad(), _OffTheCpu() as walk:
        found = program(torch.empty(3, 3, side, side, device="meta"))
    strays = [f"an output is on {output.device}" for output in found if output.device.type != "meta"]
    return [*walk.faults, *strays]


class _OffTheCpu(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects operators whose tensors are on several devices, and products of integers that are not on the CPU.

    A program's weights are moved where they are used, as ``map_location`` moves them, because torch cannot compare
    weights on the meta device when it prepares a program. Tensors without dimensions are numbers, which may be on the
    CPU in any operator.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.faults: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name == "equal":  # torch looks for weights that are the same before it runs the program
            return func(*args, **(kwargs or {}))
        args, kwargs = tree_map(_moved, (args, dict(kwargs or {})))
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.dim()}
        if len(devices) > 1 and name not in _COPIES:
            self.faults.append(f"{name} of tensors on {' and '.join(sorted(devices))}")
        if name in _PRODUCTS and devices - {"cpu"} and not all(map(_is_real, tensors)):
            self.faults.append(f"{name} of integers")
        return tree_map(_marked, _all_chosen(name, args) if _is_choice(name, args) else func(*args, **kwargs))


def _is_choice(name: str, args: tuple[Any, ...]) -> bool:
    """Whether the shape of a result depends on the content of a mask, which the meta device does not have."""
    return name == "nonzero" or (name == "index" and args[1][0] is not None and args[1][0].dtype == torch.bool)


def _all_chosen(name: str, args: tuple[Any, ...]) -> Tensor:
    """The result for a mask that is true everywhere."""
    if name == "nonzero":
        return torch.ones(args[0].shape).nonzero().to("meta")
    chosen: Tensor = args[0].flatten(0, args[1][0].dim() - 1)
    return chosen


def _marked(found: Any) -> Any:
    """Mark a tensor that the program has made itself."""
    if isinstance(found, Tensor):
        found.made_by_program = True  # type: ignore[attr-defined]
    return found


def _moved(value: Any) -> Any:
    """A weight on the meta device; anything else as it is."""
    is_weight = isinstance(value, Tensor) and value.dim() and not hasattr(value, "made_by_program")
    return value.to("meta") if is_weight else value


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
