"""Which model, with which parameters. ``name`` selects the block of parameters of the same name.

Models are not listed here: each block in ``parameters`` defines one.
"""

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field, create_model

from anomaly_api.base import Contract
from anomaly_api.names import snake
from anomaly_api.parameters import BLOCKS, ModelParameters
from anomaly_api.primitives import PixelSize
from anomaly_api.rules import at_most, only_when
from anomaly_api.storage import Location

MODEL_NAMES: tuple[str, ...] = tuple(BLOCKS)
TILED_MODELS = tuple(name for name, block in BLOCKS.items() if block.takes_tiles)
ONE_PASS_MODELS = tuple(name for name, block in BLOCKS.items() if block.learning != "gradient")
"""Models that see every training image once (mhPatchcore three times) or none, without epochs and gradients."""

if TYPE_CHECKING:
    ModelName = str
else:
    ModelName = Literal[MODEL_NAMES]  # an enum in the CRD; made at run time, so that a new block is all that it takes

Selected = TypeVar("Selected", bound=Contract)


class Tiling(Contract):
    """Cut each image into tiles, run the backbone on every tile, and join its features: for defects that are small in
    large images. Tiles begin one stride apart, and the last one ends at the image's edge. The sides of images and tiles
    and the stride must be multiples of the pixels per feature of the chosen layers (16 for layer3 of a ResNet)."""

    rules = (at_most("stride", "tile_size"),)

    tile_size: PixelSize
    """Side of a tile in pixels."""
    stride: PixelSize
    """Distance between tiles in pixels; if less than tileSize, tiles overlap and features are averaged there."""


def _with_parameters(selected: type[Selected]) -> type[Selected]:
    """Return the type with an additional optional field for the parameters of each model.

    It extends a base of ``Model`` instead of ``Model`` itself, so that the CRD lists the blocks right after the name.
    """
    fields: dict[str, Any] = {
        snake(name): (
            block | None,
            Field(None, description=block.field_description or f"Parameters of {block.title()}."),
        )
        for name, block in BLOCKS.items()
    }
    return create_model(selected.__name__, __base__=selected, **fields)


@_with_parameters
class _SelectedModel(Contract):
    name: ModelName
    """Model family."""


class Model(_SelectedModel):
    """The model to train."""

    rules = (
        *(only_when(snake(name), "name", name) for name in MODEL_NAMES),
        only_when("tiling", "name", *TILED_MODELS),
    )

    tiling: Tiling | None = None
    """Cut images into tiles."""
    weights: Location | None = None
    """A folder with the weights and auxiliary images that the model needs, for clusters with no internet: a Hugging
    Face cache (hub/models--timm--NAME/...), torch/hub/checkpoints, anomalib and datasets; docs/models.md lists what
    each model needs. If set, nothing is downloaded, and a missing file fails the run at once."""

    @property
    def parameters(self) -> ModelParameters:
        """The selected model's parameters; defaults if the manifest has none."""
        found: ModelParameters | None = getattr(self, snake(self.name))
        return found or BLOCKS[self.name]()
