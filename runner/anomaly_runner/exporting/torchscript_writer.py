"""Write a model as traced TorchScript that runs on the device of its images."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anomaly_runner.system.full_disk import check_room

_CODE_BYTES = 16 << 20
"""Room for all of a file but its weights: more than the code of any model takes."""


def write_torchscript(model: nn.Module, example: Tensor, folder: Path) -> list[Path]:
    """Trace a model of images (B, 3, H, W) and write model.pt.

    Raises:
        StorageUnavailable: the disk has too little space.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about the tracer's deprecation and traced constants: image sizes are fixed
        traced = torch.jit.trace(model, example, check_trace=False)  # type: ignore[no-untyped-call]
        program = torch.jit.freeze(traced.eval())
    _follow_images(program.graph)
    # torch ends the process where a file does not fit: its destructor goes on writing, and throws.
    check_room(folder, _weights(program.graph) + _CODE_BYTES)
    file = folder / "model.pt"
    program.save(str(file))
    return [file]


def _weights(graph: Any) -> int:
    """Bytes of the weights of a frozen program, which are constants of its graph."""
    constants = (node for node in graph.findAllNodes("prim::Constant") if node.hasAttribute("value"))
    return sum(node.t("value").nbytes for node in constants if node.kindOf("value") == "t")


def _follow_images(graph: Any) -> None:
    """Replace the device of the tracing by the device of the images, wherever the graph names it.

    Loading with ``map_location`` moves only weights, not these constants.
    """
    named = [node for node in graph.findAllNodes("prim::Constant") if node.output().type().kind() == "DeviceObjType"]
    if not named:
        return
    _, images = graph.inputs()  # the first is the module
    device = graph.create("prim::device", [images], 1)
    device.output().setType(torch._C.DeviceObjType.get())
    graph.prependNode(device)
    for node in named:
        node.output().replaceAllUsesWith(device.output())
    torch._C._jit_pass_dce(graph)
