"""Whether an error means that memory has run out, what was asked for, and what to change in the manifest.

Libraries have a type of their own for this only in the simplest case. The phrases below are those of the versions in
``constraints.txt``, read in their binaries; a test has a whole message for each. Imports no library.

``CUDNN_STATUS_NOT_SUPPORTED`` is not among them, although it was a sign of too little memory in old versions: it also
tells of shapes and types that cuDNN cannot work on. The caller has to run out of memory in another place first.
"""

import errno
import re
from typing import Literal

from anomaly_api.status import Stage
from anomaly_runner.system.causes import causes

_PHRASES = (
    # torch: the allocators of the GPU and of the CPU, and CUDA's own answer (torch.AcceleratorError)
    "CUDA out of memory",
    "CUDA ran out of memory",
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    # NVIDIA's libraries, as torch and onnxruntime name their status
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUFFT_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    # NCCL: its warnings, and the last error that torch repeats
    "Failed to CUDA malloc",
    "Failed to CUDA calloc",
    "Failed to CUDA host alloc",
    "Cuda failure 2 'out of memory'",
    # onnxruntime: its arena, an arena with a limit, and its calls of CUDA and cuBLAS
    "Failed to allocate memory for requested buffer of size",
    "is smaller than requested bytes of",
    "CUDA failure 2: out of memory",
    "CUBLAS failure 3:",
    # C++, passed on by onnxruntime; OpenVINO; the C library
    "std::bad_alloc",
    "Could not allocate memory",
    "[Errno 12] Cannot allocate memory",
    ": Cannot allocate memory (12)",
)
_LAST_LINE = re.compile(r"^[\w.]*(?:OutOfMemory|Memory)Error\b", re.MULTILINE)
"""The line of a traceback that names ``torch.OutOfMemoryError``, ``MemoryError`` or numpy's ``_ArrayMemoryError``."""
_SIZE = r"(\d[\d.]* (?:bytes|[KMGTPE]i?B))"
_ASKED = (
    re.compile(rf"(?:Tried to allocate|Requested size:|Unable to allocate) {_SIZE}"),
    re.compile(r"(?:tried to allocate|requested buffer of size|requested bytes of|CUDA \w+(?: async)?) (\d+)"),
)
"""How torch, numpy, onnxruntime and NCCL say what was asked for: with a unit, or in bytes."""
_FREE = re.compile(rf"capacity of {_SIZE} of which {_SIZE} is free")
_ON_HOST = re.compile(r"HOST_ALLOC|CUDNN_STATUS_ALLOC_FAILED|CUDA host alloc|CPUAllocator")
"""The host's memory: cuDNN's own, what NCCL shares with the GPU, and torch's."""
_ON_GPU = re.compile(r"CUDA|CUBLAS|CUDNN|CUSOLVER|CUFFT", re.IGNORECASE)
_ON_EITHER = re.compile(r"BFCArena|requested buffer of size|requested bytes of")
"""onnxruntime's arena does not tell on which device it is."""
_QUOTED = 300
"""Characters of the library's own words in a message."""

_ON_TRAINING = (
    "lower training.trainBatchSize or transforms.inputSize, or let training.batchSizeFinder find the batch size"
)
_ON_EXPORT = "lower transforms.inputSize or the size of the model, or ask for fewer export.types"
_OF_EXPERIMENTS = {
    Stage.TRAIN: _ON_TRAINING,
    Stage.PREDICT: "lower training.evalBatchSize or transforms.inputSize",
    Stage.VISUALIZE: "lower training.evalBatchSize or transforms.inputSize",
    Stage.EXPORT: _ON_EXPORT,
    Stage.MEASURE: _ON_EXPORT,
}
_LARGER_POD = "raise scheduling.resources.limits.memory"
_LARGER_GPU = "take a larger GPU"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that led to it, means that the host's or the GPU's memory has run out.

    Errors that led to it count, for a library that cleans up after a failed allocation often fails in doing so.
    """
    return any(_means_out_of_memory(link) for link in causes(error))


def tells_out_of_memory(text: str) -> bool:
    """Whether a text, such as the log of another process, tells that memory has run out."""
    return any(phrase in text for phrase in _PHRASES) or bool(_LAST_LINE.search(text))


def describe_out_of_memory(error: BaseException, advice: str) -> str:
    """The message of a run that ran out of memory: what was asked for, what was free, and what to change.

    Args:
        error: one for which ``is_out_of_memory`` is true.
        advice: what to change in the manifest; empty if only a larger machine helps.
    """
    first = next(link for link in causes(error) if _means_out_of_memory(link))
    return describe_out_of_memory_text(str(first) or type(first).__name__, advice)


def describe_out_of_memory_text(text: str, advice: str) -> str:
    """The same for a library's words, or another process's log, of which the last line that tells of it is quoted."""
    lines = text.splitlines()
    told = next((line.strip() for line in reversed(lines) if tells_out_of_memory(line)), " ".join(lines))
    memory, larger = _which_memory(told)
    remedies = ", or ".join(remedy for remedy in (advice, larger) if remedy)
    return f"out of {memory}{_amounts(told)}: {remedies} ({told[:_QUOTED]})"


def memory_advice(kind: Literal["AnomalyExperiment", "AnomalyInference"], stage: Stage) -> str:
    """What to change in the manifest of a run that has run out of memory in this stage; empty if nothing helps.

    Args:
        kind: of the resource; an inference has the model and its input size from an experiment.
        stage: what the run was doing.
    """
    if kind == "AnomalyInference":
        return "lower batchSize"
    return _OF_EXPERIMENTS.get(stage, "")


def _which_memory(text: str) -> tuple[str, str]:
    """Which memory has run out, and how to get more of it."""
    if _ON_HOST.search(text):
        return "memory", _LARGER_POD
    if _ON_GPU.search(text):
        return "GPU memory", _LARGER_GPU
    if _ON_EITHER.search(text):
        return "memory", f"{_LARGER_POD} (on a GPU: {_LARGER_GPU})"
    return "memory", _LARGER_POD


def _amounts(text: str) -> str:
    """What was asked for and what was free, as far as the library tells; empty if it does not."""
    asked = next((found[1] for pattern in _ASKED if (found := pattern.search(text))), None)
    free = _FREE.search(text)
    told = [f"{_with_unit(asked)} were asked for"] if asked else []
    told += [f"{free[2]} of {free[1]} were free"] if free else []
    return f" ({', '.join(told)})" if told else ""


def _with_unit(size: str) -> str:
    """A number of bytes as libraries write sizes: ``1.50 GiB``."""
    if not size.isdecimal():
        return size
    power = min((int(size).bit_length() - 1) // 10, 5)
    return f"{int(size) / 1024**power:.2f} {('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')[max(power, 0)]}"


def _means_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    return named or any(phrase in str(error) for phrase in _PHRASES)
