"""What the machine is and holds, as JSON: ``python -m hack.gpu.machine``.

Run in a process of its own, because asking CUDA takes a part of the GPU's memory as long as the process lives.
"""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("torch", "torchvision", "timm", "lightning", "anomalib", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy")


def describe() -> dict[str, str]:
    """Return names and values: GPU, driver, CPUs, and the versions of Python and of the libraries."""
    import torch

    found = {"GPU": "none that torch can use", "CPUs": str(os.cpu_count()), "Python": platform.python_version()}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found["GPU"] = f"{torch.cuda.device_count()} x {properties.name}, {properties.total_memory / 1e9:.0f} GB"
        found["compute capability"] = f"{properties.major}.{properties.minor}"
    found |= _driver()
    found["CUDA of torch"] = str(torch.version.cuda)
    return found | _versions()


def _driver() -> dict[str, str]:
    """Return the driver's version by NVML; nothing where NVML or the driver is absent."""
    try:
        import pynvml
    except ImportError:
        return {}
    try:
        pynvml.nvmlInit()
        return {"driver": str(pynvml.nvmlSystemGetDriverVersion())}
    except pynvml.NVMLError:
        return {}


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    print(json.dumps(describe()))
