"""What a GPU did while something ran: the share of time in which it worked, and the largest memory."""

import gc
import threading
import time
from types import TracebackType
from typing import Any, Self

import torch

_INTERVAL_SECONDS = 0.05


class Usage:
    """Samples the utilisation of the first GPU by NVML while the block runs; measures nothing on a CPU.

    NVML's figure is the share of its last sampling period, a sixth of a second to a second, in which a kernel ran: it
    says nothing of phases that are shorter, and a kernel that keeps a small part of the GPU busy counts in full.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._samples: list[tuple[float, int]] = []
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._device.type == "cuda":
            gc.collect()
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            if (handle := _handle()) is not None:
                self._thread = threading.Thread(target=self._sample, args=(handle,), daemon=True)
                self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread:
            self._thread.join()

    def _sample(self, handle: Any) -> None:
        import pynvml

        while not self._done.wait(_INTERVAL_SECONDS):
            try:
                percent = int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
            except pynvml.NVMLError:  # a slice of a GPU has no figure of its own
                return
            self._samples.append((time.perf_counter(), percent))

    def busy(self, began: float, ended: float) -> float | None:
        """Mean utilisation between two times of ``perf_counter``, in percent; None where nothing was sampled."""
        found = [percent for at, percent in self._samples if began <= at <= ended]
        return sum(found) / len(found) if found else None

    @property
    def peak_megabytes(self) -> float | None:
        """Largest memory that torch's tensors took on the GPU; None on a CPU."""
        return torch.cuda.max_memory_allocated() / 1e6 if self._device.type == "cuda" else None


def _handle() -> Any:
    """NVML's handle of torch's first GPU, which CUDA_VISIBLE_DEVICES may have chosen; None where NVML lacks it."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
    except pynvml.NVMLError:
        return None
