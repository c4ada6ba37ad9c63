"""Every way in which a library says that memory has run out is recognised, and told with what to do about it.

The messages are those of the libraries: the ones of the CPU were seen on one, the ones of the GPU are put together from
the texts in the libraries' binaries and from reports of users.
"""

import errno
from typing import Literal

import pytest

from anomaly_api.status import Stage
from anomaly_runner.system.out_of_memory import (
    describe_out_of_memory,
    describe_out_of_memory_text,
    is_out_of_memory,
    memory_advice,
    tells_out_of_memory,
)


class OutOfMemoryError(RuntimeError):
    """An error with the name of torch's."""


class AcceleratorError(RuntimeError):
    """An error with the name of torch's."""


class RuntimeException(Exception):  # noqa: N818 - onnxruntime's name
    """An error with the name of onnxruntime's."""


class ArrayMemoryError(MemoryError):
    """An error like numpy's."""


GPU, HOST, EITHER = "out of GPU memory", "out of memory", "on a GPU"
TORCH_CUDA = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.25 GiB is free."
    " Including non-PyTorch memory, this process has 77.84 GiB memory in use. Of the allocated memory 70.00 GiB is "
    "allocated by PyTorch, and 1.00 GiB is reserved by PyTorch but unallocated."
)
TORCH_CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4503599627370496 bytes. Error code 12 (Cannot allocate memory)"
)
ARENA = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node. Name:'' Status Message: "
    "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 void* onnxruntime::BFCArena::AllocateRawInternal("
    "size_t, bool, onnxruntime::Stream*) Failed to allocate memory for requested buffer of size 2081488896\n"
)
CUDA_CALL = "[ONNXRuntimeError] : 1 : FAIL : {} ; GPU=0 ; hostname=node ; file=cuda_call.cc ; line=1 ; expr=f(x); "
ERRORS: dict[str, tuple[BaseException, str]] = {
    "python": (MemoryError(), HOST),
    "numpy": (ArrayMemoryError("Unable to allocate 8.00 PiB for an array with shape (1125899906842624,)"), HOST),
    "kernel": (OSError(errno.ENOMEM, "Cannot allocate memory"), HOST),
    "torch on the CPU": (RuntimeError(TORCH_CPU), HOST),
    "torch on the GPU": (OutOfMemoryError(TORCH_CUDA), GPU),
    "torch's limit": (
        OutOfMemoryError(
            "CUDA out of memory. Allocation was preemptively rejected because it would exceed per_process_memory_"
            "fraction limit. Requested size: 2.00 GiB"
        ),
        GPU,
    ),
    "beside torch's allocator": (RuntimeError("CUDA ran out of memory outside PyTorch's allocator. If this"), GPU),
    "CUDA in torch": (
        AcceleratorError(
            "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in https://docs.nvidia.com"
        ),
        GPU,
    ),
    "driver in torch": (RuntimeError("CUDA driver error: out of memory"), GPU),
    "cuBLAS in torch": (
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        GPU,
    ),
    "cuSOLVER in torch": (RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `f(x)`"), GPU),
    "cuFFT in torch": (RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"), GPU),
    "cuDNN in torch": (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), GPU),
    "cuDNN on the host": (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"), HOST),
    "old name in cuDNN": (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), HOST),
    "NCCL": (
        RuntimeError(
            "NCCL error in: NCCLUtils.cpp:100, unhandled cuda error, NCCL version 2.30.7\nncclUnhandledCudaError: Call "
            "to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'"
        ),
        GPU,
    ),
    "NCCL's warning": (RuntimeError("node:7:7 [0] alloc.h:245 NCCL WARN Failed to CUDA malloc 4194304 bytes"), GPU),
    "NCCL's other warning": (RuntimeError("NCCL WARN Failed to CUDA calloc async 4194304 bytes"), GPU),
    "NCCL on the host": (RuntimeError("NCCL WARN Failed to CUDA host alloc 4194304 bytes"), HOST),
    "onnxruntime's arena": (RuntimeException(ARENA), EITHER),
    "a limited arena": (
        RuntimeException("Available memory of 1048576 is smaller than requested bytes of 2097152"),
        EITHER,
    ),
    "C++ in onnxruntime": (RuntimeException("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"), HOST),
    "CUDA in onnxruntime": (RuntimeException(CUDA_CALL.format("CUDA failure 2: out of memory")), GPU),
    "cuBLAS in onnxruntime": (
        RuntimeException(CUDA_CALL.format("CUBLAS failure 3: the resource allocation failed")),
        GPU,
    ),
    "cuDNN in onnxruntime": (
        RuntimeException(CUDA_CALL.format("CUDNN failure 4004: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED")),
        GPU,
    ),
    "OpenVINO": (RuntimeError("Exception from src/inference/src/cpp/core.cpp:112: Could not allocate memory"), HOST),
}


@pytest.mark.parametrize(("error", "told"), ERRORS.values(), ids=ERRORS)
def test_a_lack_of_memory_is_recognised(error: BaseException, told: str) -> None:
    assert is_out_of_memory(error)
    assert told in describe_out_of_memory(error, "")


@pytest.mark.parametrize("error", [error for error, _ in ERRORS.values()], ids=ERRORS)
def test_a_lack_of_memory_is_recognised_in_a_log(error: BaseException) -> None:
    assert tells_out_of_memory(f"INFO: begun\nTraceback (most recent call last):\n{type(error).__name__}: {error}\n")


OTHERS: dict[str, BaseException] = {
    "shapes": RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    "device": RuntimeError("Expected all tensors to be on the same device, but found at least two: cuda:0 and cpu!"),
    "assertion on the GPU": AcceleratorError("CUDA error: device-side assert triggered"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`"),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a "),
    "NCCL": RuntimeError(
        "NCCL error: ncclSystemError: System call (e.g. socket, malloc) or external library call failed"
    ),
    "CUDA in onnxruntime": RuntimeException(CUDA_CALL.format("CUDA failure 700: an illegal memory access")),
    "cuBLAS in onnxruntime": RuntimeException(CUDA_CALL.format("CUBLAS failure 13: the function failed")),
    "disk": OSError(errno.ENOSPC, "No space left on device"),
    "threads": RuntimeError("can't start new thread"),
}


@pytest.mark.parametrize("error", OTHERS.values(), ids=OTHERS)
def test_other_errors_are_not_taken_for_a_lack_of_memory(error: BaseException) -> None:
    assert not is_out_of_memory(error)
    assert not tells_out_of_memory(f"{type(error).__name__}: {error}")


def test_a_word_about_memory_errors_in_the_middle_of_a_line_is_no_end_of_a_traceback() -> None:
    assert not tells_out_of_memory("ImportError: cannot import name MemoryError")
    assert tells_out_of_memory("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8.00 PiB")


def test_errors_that_follow_from_a_lack_of_memory_are_recognised() -> None:
    wrapped, cleanup, other = ValueError("cannot export"), KeyError("a cleanup that fails"), KeyError("another matter")
    wrapped.__cause__ = cleanup.__context__ = other.__context__ = OutOfMemoryError(TORCH_CUDA)
    other.__suppress_context__ = True
    assert is_out_of_memory(wrapped)
    assert is_out_of_memory(cleanup)
    assert not is_out_of_memory(other)
    assert "2.50 GiB were asked for" in describe_out_of_memory(wrapped, "")


def test_a_circle_of_causes_ends() -> None:
    first, second = ValueError(), ValueError()
    first.__cause__, second.__cause__ = second, first
    assert not is_out_of_memory(first)


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        (TORCH_CUDA, "(2.50 GiB were asked for, 1.25 GiB of 79.10 GiB were free)"),
        (TORCH_CPU, "(4.00 PiB were asked for)"),
        (ARENA, "(1.94 GiB were asked for)"),
        ("MemoryError: Unable to allocate 8.00 PiB for an array", "(8.00 PiB were asked for)"),
        ("NCCL WARN Failed to CUDA malloc 4194304 bytes", "(4.00 MiB were asked for)"),
        ("Available memory of 1048576 is smaller than requested bytes of 2097152", "(2.00 MiB were asked for)"),
        ("CUDA out of memory. Tried to allocate 512 bytes", "(512 bytes were asked for)"),
    ],
)
def test_what_was_asked_for_and_what_there_was_is_told(text: str, amounts: str) -> None:
    assert f"memory {amounts}: lower it" in describe_out_of_memory_text(text, "lower it")


def test_the_message_names_what_to_change_and_quotes_the_library() -> None:
    message = describe_out_of_memory(OutOfMemoryError(TORCH_CUDA), "lower training.trainBatchSize")
    assert ": lower training.trainBatchSize, or take a larger GPU (CUDA out of memory. Tried" in message
    on_host = describe_out_of_memory(MemoryError(), "")
    assert on_host == "out of memory: raise scheduling.resources.limits.memory (MemoryError)"


def test_of_a_log_the_line_about_memory_is_quoted() -> None:
    log = f"INFO: begun\ntorch.OutOfMemoryError: {TORCH_CUDA}\nWARNING: process group was not destroyed"
    assert "(torch.OutOfMemoryError: CUDA out of memory. Tried" in describe_out_of_memory_text(log, "")


@pytest.mark.parametrize(
    ("kind", "stage", "field"),
    [
        ("AnomalyExperiment", Stage.TRAIN, "training.trainBatchSize"),
        ("AnomalyExperiment", Stage.TRAIN, "training.batchSizeFinder"),
        ("AnomalyExperiment", Stage.PREDICT, "training.evalBatchSize"),
        ("AnomalyExperiment", Stage.EXPORT, "export.types"),
        ("AnomalyInference", Stage.PREDICT, "batchSize"),
    ],
)
def test_the_advice_goes_by_the_stage(
    kind: Literal["AnomalyExperiment", "AnomalyInference"], stage: Stage, field: str
) -> None:
    assert field in memory_advice(kind, stage)


def test_no_field_is_named_where_none_helps() -> None:
    assert memory_advice("AnomalyExperiment", Stage.EVALUATE) == ""
