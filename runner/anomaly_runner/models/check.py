"""What can be known of a model before anything is fetched: its backbone, its layers, the sizes that it takes."""

from collections.abc import Sequence

from anomaly_api.base import Contract
from anomaly_api.model import Model
from anomaly_runner.errors import InvalidConfig
from anomaly_runner.models.backbone import choose_backbone
from anomaly_runner.models.catalog import CATALOG
from anomaly_runner.models.tiling import Tiles


def check_model(model: Model, size: tuple[int, int]) -> None:
    """Check the model against what is installed, and the input size against the model.

    Raises:
        InvalidConfig: an unknown backbone or layer, an input size that the model does not take, or tiles that do not
            fit into it.
    """
    entry, parameters = CATALOG[model.name], model.parameters
    if entry.size and size != entry.size:
        raise InvalidConfig(f"{model.name} takes images of {entry.size[0]} x {entry.size[1]}: set transforms.inputSize")
    if any(side % entry.multiple for side in size):
        raise InvalidConfig(f"{model.name} wants an inputSize of multiples of {entry.multiple}, not {size[0]} x "
                            f"{size[1]}")  # fmt: skip
    backbone, layers = getattr(parameters, "backbone", None), layers_of(parameters)
    if backbone and layers:
        choice = choose_backbone(backbone, layers)
        Tiles(size, model.tiling).check_aligned(choice.reductions)


def layers_of(parameters: Contract) -> Sequence[str]:
    """The feature layers that a model takes from its backbone, if it can be told which."""
    layers: Sequence[str] = getattr(parameters, "layers", ()) or ()
    layer: str | None = getattr(parameters, "layer", None)
    return (layer,) if layer else layers
