"""docs/gpu.md says of the wheels what their binaries say."""

import onnxruntime
import torch

from anomaly_runner.scoring.cuda_libraries import provider_library
from support.fatbin import compute_capabilities
from support.gpu_page import wheels_row
from support.optional import not_none


def dotted(capabilities: list[tuple[int, int]]) -> str:
    return ", ".join(f"{major}.{minor}" for major, minor in capabilities)


def test_the_cuda_that_they_were_built_for() -> None:
    assert wheels_row("Built for CUDA") == (torch.version.cuda, onnxruntime.cuda_version)


def test_the_gpus_that_they_have_code_for() -> None:
    flags = not_none(torch._C._cuda_getArchFlags()).split()  # torch.cuda.get_arch_list is empty without a GPU
    assert {flag.partition("_")[0] for flag in flags} == {"sm"}, "there is PTX as well"
    in_torch = [divmod(int(flag.removeprefix("sm_")), 10) for flag in flags]
    in_onnxruntime = compute_capabilities(provider_library())
    assert wheels_row("Has code for compute capability") == (dotted(in_torch), dotted(in_onnxruntime))
