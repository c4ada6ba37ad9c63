"""Which model, with which parameters. ``name`` selects the block of parameters of the same name.

Parameters are anomalib 2.7's, in Kubernetes spelling; defaults are those of the papers named at each class.
"""

from typing import Annotated, Literal

from pydantic import Field

from anomaly_api.base import Contract
from anomaly_api.primitives import PixelSize, Text
from anomaly_api.rules import not_yet, only_when, only_yet
from anomaly_api.storage import Location

ModelName = Literal[
    "padim", "patchcore", "cfa", "cflow", "csflow", "dfkde", "dfm", "draem", "efficientad", "fastflow", "fre",
    "ganomaly", "reverseDistillation", "stfpm", "supersimplenet", "uflow", "dinomaly", "anomalydino", "winclip",
]  # fmt: skip
SUPPORTED_MODELS: tuple[ModelName, ...] = ("padim", "patchcore")

Layers = Annotated[tuple[Text, ...], Field(min_length=1, max_length=8)]


class PadimParameters(Contract):
    """PaDiM: a Gaussian a patch position over features of a frozen backbone (Defard et al., ICPR 2020)."""

    backbone: Text = "resnet18"
    """Name of a timm model."""
    layers: Layers = ("layer1", "layer2", "layer3")
    """Feature layers of the backbone, as timm's feature_info names them (tf_efficientnet_lite0: blocks.0 ...)."""
    pre_trained: bool = True
    """Load ImageNet weights; false gives random weights (for tests)."""
    n_features: Annotated[int, Field(ge=1, le=2048)] | None = None
    """Channels kept, drawn by the run's seed; unset means 100 for resnet18, 550 for wide_resnet50_2, else all
    up to 100."""


class PatchcoreParameters(Contract):
    """PatchCore: nearest neighbours in a coreset of patch features (Roth et al., CVPR 2022)."""

    backbone: Text = "wide_resnet50_2"
    """Name of a timm model."""
    layers: Layers = ("layer2", "layer3")
    """Feature layers of the backbone."""
    pre_trained: bool = True
    """Load ImageNet weights; false gives random weights (for tests)."""
    coreset_sampling_ratio: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the training patches kept in the memory bank."""
    num_neighbors: Annotated[int, Field(ge=1, le=64)] = 9
    """Neighbours that weigh the image score."""


class Tiling(Contract):
    """Cut each image into tiles and run the model on every tile."""

    tile_size: PixelSize
    """Side of a tile in pixels."""
    stride: PixelSize
    """Distance between tiles in pixels."""


class Model(Contract):
    """The model to train."""

    rules = (
        only_yet("name", *SUPPORTED_MODELS),
        only_when("padim", "name", "padim"),
        only_when("patchcore", "name", "patchcore"),
        not_yet("tiling"),
    )

    name: ModelName
    """Model family."""
    padim: PadimParameters | None = None
    """Parameters of PaDiM."""
    patchcore: PatchcoreParameters | None = None
    """Parameters of PatchCore."""
    tiling: Tiling | None = None
    """Cut images into tiles."""
    weights: Location | None = None
    """A Hugging Face cache (hub/models--timm--NAME/...) with the backbone's weights, for clusters with no
    internet. Set, nothing is downloaded from a hub: weights that are not in it fail the run at once."""

    @property
    def parameters(self) -> PadimParameters | PatchcoreParameters:
        """The selected model's parameters, defaults where the manifest has none."""
        if self.name == "patchcore":
            return self.patchcore or PatchcoreParameters()
        return self.padim or PadimParameters()
