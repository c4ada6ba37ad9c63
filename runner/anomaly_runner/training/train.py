"""Stage train: turns training images into a model that can score.

PaDiM and PatchCore are fitted here, in one pass over the images. The modules that import anomalib are imported only for
one of anomalib's models.
"""

import numpy as np
import torch
from torch import nn

from anomaly_api.status import Stage
from anomaly_runner.errors import OutOfMemory
from anomaly_runner.models.catalog import CATALOG
from anomaly_runner.models.memory_models import MemoryParameters, build_memory_model
from anomaly_runner.system.out_of_memory import describe_out_of_memory, is_out_of_memory
from anomaly_runner.training.inputs import ExperimentInputs
from anomaly_runner.training.memory_check import DEFAULT_BATCH_SIZE, check_memory, free_for_fit
from anomaly_runner.training.profile import counted
from anomaly_runner.training.result import CountedBatches, TrainedModel


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
        if adapted := model.adapt_to_memory(count, free_for_fit(model, spec, count, inputs.threads)):
            inputs.context.record.warn(adapted)
        check_memory(model, spec, count, inputs.threads)
        # seeded again: the fit must not depend on how many random numbers the backbone drew while it was built
        torch.manual_seed(spec.dataset.seed)
        batches = inputs.read(inputs.dataset.train, spec.training.train_batch_size or DEFAULT_BATCH_SIZE, epoch=0)
        images = CountedBatches(batches, inputs.context)
        try:
            with inputs.recorded_steps() as step:
                model.learn(counted(images.images(), step), inputs.threads)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            advice = f"lower training.trainBatchSize; {model.memory_advice(count)}"
            raise OutOfMemory(describe_out_of_memory(error, advice)) from error
        return TrainedModel(model, images.image_count)


def state_arrays(model: nn.Module) -> dict[str, np.ndarray]:
    """The model's ``state_dict`` as numpy arrays, for files that can be read without torch."""
    return {name: tensor.cpu().contiguous().numpy() for name, tensor in model.state_dict().items()}
