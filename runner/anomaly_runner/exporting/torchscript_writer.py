"""A model traced to TorchScript, for whichever device its images are on."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def write_torchscript(model: nn.Module, example: Tensor, folder: Path) -> list[Path]:
    """Trace a model of images (B, 3, H, W) and write model.pt."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # its own deprecation, and its notes on traced constants: shapes are fixed here
        traced = torch.jit.trace(model, example, check_trace=False)  # type: ignore[no-untyped-call]
        program = torch.jit.freeze(traced.eval())
    _follow_images(program.graph)
    file = folder / "model.pt"
    program.save(str(file))
    return [file]


def _follow_images(graph: Any) -> None:
    """Replace the device on which the model was traced, wherever the graph names it, by that of the images.

    Loading with ``map_location`` moves weights alone.
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
