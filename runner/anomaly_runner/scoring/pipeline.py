"""Keep a GPU busy: the next batch is sent before the results of the last one are fetched.

While the GPU works on a batch, the CPU decodes the next one and evaluates the scores of the one before. torch queues
work for a GPU and returns; what makes it wait is reading a result, and copies from or to memory that can be paged out.
So images go through pinned memory (``TorchThreads.to_device``), and results come back into pinned memory.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Sent = TypeVar("Sent")
Result = TypeVar("Result")


def one_batch_late(
    items: Iterable[Item], send: Callable[[Item], Sent], fetch: Callable[[Sent], Result]
) -> Iterator[Result]:
    """Yield the results of all items in order, each of them fetched once the next item has been sent.

    All calls are made on the caller's thread. At most two items are sent and not fetched. An exception of ``items``,
    ``send`` or ``fetch`` is raised at once; results that are then on their way are dropped.

    Args:
        items: iterated over as results are consumed.
        send: starts the work on an item, and returns without waiting for it.
        fetch: waits for the result.
    """
    sent: list[Sent] = []
    for item in items:
        sent.append(send(item))
        if len(sent) > 1:
            yield fetch(sent.pop(0))
    for last in sent:
        yield fetch(last)


@dataclass(frozen=True)
class OnTheWay:
    """A tensor on its way from a GPU to pinned memory.

    Every tensor has memory of its own. torch gives that memory to a later one only when neither a tensor nor an array
    refers to it any more: results may be kept, and are never overwritten.
    """

    here: Tensor
    arrived: torch.cuda.Event

    @classmethod
    def from_gpu(cls, tensor: Tensor) -> "OnTheWay":
        """Start the copy of a tensor of any shape; it follows what the tensor's GPU has to do before."""
        here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        here.copy_(tensor, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record(torch.cuda.current_stream(tensor.device))
        return cls(here, arrived)

    def fetch(self) -> Tensor:
        """Wait until the tensor is complete, and return it."""
        self.arrived.synchronize()
        return self.here
