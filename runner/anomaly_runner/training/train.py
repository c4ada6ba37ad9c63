"""Stage train: turns training images into a model that can score.

PaDiM and PatchCore are fitted here, in one pass over the images. The modules that import anomalib are imported only for
one of anomalib's models.
"""

import numpy as np
import torch
from torch import nn

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.status import Stage
from anomaly_runner.errors import InvalidConfig, OutOfMemory
from anomaly_runner.models.base import MemoryModel
from anomaly_runner.models.catalog import CATALOG
from anomaly_runner.models.memory_models import MemoryParameters, build_memory_model
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.system.machine import available_memory, gigabytes
from anomaly_runner.training.inputs import ExperimentInputs
from anomaly_runner.training.result import CountedBatches, TrainedModel

_MEMORY_HEADROOM = 400 << 20
"""Bytes for the features of the batches in flight and the libraries' own buffers."""
_ONNX_COPIES = 3
"""Copies of the weights while an ONNX file is written and compared: graph, bytes, session."""
_ONNX_LIMIT = 2_000_000_000
"""Bytes: a protobuf message, and so an ONNX file, holds at most 2 GB."""
_DEFAULT_BATCH_SIZE = 32


def train(inputs: ExperimentInputs) -> TrainedModel:
    """Train the experiment's model on its training images.

    Raises:
        DataInvalid: fewer than two training images are readable.
        InvalidConfig: the model, the machine or the images cannot do what was asked for.
        WeightsNotFound: pre-trained weights could not be loaded.
        OutOfMemory: the model does not fit into memory.
        Diverged: the loss, or a score, became NaN or infinite.
        Stopped: the run was asked to stop.
    """
    model = inputs.spec.model
    # models that are implemented in this project do not import anomalib, which takes seconds
    if isinstance(model.parameters, MemoryParameters):
        return _fit_memory_model(inputs, model.parameters)
    from anomaly_runner.training import with_anomalib

    if CATALOG[model.name].by_gradient:
        return with_anomalib.train_by_gradient(inputs)
    return with_anomalib.fit_in_one_pass(inputs)


def _fit_memory_model(inputs: ExperimentInputs, parameters: MemoryParameters) -> TrainedModel:
    """Fit PaDiM or PatchCore on the images in the order of their paths."""
    spec, count = inputs.spec, len(inputs.dataset.train)
    size = (spec.transforms.input_size.height, spec.transforms.input_size.width)
    with inputs.context.stage(Stage.TRAIN, count):
        torch.manual_seed(spec.dataset.seed)
        model = build_memory_model(
            parameters,
            size,
            inputs.threads,
            spec.model.tiling,
            seed=spec.dataset.seed,
            check=lambda _: inputs.context.stop.check(),
        )
        model.to(inputs.threads.device).eval()
        check_memory(model, spec, count, inputs.threads)
        # seeded again: the fit must not depend on how many random numbers the backbone drew while it was built
        torch.manual_seed(spec.dataset.seed)
        batches = inputs.read(inputs.dataset.train, spec.training.train_batch_size or _DEFAULT_BATCH_SIZE, epoch=0)
        counted = CountedBatches(batches, inputs.context)
        model.learn(counted.images(), inputs.threads)
        return TrainedModel(model, counted.image_count)


def check_memory(model: MemoryModel, spec: ExperimentSpec, images: int, threads: TorchThreads) -> None:
    """Check that the model will fit into memory, before any image is read.

    Args:
        images: number of training images.

    Raises:
        OutOfMemory: the estimate is larger than the free memory.
        InvalidConfig: the ONNX file would be larger than the format allows.
    """
    estimate, exports = model.memory_estimate(images), "onnx" in spec.export.types
    if exports and estimate.fitted > _ONNX_LIMIT:
        raise InvalidConfig(
            f"an ONNX file of this model would take {gigabytes(estimate.fitted)}; the limit is 2 GB: "
            f"lower {model.size_parameter} or transforms.inputSize, or set export.types: []"
        )
    host, smaller = estimate.fitted * _ONNX_COPIES * exports + _MEMORY_HEADROOM, model.memory_advice(images)
    # the model is fitted where its device is; its exports are written in the host's memory in any case
    if threads.device.type == "cuda":
        _check_free(estimate.peak, torch.cuda.mem_get_info()[0], "GPU memory", f"{smaller}, or a larger GPU")
    else:
        host += estimate.peak
    _check_free(host, available_memory(), "memory", f"{smaller}, or raise scheduling.resources.limits.memory")


def _check_free(needed: int, free: int, what: str, advice: str) -> None:
    if needed > free:
        raise OutOfMemory(f"the model needs about {gigabytes(needed)} of {what}, {gigabytes(free)} are free: {advice}")


def state_arrays(model: nn.Module) -> dict[str, np.ndarray]:
    """The model's ``state_dict`` as numpy arrays, for files that can be read without torch."""
    return {name: tensor.cpu().contiguous().numpy() for name, tensor in model.state_dict().items()}
