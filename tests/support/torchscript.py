"""What TorchScript programs are made of."""

from typing import Any


def device_constants(program: Any) -> list[str]:
    """Devices that a program names, and so computes on whatever is asked for."""
    graph = program.inlined_graph  # which its nodes do not outlive
    constants = graph.findAllNodes("prim::Constant")
    return [node.s("value") for node in constants if node.output().type().kind() == "DeviceObjType"]
