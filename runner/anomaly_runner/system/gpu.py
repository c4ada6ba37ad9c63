"""The GPUs that this process sees, asked of NVIDIA's driver by NVML; loads neither torch nor CUDA.

NVML's library (libnvidia-ml.so.1) is part of the driver: the container runtime mounts it into a pod that was given a
GPU. A container on a node without a driver has none.
"""

from dataclasses import dataclass

import pynvml

_NO_LIBRARY = (
    "NVIDIA's driver is not in the container (no libnvidia-ml.so.1): the node needs a driver and NVIDIA's container "
    "toolkit, or the pod scheduling.runtimeClassName"
)
_NO_GPUS = "NVIDIA's driver is in the container, but shows no GPU"


class GpuProblem(Exception):  # noqa: N818 - a state of the machine, not a fault of the program
    """No GPU can be used; ``str()`` says why, for people."""


@dataclass(frozen=True)
class Gpu:
    """A GPU and its driver."""

    name: str
    """As NVML has it, such as NVIDIA H100 80GB HBM3."""
    compute_capability: tuple[int, int]
    """Major and minor number."""
    memory: int
    """Total memory in bytes."""
    driver: str
    """Version of the driver."""
    cuda: tuple[int, int]
    """Newest version of CUDA that the driver serves."""


def list_gpus() -> tuple[Gpu, ...]:
    """List the GPUs that this process sees.

    Raises:
        GpuProblem: there is no driver, it does not answer, or it shows no GPU.
    """
    try:
        pynvml.nvmlInit()
        try:
            gpus = tuple(_describe(index) for index in range(pynvml.nvmlDeviceGetCount()))
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError_LibraryNotFound as error:
        raise GpuProblem(_NO_LIBRARY) from error
    except pynvml.NVMLError as error:
        raise GpuProblem(f"NVIDIA's driver does not answer: {error}") from error
    if not gpus:
        raise GpuProblem(_NO_GPUS)
    return gpus


def _describe(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    version = pynvml.nvmlSystemGetCudaDriverVersion_v2()  # 13020 for CUDA 13.2
    return Gpu(
        name=pynvml.nvmlDeviceGetName(handle),
        compute_capability=tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
        memory=_total_memory(handle),
        driver=pynvml.nvmlSystemGetDriverVersion(),
        cuda=(version // 1000, version % 1000 // 10),
    )


def _total_memory(handle: object) -> int:
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError_NotSupported:  # GPUs that share the host's memory
        return 0


def check_gpus(gpus: tuple[Gpu, ...], *, cuda: tuple[int, int], compute_capability: tuple[int, int]) -> None:
    """Check that libraries built for a version of CUDA run on the GPUs.

    A driver serves every minor version of the newest major version that it knows, and all older ones ("CUDA
    Compatibility", docs.nvidia.com/deploy/cuda-compatibility).

    Args:
        gpus: as listed.
        cuda: version that the libraries were built for.
        compute_capability: the lowest that they were built for.

    Raises:
        GpuProblem: the driver or a GPU is too old; the message says what is needed.
    """
    for gpu in gpus:
        if gpu.cuda[0] < cuda[0]:
            raise GpuProblem(
                f"driver {gpu.driver} serves CUDA {dotted(gpu.cuda)}; this image needs CUDA {cuda[0]}.0: upgrade the "
                "node's driver, or build the image for an older CUDA (see docs/gpu.md)"
            )
        if gpu.compute_capability < compute_capability:
            raise GpuProblem(
                f"{gpu.name} has compute capability {dotted(gpu.compute_capability)}; this image needs "
                f"{dotted(compute_capability)}: choose a newer GPU by scheduling.nodeSelector, or build the image for "
                "older ones (see docs/gpu.md)"
            )


def parse_version(text: str) -> tuple[int, int]:
    """Major and minor number of a version of CUDA as libraries write it: 13.2, or 13.2.1."""
    major, _, minor = text.partition(".")
    return int(major), int(minor.partition(".")[0] or 0)


def dotted(version: tuple[int, int]) -> str:
    """A version as people write it: 13.2."""
    return f"{version[0]}.{version[1]}"
