"""Stage train: a model that has seen every training image once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.parameters import PadimParameters
from anomaly_runner.batches import Batch
from anomaly_runner.context import Context
from anomaly_runner.errors import DataInvalid, InvalidConfig, OutOfMemory
from anomaly_runner.machine import available_memory, gigabytes
from anomaly_runner.models.backbone import BackboneChoice
from anomaly_runner.models.base import MemoryModel
from anomaly_runner.models.padim import Padim, padim_bytes
from anomaly_runner.models.patchcore import Patchcore, patchcore_bytes
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.stop import StopSignal

_MEMORY_ROOM = 400 << 20
"""Bytes for features of the batches in flight and the libraries' own buffers."""
_ONNX_COPIES = 3
"""Copies of the weights while an ONNX file is written and compared: graph, bytes, session."""
_ONNX_LIMIT = 2_000_000_000
"""A protobuf message, and so an ONNX file, holds at most 2 GB."""


@dataclass(frozen=True)
class Trained:
    """A fitted model and how many images it learnt from."""

    model: MemoryModel
    images: int


def build_model(spec: ExperimentSpec, choice: BackboneChoice, threads: TorchThreads, stop: StopSignal) -> MemoryModel:
    """The experiment's model, with its frozen weights, not yet fitted.

    Raises:
        InvalidConfig: parameters that the backbone cannot meet, or an export that cannot hold the model.
        WeightsNotFound: the backbone's weights could not be loaded.
    """
    size = (spec.transforms.input_size.height, spec.transforms.input_size.width)
    parameters = spec.model.parameters
    if isinstance(parameters, PadimParameters):
        model: MemoryModel = Padim(choice, parameters, size, threads)
    else:
        model = Patchcore(choice, parameters, size, spec.dataset.seed, lambda _: stop.check())
    return model.to(threads.device).eval()


def check_memory(model: MemoryModel, spec: ExperimentSpec, images: int, threads: TorchThreads) -> None:
    """Refuse a model that cannot fit before any image is looked at.

    Raises:
        OutOfMemory: names the estimate and what there is.
        InvalidConfig: the ONNX file would be larger than the format allows.
    """
    fitted, peak = _estimate(model, spec, images)
    exports = "onnx" in spec.export.types
    if exports and fitted > _ONNX_LIMIT:
        raise InvalidConfig(f"an ONNX file of this model would take {gigabytes(fitted)}; the limit is 2 GB: "
                            "lower nFeatures, coresetSamplingRatio or inputSize, or set export.types: []")  # fmt: skip
    host = fitted * _ONNX_COPIES * exports + _MEMORY_ROOM
    if threads.device.type == "cuda":
        _compare(peak, torch.cuda.mem_get_info()[0], "GPU memory")
    else:
        host += peak
    _compare(host, available_memory(), "memory")


def _compare(needed: int, free: int, what: str) -> None:
    if needed > free:
        raise OutOfMemory(f"the model needs about {gigabytes(needed)} of {what}, {gigabytes(free)} are free: lower "
                          "nFeatures, coresetSamplingRatio or inputSize, or raise resources.limits.memory")  # fmt: skip


def _estimate(model: MemoryModel, spec: ExperimentSpec, images: int) -> tuple[int, int]:
    """Bytes of the fitted model, and at the peak of fitting it."""
    if isinstance(model, Padim):
        fitted = padim_bytes(model.mean.shape[0], model.mean.shape[2])
        return fitted, fitted
    assert isinstance(model, Patchcore)
    ratio = model.ratio
    patches, channels = model.patches[0] * model.patches[1], sum(model.backbone.channels)
    return int(images * patches * ratio) * channels * 4, patchcore_bytes(images, patches, channels, ratio)


def train(model: MemoryModel, batches: Iterable[Batch], seed: int, threads: TorchThreads, context: Context) -> Trained:
    """Fit the model to the training images, in the order of their paths.

    Raises:
        DataInvalid: fewer than two readable training images.
    """
    torch.manual_seed(seed)
    seen = 0

    def steps() -> Iterator[Tensor]:
        nonlocal seen
        for batch in batches:
            yield torch.from_numpy(batch.images)
            seen += len(batch.samples)
            context.step(len(batch.samples))
        if seen < 2:
            raise DataInvalid(f"only {seen} of the training images can be read; at least two are needed")

    model.learn(steps(), threads)
    return Trained(model, seen)


def checkpoint(model: MemoryModel) -> dict[str, np.ndarray]:
    """The model's state by name, as numpy arrays."""
    return {name: tensor.cpu().contiguous().numpy() for name, tensor in model.state_dict().items()}
