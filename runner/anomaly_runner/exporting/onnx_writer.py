"""Write a model as an ONNX graph for onnxruntime that takes any batch size.

The graph is written by torch's tracing exporter: it supports the plain tensor programs that most models are, and takes
1 s where torch.export takes 5 s. torch.export is the fallback for models that cannot be traced.
"""

import contextlib
import io
import logging
import math
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.onnx.errors import OnnxExporterError

from anomaly_api.artifacts import INPUT, MAPS, SCORES

logger = logging.getLogger(__name__)

OPSET = 18
_FUSED_LAYER_NORM_LIMIT = 1 << 14
"""Largest number of values of a layer normalisation that is exported as onnxruntime's fused operator.

The operator loses digits in larger ones, which are exported as arithmetic."""


def write_onnx(model: nn.Module, example: Tensor, folder: Path) -> list[Path]:
    """Write model.onnx, and model.onnx.data where weights do not fit into a protocol buffer (2 GB).

    Args:
        model: takes images (B, 3, H, W), and returns scores, and maps if it localises.
        example: two images of the input's size, on the model's device; the graph takes any other number of images too.
        folder: target of the files.

    Raises:
        OnnxExporterError: neither exporter can write the model.
    """
    plain = _layer_norm_as_arithmetic(model)
    with tempfile.TemporaryDirectory(dir=folder) as temporary, _quiet(), torch.no_grad(), plain:
        file = Path(temporary, "model.onnx")
        names = [SCORES, MAPS][: len(model(example))]
        try:
            _trace(model, example, file, names)
        except OnnxExporterError as error:
            why = str(error).partition("\n")[0]  # the rest is the whole graph
            logger.info("the tracing exporter cannot write this model (%s); using torch.export", why)
            _torch_export(model, example, file, names)
        return merge_external_data(file, folder)


def merge_external_data(file: Path, folder: Path) -> list[Path]:
    """Move an ONNX file into a folder, and merge its external data (one file a tensor) into one file beside it.

    Args:
        file: the graph, alone in its folder except for its external data.

    Returns:
        The graph, and the file of external data if there is any.
    """
    import onnx

    target = folder / file.name
    if len(list(file.parent.iterdir())) == 1:
        return [file.replace(target)]
    weights = target.with_name(f"{target.name}.data")
    onnx.save_model(onnx.load(file), target, save_as_external_data=True, location=weights.name)
    return [target, weights]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporters' deprecation warnings, and those about traced constants: image sizes are fixed here."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _layer_norm_as_arithmetic(model: nn.Module) -> Iterator[None]:
    """Replace layer normalisations over whole feature maps by plain arithmetic inside this block, for the graph."""
    wide = [
        part
        for part in model.modules()
        if isinstance(part, nn.LayerNorm) and math.prod(part.normalized_shape) > _FUSED_LAYER_NORM_LIMIT
    ]
    for part in wide:
        part.forward = partial(_layer_norm, part)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for part in wide:
            del part.forward


def _layer_norm(norm: nn.LayerNorm, values: Tensor) -> Tensor:
    """Layer normalisation in float32, by a reciprocal: a division would be recognised and fused into the operator."""
    centred = values.float() - _mean(values.float(), norm)
    scaled = (centred * torch.rsqrt(_mean(centred.square(), norm) + norm.eps)).to(values.dtype)
    weighed = scaled if norm.weight is None else scaled * norm.weight
    return weighed if norm.bias is None else weighed + norm.bias


def _mean(values: Tensor, norm: nn.LayerNorm) -> Tensor:
    """The mean over the normalised axes, one axis at a time: onnxruntime loses digits in long sums."""
    for axis in range(1, len(norm.normalized_shape) + 1):
        values = values.mean(-axis, keepdim=True)
    return values


def _trace(model: nn.Module, example: Tensor, file: Path, names: list[str]) -> None:
    axes = {name: {0: "batch"} for name in (INPUT, *names)}
    torch.onnx.export(
        model,
        (example,),
        str(file),
        dynamo=False,
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=names,
        dynamic_axes=axes,
    )


def _torch_export(model: nn.Module, example: Tensor, file: Path, names: list[str]) -> None:
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        model,
        (example,),
        str(file),
        dynamo=True,
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=names,
        dynamic_shapes=({0: batch},),
        external_data=False,
        verbose=False,
    )
