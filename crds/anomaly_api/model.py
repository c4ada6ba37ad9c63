"""Which model, with which parameters. ``name`` selects the block of parameters of the same name."""

from typing import Literal, get_args

from anomaly_api import parameters as blocks
from anomaly_api.base import Contract
from anomaly_api.names import snake
from anomaly_api.primitives import PixelSize
from anomaly_api.rules import at_most, only_when
from anomaly_api.storage import Location

ModelName = Literal[
    "padim",
    "patchcore",
    "cfa",
    "cflow",
    "csflow",
    "dfkde",
    "dfm",
    "draem",
    "efficientad",
    "fastflow",
    "fre",
    "ganomaly",
    "reverseDistillation",
    "stfpm",
    "supersimplenet",
    "uflow",
    "dinomaly",
    "anomalydino",
    "winclip",
    "patchflow",
    "inpFormer",
    "uninet",
    "glass",
    "l2bt",
    "generalAd",
    "rad",
    "superAdd",
    "foundAd",
    "mhPatchcore",
    "dsr",
    "anomalyVfm",
]
MODEL_NAMES: tuple[ModelName, ...] = get_args(ModelName)
TILED_MODELS: tuple[ModelName, ...] = ("padim", "patchcore", "reverseDistillation", "stfpm")
ONE_PASS_MODELS: tuple[ModelName, ...] = (
    "padim",
    "patchcore",
    "dfkde",
    "dfm",
    "anomalydino",
    "winclip",
    "rad",
    "superAdd",
    "mhPatchcore",
    "anomalyVfm",
)
"""Models that see every training image once (mhPatchcore thrice), or none: they have no epochs and no gradients."""


class Tiling(Contract):
    """Cut each image into tiles, run the backbone on every tile, and join its features: for defects that are small in
    large images. Tiles begin a stride apart, the last one ends with the image. Sides of images and tiles and the stride
    have to be multiples of what one feature of the chosen layers stands for (16 pixels for layer3 of a ResNet)."""

    rules = (at_most("stride", "tile_size"),)

    tile_size: PixelSize
    """Side of a tile in pixels."""
    stride: PixelSize
    """Distance between tiles in pixels; less than tileSize for tiles that overlap, where the mean counts."""


class Model(Contract):
    """The model to train."""

    rules = (
        *(only_when(snake(name), "name", name) for name in MODEL_NAMES),
        only_when("tiling", "name", *TILED_MODELS),
    )

    name: ModelName
    """Model family."""
    padim: blocks.PadimParameters | None = None
    """Parameters of PaDiM."""
    patchcore: blocks.PatchcoreParameters | None = None
    """Parameters of PatchCore."""
    cfa: blocks.CfaParameters | None = None
    """Parameters of CFA."""
    cflow: blocks.CflowParameters | None = None
    """Parameters of CFLOW."""
    csflow: blocks.CsflowParameters | None = None
    """Parameters of CS-Flow."""
    dfkde: blocks.DfkdeParameters | None = None
    """Parameters of DFKDE."""
    dfm: blocks.DfmParameters | None = None
    """Parameters of DFM."""
    draem: blocks.DraemParameters | None = None
    """Parameters of DRAEM."""
    efficientad: blocks.EfficientadParameters | None = None
    """Parameters of EfficientAD."""
    fastflow: blocks.FastflowParameters | None = None
    """Parameters of FastFlow."""
    fre: blocks.FreParameters | None = None
    """Parameters of FRE."""
    ganomaly: blocks.GanomalyParameters | None = None
    """Parameters of GANomaly."""
    reverse_distillation: blocks.ReverseDistillationParameters | None = None
    """Parameters of reverse distillation."""
    stfpm: blocks.StfpmParameters | None = None
    """Parameters of STFPM."""
    supersimplenet: blocks.SupersimplenetParameters | None = None
    """Parameters of SuperSimpleNet."""
    uflow: blocks.UflowParameters | None = None
    """Parameters of U-Flow."""
    dinomaly: blocks.DinomalyParameters | None = None
    """Parameters of Dinomaly."""
    anomalydino: blocks.AnomalydinoParameters | None = None
    """Parameters of AnomalyDINO."""
    winclip: blocks.WinclipParameters | None = None
    """Parameters of WinCLIP."""
    patchflow: blocks.PatchflowParameters | None = None
    """Parameters of PatchFlow."""
    inp_former: blocks.InpFormerParameters | None = None
    """Parameters of INP-Former."""
    uninet: blocks.UninetParameters | None = None
    """Parameters of UniNet."""
    glass: blocks.GlassParameters | None = None
    """Parameters of GLASS."""
    l2bt: blocks.L2btParameters | None = None
    """Parameters of L2BT."""
    general_ad: blocks.GeneralAdParameters | None = None
    """Parameters of GeneralAD."""
    rad: blocks.RadParameters | None = None
    """Parameters of RAD."""
    super_add: blocks.SuperAddParameters | None = None
    """Parameters of SuperADD."""
    found_ad: blocks.FoundAdParameters | None = None
    """Parameters of FoundAD."""
    mh_patchcore: blocks.MhPatchcoreParameters | None = None
    """Parameters of MH-PatchCore."""
    dsr: blocks.DsrParameters | None = None
    """Parameters of DSR."""
    anomaly_vfm: blocks.AnomalyVfmParameters | None = None
    """Parameters of AnomalyVFM."""
    tiling: Tiling | None = None
    """Cut images into tiles."""
    weights: Location | None = None
    """A folder with the weights and auxiliary images that the model needs, for clusters with no internet: a Hugging
    Face cache (hub/models--timm--NAME/...), torch/hub/checkpoints, anomalib and datasets; docs/models.md says what each
    model wants. Set, nothing is downloaded: what is not in it fails the run at once."""

    @property
    def parameters(self) -> Contract:
        """The selected model's parameters, defaults where the manifest has none."""
        field = snake(self.name)
        block: type[Contract] = get_args(Model.model_fields[field].annotation)[0]
        found: Contract | None = getattr(self, field)
        return found or block()
