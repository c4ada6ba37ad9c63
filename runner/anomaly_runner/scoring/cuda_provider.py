"""onnxruntime's CUDA provider: its options, and why it cannot be used."""

from anomaly_runner.scoring.cuda_libraries import driver_problem, missing_libraries, preload_cuda
from anomaly_runner.system.gpu import GpuProblem, check_gpus, list_gpus, parse_version

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"


def provider_options(*, tf32: bool) -> dict[str, str]:
    """Options of the CUDA provider (onnxruntime.ai, "CUDA Execution Provider", configuration options).

    - ``device_id``: 0, the first of the GPUs that the pod was given; an inference uses one.
    - ``use_tf32``: off unless asked for. onnxruntime's default is on, while torch is run without TF32: its 10 bits of
      mantissa would move scores away from those of the training, whose thresholds decide.
    - ``cudnn_conv_algo_search``: cuDNN's heuristics choose the algorithm of a convolution. The default, EXHAUSTIVE,
      searches anew for every shape of a batch, and a run has two of them at least: its last batch is smaller.
    - ``arena_extend_strategy``: memory grows by what is asked for. The default takes the next power of two, which can
      be twice what the model needs, on a GPU that may be shared.

    Args:
        tf32: let matrix multiplications and convolutions round their input to TensorFloat-32.
    """
    return {
        "device_id": "0",
        "use_tf32": "1" if tf32 else "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
    }


def onnx_gpu_problem() -> str | None:
    """Why onnxruntime cannot use a GPU, as far as that is known without a model; None if nothing is in the way.

    Where there is a GPU, the libraries that CUDA needs are loaded.
    """
    if problem := driver_problem():
        return problem
    import onnxruntime

    if CUDA not in onnxruntime.get_available_providers():
        return f"this onnxruntime has no {CUDA}: it is the package onnxruntime, not onnxruntime-gpu"
    if problem := _too_old(onnxruntime.cuda_version):
        return problem
    preload_cuda()
    if missing := missing_libraries():
        return f"libraries of CUDA are missing: {'; '.join(missing.values())}"
    return None


def _too_old(built_for: str) -> str | None:
    """What is too old for libraries of this version of CUDA; None if nothing is, or NVML cannot tell.

    Of compute capability nothing is asked: whether the provider has code for a GPU shows when a model runs there.
    """
    try:
        gpus = list_gpus()
    except GpuProblem:  # CUDA's driver has shown a GPU; a container may lack NVML all the same
        return None
    try:
        check_gpus(gpus, cuda=parse_version(built_for), compute_capability=(0, 0))
    except GpuProblem as problem:
        return str(problem)
    return None
