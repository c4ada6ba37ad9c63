"""Run torch on several CPUs: each thread runs the whole forward pass of its own small batch.

Compared with torch's default (all CPUs inside every operator) this is up to twice as fast, does not slow down
drastically when CPUs are shared with other pods, and gives bitwise the same results on any number of CPUs, because
nothing is summed across threads.

TF32 is switched by ``torch.set_float32_matmul_precision`` and ``torch.backends.cudnn.allow_tf32``, and by nothing else:
torch refuses to read settings that were also made by the newer ``fp32_precision``, and Lightning reads the first.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from anomaly_runner.system.machine import cpu_limit, keep_freed_memory
from anomaly_runner.system.parallel import ordered_map

MICRO_BATCH = 8
"""Images in a batch on one CPU: so few that their features stay in the CPU's cache."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class TorchThreads:
    """Spreads work over the CPUs, or runs it on the GPU without splitting it.

    Creating an instance configures torch for this process. On the CPU: one thread per operator. On a GPU: as many
    threads for what is left to the CPU as the pod has CPUs, and the same results each time.

    Args:
        device: the CPU or a GPU.
        tf32: whether a GPU may round the factors of float32 products to TF32 (10 bits of mantissa); false is exact.
        cpus: number of threads on the CPU; None for one on each CPU that this process may use.
    """

    def __init__(self, device: torch.device, *, tf32: bool = False, cpus: int | None = None) -> None:
        self.device = device
        self._threads = (cpus or cpu_limit()) if device.type == "cpu" else 1
        if device.type == "cpu":
            _one_thread()
            keep_freed_memory()
        else:
            _configure_gpu(tf32)

    @property
    def count(self) -> int:
        """Number of threads: items that are worked on at the same time."""
        return self._threads

    @property
    def provider(self) -> str:
        """What executes models."""
        return f"torch {self.device.type}"

    def batch_size_for(self, batch_size: int) -> int:
        """Images in a batch: a few on a CPU, the configured ``batch_size`` on a GPU."""
        return min(batch_size, MICRO_BATCH) if self.device.type == "cpu" else batch_size

    def split(self, images: Tensor) -> Sequence[Tensor]:
        """Split a batch (B, 3, H, W) into parts for the threads; on a GPU, move it there in one part."""
        if self.device.type == "cpu":
            return torch.split(images, MICRO_BATCH)
        return [self.to_device(images)]

    def to_device(self, images: Tensor) -> Tensor:
        """Move images of any shape to the device; on a GPU without waiting for what it has to do before.

        The copy is made from pinned memory, and on a stream of its own beside the computations, which wait for it.
        torch's allocators give the memory at both ends to later copies only when this one is done with it.
        """
        if self.device.type != "cuda":
            return images.to(self.device)
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._copies):
            moved = images.pin_memory().to(self.device, non_blocking=True)
        computing.wait_stream(self._copies)
        moved.record_stream(computing)
        return moved

    @cached_property
    def _copies(self) -> torch.cuda.Stream:
        """The stream of copies to the GPU."""
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the results of all items in order, computed by several threads and without gradients."""

        if self._threads == 1:
            return self.map_sequentially(function, items)
        return ordered_map(
            without_gradients(function), items, self._threads, ahead=self._threads + 1, prepare_thread=_one_thread
        )

    def map_sequentially(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the results one after the other, for models that several threads cannot call at the same time."""
        return map(without_gradients(function), items)


def without_gradients(function: Callable[[Item], Result]) -> Callable[[Item], Result]:
    """The function, called without the bookkeeping that gradients need."""

    def call(item: Item) -> Result:
        with torch.inference_mode():
            return function(item)

    return call


def _one_thread() -> None:
    torch.set_num_threads(1)


def _configure_gpu(tf32: bool) -> None:
    # read once, at the first product on a GPU; without it torch refuses products where algorithms must be deterministic
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # OpenMP counts the node's CPUs, not the pod's quota, and more threads than the quota are throttled
    torch.set_num_threads(cpu_limit())
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    _allow_tf32(tf32)


def _allow_tf32(allowed: bool) -> None:
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def gpu_arithmetic(*, tf32: bool, deterministic: bool) -> Iterator[None]:
    """Let GPUs compute as a training asks inside the block, and as before after it.

    Args:
        tf32: as for ``TorchThreads``.
        deterministic: whether cuDNN may take only algorithms that give the same result each time.
    """
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    _allow_tf32(tf32)
    torch.backends.cudnn.deterministic = deterministic
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = before[1:]
