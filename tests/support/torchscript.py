"""Inspection of TorchScript programs."""

from typing import Any


def device_constants(program: Any) -> list[str]:
    """Return the devices that a program hard-codes, on which it computes wherever it is loaded."""
    graph = program.inlined_graph  # kept, because its nodes do not outlive it
    constants = graph.findAllNodes("prim::Constant")
    return [node.s("value") for node in constants if node.output().type().kind() == "DeviceObjType"]
