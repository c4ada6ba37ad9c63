"""How torch uses the CPUs: a few images on each of several threads, each thread on its own.

One CPU works on one small batch from end to end. Compared with torch's own way (all CPUs inside every
operator) this is up to twice as fast on CPU, does not collapse when CPUs are shared with other pods, and
gives the same bits whatever the number of CPUs: nothing is ever summed across threads.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from anomaly_runner.system.machine import cpu_limit, keep_freed_memory
from anomaly_runner.system.parallel import ordered_map

MICRO_BATCH = 8
"""Images that one CPU works on at once: their features stay in its cache."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class TorchThreads:
    """Spreads work over the CPUs, or hands it whole to the GPU.

    Making one sets torch up for the process: one thread an operator on the CPU, exact float32 on a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._threads = cpu_limit() if device.type == "cpu" else 1
        if device.type == "cpu":
            _one_thread()
            keep_freed_memory()
        else:
            _exact_on_gpu()

    @property
    def count(self) -> int:
        """Items worked on at once."""
        return self._threads

    @property
    def provider(self) -> str:
        """What executes models."""
        return f"torch {self.device.type}"

    def batch_size_for(self, batch_size: int) -> int:
        """Images worked on at once: a few a CPU, or what was asked for on a GPU."""
        return min(batch_size, MICRO_BATCH) if self.device.type == "cpu" else batch_size

    def split(self, images: Tensor) -> Sequence[Tensor]:
        """The parts of a batch that are worked on at once, on the device."""
        if self.device.type == "cpu":
            return torch.split(images, MICRO_BATCH)
        return [images.to(self.device, non_blocking=True)]

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in order."""

        if self._threads == 1:
            return self.map_sequentially(function, items)
        return ordered_map(
            _without_gradients(function), items, self._threads, ahead=self._threads + 1, prepare_thread=_one_thread
        )

    def map_sequentially(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in order, one item after the other: for models that cannot be called from several threads."""
        return map(_without_gradients(function), items)


def _without_gradients(function: Callable[[Item], Result]) -> Callable[[Item], Result]:
    def call(item: Item) -> Result:
        with torch.inference_mode():
            return function(item)

    return call


def _one_thread() -> None:
    torch.set_num_threads(1)


def _exact_on_gpu() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def pick_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
