"""Run a frozen network in onnxruntime on the CPU.

The forward pass of the backbone takes most of the time of a memory-bank model. onnxruntime runs the same float32
network 5 times as fast as torch if it has depthwise convolutions (EfficientNet), and 1.2 times as fast otherwise
(ResNet), with features that differ by 1e-6 of the largest. The reference scores that exports are compared with are
torch's own: see ``torch_only``.
"""

import copy
import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import is_tracing  # type: ignore[attr-defined]
from torch.onnx.errors import OnnxExporterError

from anomaly_runner.system.out_of_memory import is_out_of_memory

logger = logging.getLogger(__name__)

OPSET = 18
_INPUT = "images"
_torch_only: ContextVar[bool] = ContextVar("torch_only", default=False)


@contextmanager
def torch_only() -> Iterator[None]:
    """Run networks in torch inside this block, for this thread."""
    token = _torch_only.set(True)
    try:
        yield
    finally:
        _torch_only.reset(token)


def is_exporting() -> bool:
    """Whether this thread is tracing or exporting a graph, into which loops over images or patches would be unrolled.

    ``torch.onnx.is_in_onnx_export`` is not asked: it answers for the whole process, so that a thread which scores while
    another one compiles its network would compute in another way, and the last digits would depend on the time. The
    tracing exporter runs networks only while it traces, and the other one only while it compiles.
    """
    traced: bool = is_tracing()  # type: ignore[no-untyped-call]
    return traced or torch.compiler.is_compiling()


def can_run_compiled(images: Tensor) -> bool:
    """Whether a compiled network can take these images: float32, on the CPU, without gradients, not while exporting."""
    plain = images.device.type == "cpu" and images.dtype == torch.float32 and not torch.is_grad_enabled()
    return plain and not is_exporting() and not _torch_only.get()


class CompiledNetwork:
    """A network that is compiled for each input size on first use.

    Safe to call from many threads: each call runs on its caller's thread.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._sessions: dict[tuple[int, ...], Any] = {}
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> "CompiledNetwork":
        return CompiledNetwork(copy.deepcopy(self._network, memo))

    def __call__(self, images: Tensor) -> list[Tensor] | None:
        """Features of images (B, 3, H, W), float32; None where onnxruntime cannot run the network."""
        session = self._session(tuple(images.shape[-2:]))
        if session is None:
            return None
        return [torch.from_numpy(feature) for feature in session.run(None, {_INPUT: images.contiguous().numpy()})]

    def _session(self, size: tuple[int, ...]) -> Any:
        with self._lock:
            if size not in self._sessions:
                self._sessions[size] = _compile(self._network, size)
            return self._sessions[size]


def _compile(network: nn.Module, size: tuple[int, ...]) -> Any:
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as Unsupported

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # each of our threads runs a whole forward pass
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(_graph(network, size), options, providers=["CPUExecutionProvider"])
    except (OnnxExporterError, RuntimeError, Fail, InvalidGraph, Unsupported) as error:
        if is_out_of_memory(error):
            raise
        logger.info("the backbone runs in torch: onnxruntime cannot compile it (%s)", str(error).partition("\n")[0])
        return None


def _graph(network: nn.Module, size: tuple[int, ...]) -> bytes:
    """The network as ONNX bytes, for images (B, 3, *size) with any B."""
    example, buffer = torch.zeros(2, 3, *size), io.BytesIO()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own deprecation, and traced constants: shapes are fixed
        features = len(network(example))
        names = [f"feature{index}" for index in range(features)]
        axes = {name: {0: "batch"} for name in (_INPUT, *names)}
        torch.onnx.export(
            network,
            (example,),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=[_INPUT],
            output_names=names,
            dynamic_axes=axes,
        )
    return buffer.getvalue()
