"""The device that torch computes on: the GPU if torch can use it, else the CPU, and why."""

from dataclasses import dataclass
from functools import cache

import torch

from anomaly_runner.system.gpu import GpuProblem, check_gpus, list_gpus, parse_version


@dataclass(frozen=True)
class ChosenDevice:
    """A device, and why it is not a GPU."""

    device: torch.device
    problem: str | None
    """Why torch cannot use a GPU; None if it can."""


@cache
def choose_device() -> ChosenDevice:
    """Choose the GPU if it can compute, else the CPU."""
    failure = _try_gpu()
    if failure is None:
        return ChosenDevice(torch.device("cuda"), None)
    return ChosenDevice(torch.device("cpu"), _explain(failure))


def _try_gpu() -> str | None:
    """Compute a number on the GPU; returns torch's message if that fails.

    ``torch.cuda.is_available`` is not enough: it is true for GPUs that this build of torch has no kernels for.
    """
    try:
        torch.ones(1, device="cuda").add_(1).item()
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        return str(error).strip().partition("\n")[0]
    return None


def _explain(failure: str) -> str:
    """What is wrong with driver and GPUs, or else torch's own message."""
    try:
        gpus = list_gpus()
        if torch.version.cuda:
            check_gpus(gpus, cuda=parse_version(torch.version.cuda), compute_capability=_lowest_capability())
    except GpuProblem as problem:
        return str(problem)
    return f"torch cannot use {gpus[0].name}: {failure}"


def _lowest_capability() -> tuple[int, int]:
    """The lowest compute capability that this build of torch has kernels for."""
    flags = torch._C._cuda_getArchFlags() or ""  # torch.cuda.get_arch_list is empty without a GPU
    numbers = [int(flag.removeprefix("sm_")) for flag in flags.split() if flag.removeprefix("sm_").isdigit()]
    return divmod(min(numbers, default=0), 10)
