"""Load a trained torch model from its checkpoint: build it from its definition, then load its state from safetensors.

No pickle and no code is loaded, and nothing is downloaded: the state holds all weights, including the backbone's.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anomaly_api.model import Model
from anomaly_api.parameters import WinclipParameters
from anomaly_api.run import ModelManifest
from anomaly_runner.errors import ModelInvalid
from anomaly_runner.models.base import ScoringModel
from anomaly_runner.models.device import choose_device
from anomaly_runner.models.memory_models import MemoryParameters, build_memory_model
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.scoring.torch_predictor import TorchPredictor
from anomaly_runner.system.out_of_memory import is_out_of_memory


def load_torch(manifest: ModelManifest, file: Path, batch_size: int, *, tf32: bool = False) -> TorchPredictor:
    """Load the model of an experiment, ready to score.

    Args:
        manifest: model.json.
        file: the model's state (safetensors).
        batch_size: largest number of images in a batch.
        tf32: as in ``TorchThreads``.

    Raises:
        ModelInvalid: the manifest holds no definition, or the state does not belong to the definition.
    """
    if manifest.definition is None:
        raise ModelInvalid("model.json does not say how the model is built: train it again with this version")
    threads = TorchThreads(choose_device().device, tf32=tf32)
    model = load_checkpoint(manifest.definition, (manifest.input_height, manifest.input_width), file, threads)
    return TorchPredictor(model.to(threads.device).eval(), threads, batch_size)


def load_checkpoint(definition: Model, size: tuple[int, int], file: Path, threads: TorchThreads) -> ScoringModel:
    """Build a model from its definition and load its state from a safetensors file.

    Args:
        definition: the model and its parameters.
        size: rows and columns of its input.
        file: the state.
        threads: device and threads of the model.

    Raises:
        ModelInvalid: the state does not belong to the definition.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    model = _build_model(definition, size, threads)
    try:
        state = load_file(file)
        _resize_buffers(model, state)
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelInvalid(f"{file.name} is not a state of this {definition.name}: {str(error)[:300]}") from error
    return model


def _build_model(definition: Model, size: tuple[int, int], threads: TorchThreads) -> ScoringModel:
    parameters = definition.parameters
    if isinstance(parameters, MemoryParameters):
        # All weights come from the state, so no pre-trained ones are loaded.
        untrained = parameters.model_copy(update={"pre_trained": False})
        return build_memory_model(untrained, size, threads, definition.tiling)
    return _build_anomalib_model(definition, size)


def _build_anomalib_model(definition: Model, size: tuple[int, int]) -> ScoringModel:
    from anomaly_runner.models.anomalib_model import (
        BuildOptions,
        build_module,
        scoring_model,
        without_pretrained_weights,
    )

    with without_pretrained_weights():
        module = build_module(definition, BuildOptions(size, 1, None, "object"))
    parameters = definition.parameters
    if isinstance(parameters, WinclipParameters) and parameters.k_shot:
        module.model.k_shot = parameters.k_shot  # features of its reference images are in its state
    return scoring_model(definition, module, size)


def _resize_buffers(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Resize buffers that grow in training (memory banks, covariances) to their shapes in the state."""
    for name, buffer in list(model.named_buffers()):
        if name in state and buffer.shape != state[name].shape:
            owner: Any = model.get_submodule(name.rpartition(".")[0])
            owner._buffers[name.rpartition(".")[2]] = torch.empty_like(state[name])
