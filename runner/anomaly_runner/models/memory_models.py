"""Build the models that are implemented in this project, for training or for loading a state."""

from collections.abc import Callable

from anomaly_api.model import Tiling
from anomaly_api.parameters import PadimParameters, PatchcoreParameters
from anomaly_runner.models.backbone import choose_backbone
from anomaly_runner.models.base import MemoryModel
from anomaly_runner.models.padim import Padim
from anomaly_runner.models.patchcore import Patchcore
from anomaly_runner.models.threads import TorchThreads

MemoryParameters = PadimParameters | PatchcoreParameters


def build_memory_model(
    parameters: MemoryParameters,
    size: tuple[int, int],
    threads: TorchThreads,
    tiling: Tiling | None,
    *,
    seed: int = 0,
    check: Callable[[int], None] = lambda _: None,
) -> MemoryModel:
    """Build PaDiM or PatchCore with its frozen backbone, not yet fitted, on the CPU.

    Args:
        parameters: the manifest's parameters; their type selects the model.
        size: rows and columns of the images.
        threads: used to fit the model.
        tiling: None for whole images.
        seed: of PatchCore's coreset.
        check: called while the coreset is picked, with the number of patches picked so far; may raise to stop.

    Raises:
        InvalidConfig: the backbone does not support the parameters, or tiles do not fit into the images.
        WeightsNotFound: the backbone's weights could not be loaded.
    """
    choice = choose_backbone(parameters.backbone, parameters.layers)
    match parameters:
        case PadimParameters():
            return Padim(choice, parameters, size, threads, tiling)
        case PatchcoreParameters():
            return Patchcore(choice, parameters, size, seed, check, threads=threads, tiling=tiling)
