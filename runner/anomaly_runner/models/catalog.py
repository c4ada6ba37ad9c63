"""What there is to know of each model before it is built: how it learns, what it needs, what it leaves. No torch.

Epochs, steps, batch sizes and early stopping are the papers' or, where a paper is silent, those that anomalib's or the
reference system's published results were made with; ``source`` says which. Everything can be overridden by
``spec.training``. The table in docs/models.md is made from this one.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

from anomaly_api.artifacts import ExportFormat
from anomaly_api.experiment import ExperimentSpec
from anomaly_api.model import ModelName
from anomaly_runner.errors import InvalidConfig

Learning = Literal["onePass", "gradient", "zeroShot"]

DTD = "datasets/dtd"
IMAGENETTE = "datasets/imagenette"
QUANTISER = "anomalib/pre_trained/dsr/vq_model_pretrained_128_4096.pckl"
TEACHERS = "anomalib/pre_trained/efficientad_pretrained_weights"


@dataclass(frozen=True)
class ModelEntry:
    """One model.

    title, source: for people: its name, and where its defaults are from.
    learning: how often it sees the training images. passes: of a model without epochs, over the training images.
    anomalib: class in anomalib.models, or None for those written out here.
    renamed: constructor arguments whose names differ from the parameters'.
    localises: answers anomaly maps beside image scores.
    scaled_only: takes images of 0..1 without ImageNet normalisation. normalised_only: takes no others.
    size: the one input size that it takes. multiple: sides must be multiples of this, or of the patches
        that the encoder's name tells of. square: and equal.
    batch_size, fixed_batch: images a training step, and whether it takes no others.
    epochs, steps, patience, clip: of its training, where the manifest says nothing.
    manual_optimisation: steps its optimisers itself.
    calibrates: needs a validation after training.
    prepares: looks at all training images before the first epoch, and keeps what it found in its state.
    alone: why it trains on one device, if it does; others give each of several a share of a step's images.
    exports: forms that it can be written in; each run compares them with torch all the same. half: and whether in
        half precision.
    weights: what it loads, as KIND:NAME with parameters in braces; see ``weights.wanted_weights``.
    """

    title: str
    learning: Learning
    source: str
    anomalib: str | None = None
    renamed: dict[str, str] = field(default_factory=dict)
    localises: bool = True
    scaled_only: bool = False
    normalised_only: bool = False
    size: tuple[int, int] | None = None
    multiple: int = 1
    passes: int = 1
    square: bool = False
    batch_size: int = 32
    fixed_batch: bool = False
    epochs: int | None = None
    steps: int | None = None
    patience: int | None = None
    clip: float | None = None
    manual_optimisation: bool = False
    calibrates: bool = False
    prepares: bool = False
    alone: str = ""
    exports: tuple[ExportFormat, ...] = get_args(ExportFormat)
    half: bool = True
    weights: tuple[str, ...] = ()

    @property
    def by_gradient(self) -> bool:
        """Whether it has epochs."""
        return self.learning == "gradient"

    @property
    def parallel(self) -> bool:
        """Whether several devices can train it together: a step is a mean over images that do not see each other."""
        return self.by_gradient and not self.alone


_TIMM = "timm:{backbone}"
_BATCH_NORM = "its batch normalisation sees the images of a step together"
_SUM = "its loss adds up over the images of a step instead of being their mean"
_OWN_STEPS = "it takes its own optimiser steps"

CATALOG: dict[ModelName, ModelEntry] = {
    "padim": ModelEntry("PaDiM", "onePass", "Defard et al., ICPR 2020", weights=(_TIMM,)),
    "patchcore": ModelEntry("PatchCore", "onePass", "Roth et al., CVPR 2022", weights=(_TIMM,)),
    "cfa": ModelEntry(
        "CFA",
        "gradient",
        "30 epochs: the reference system; patience 5: anomalib's results",
        anomalib="Cfa",
        batch_size=4,
        epochs=30,
        patience=5,
        prepares=True,
        weights=("torchvision:{backbone}",),
    ),
    "cflow": ModelEntry(
        "CFLOW-AD",
        "gradient",
        "50 epochs: the reference system",
        anomalib="Cflow",
        batch_size=16,
        epochs=50,
        renamed={"learning_rate": "lr"},
        manual_optimisation=True,
        alone=_OWN_STEPS,
        weights=(_TIMM,),
    ),
    "csflow": ModelEntry(
        "CS-Flow",
        "gradient",
        "240 epochs, batch 16: the paper",
        anomalib="Csflow",
        batch_size=16,
        epochs=240,
        clip=1.0,
        alone=_SUM,
        half=False,
        weights=("torchvision:efficientnet_b5",),
    ),
    "dfkde": ModelEntry("DFKDE", "onePass", "anomalib", anomalib="Dfkde", localises=False, weights=(_TIMM,)),
    "dfm": ModelEntry("DFM", "onePass", "Ahuja et al., 2019", anomalib="Dfm", weights=(_TIMM,)),
    "draem": ModelEntry(
        "DRAEM",
        "gradient",
        "700 epochs, batch 8: the paper; patience 20: the reference system",
        anomalib="Draem",
        scaled_only=True,
        batch_size=8,
        epochs=700,
        patience=20,
        alone=_BATCH_NORM,
        weights=(f"folder:{DTD}",),
    ),
    "efficientad": ModelEntry(
        "EfficientAD",
        "gradient",
        "batch 1: the paper; 20,000 steps: the reference system",
        anomalib="EfficientAd",
        renamed={"learning_rate": "lr"},
        scaled_only=True,
        batch_size=1,
        fixed_batch=True,
        steps=20_000,
        calibrates=True,
        alone="it trains with one image a step",
        weights=(f"file:{TEACHERS}/pretrained_teacher_{{model_size}}.pth", f"folder:{IMAGENETTE}"),
    ),
    "fastflow": ModelEntry(
        "FastFlow",
        "gradient",
        "500 epochs, batch 32: the paper; patience 3: anomalib's results",
        anomalib="Fastflow",
        epochs=500,
        patience=3,
        weights=(_TIMM,),
    ),
    "fre": ModelEntry(
        "FRE",
        "gradient",
        "220 epochs: anomalib's results",
        anomalib="Fre",
        epochs=220,
        weights=(_TIMM,),
    ),
    "ganomaly": ModelEntry(
        "GANomaly",
        "gradient",
        "100 epochs, patience 5: anomalib's results",
        anomalib="Ganomaly",
        localises=False,
        renamed={
            "learning_rate": "lr",
            "adversarial_weight": "wadv",
            "contextual_weight": "wcon",
            "encoder_weight": "wenc",
        },
        epochs=100,
        patience=5,
        manual_optimisation=True,
        alone=_OWN_STEPS,
    ),
    "reverseDistillation": ModelEntry(
        "Reverse distillation",
        "gradient",
        "200 epochs, batch 16: the paper; patience 3: anomalib's results",
        anomalib="ReverseDistillation",
        batch_size=16,
        epochs=200,
        patience=3,
        alone=_BATCH_NORM,
        weights=(_TIMM,),
    ),
    "stfpm": ModelEntry(
        "STFPM",
        "gradient",
        "100 epochs, batch 32: the paper; patience 5: anomalib's results",
        anomalib="Stfpm",
        epochs=100,
        patience=5,
        alone=_BATCH_NORM,
        weights=(_TIMM,),
    ),
    "supersimplenet": ModelEntry(
        "SuperSimpleNet",
        "gradient",
        "300 epochs, batch 32: the paper",
        anomalib="Supersimplenet",
        epochs=300,
        alone=_BATCH_NORM,
        weights=(_TIMM,),
    ),
    "uflow": ModelEntry(
        "U-Flow",
        "gradient",
        "200 epochs, patience 20: anomalib's results",
        anomalib="Uflow",
        size=(448, 448),
        batch_size=8,
        epochs=200,
        patience=20,
        alone=_SUM,
        weights=(_TIMM,),
    ),
    "dinomaly": ModelEntry(
        "Dinomaly",
        "gradient",
        "5,000 steps, batch 16: the paper and anomalib's results",
        anomalib="Dinomaly",
        multiple=14,
        batch_size=16,
        steps=5_000,
        clip=0.1,
        alone="its loss weighs the images of a step against each other",
        weights=("timm:{encoder_name}",),
    ),
    "anomalydino": ModelEntry(
        "AnomalyDINO",
        "onePass",
        "Damm et al., WACV 2025",
        anomalib="AnomalyDINO",
        multiple=14,
        weights=("timm:{encoder_name}",),
    ),
    "winclip": ModelEntry(
        "WinCLIP",
        "zeroShot",
        "Jeong et al., CVPR 2023",
        anomalib="WinClip",
        scaled_only=True,
        size=(240, 240),
        weights=("hub:timm/vit_base_patch16_plus_clip_240.laion400m_e31",),
    ),
    "patchflow": ModelEntry(
        "PatchFlow",
        "gradient",
        "batch 8: the authors' code; 200 epochs, patience 10: anomalib's configuration",
        anomalib="Patchflow",
        renamed={"learning_rate": "lr"},
        batch_size=8,
        epochs=200,
        patience=10,
        alone=_BATCH_NORM,
        weights=(_TIMM,),
    ),
    "inpFormer": ModelEntry(
        "INP-Former",
        "gradient",
        "200 epochs, batch 16: the authors' code",
        anomalib="InpFormer",
        multiple=14,
        square=True,
        batch_size=16,
        epochs=200,
        clip=0.1,
        alone="its loss weighs the images of a step against each other",
        weights=("timm:{encoder_name}",),
    ),
    "uninet": ModelEntry(
        "UniNet",
        "gradient",
        "100 epochs, batch 8: the authors' code",
        anomalib="UniNet",
        multiple=32,
        batch_size=8,
        epochs=100,
        alone=_BATCH_NORM,
        half=False,
        weights=("torchvision:{teacher_backbone}",),
    ),
    "glass": ModelEntry(
        "GLASS",
        "gradient",
        "batch 8: the paper; 100 epochs: anomalib's results",
        anomalib="Glass",
        renamed={"patch_size": "patchsize", "ascent_steps": "step", "hypersphere": "svd"},
        normalised_only=True,
        batch_size=8,
        epochs=100,
        manual_optimisation=True,
        alone=_OWN_STEPS,
        weights=(_TIMM, f"folder:{DTD}"),
    ),
    "l2bt": ModelEntry(
        "L2BT",
        "gradient",
        "50 epochs, batch 4: the authors' code",
        anomalib="L2BT",
        multiple=14,
        renamed={"learning_rate": "lr"},
        batch_size=4,
        epochs=50,
        weights=("timm:vit_base_patch14_reg4_dinov2",),
    ),
    "generalAd": ModelEntry(
        "GeneralAD",
        "gradient",
        "160 epochs, batch 16: the authors' code",
        anomalib="GeneralAD",
        renamed={"encoder_name": "backbone", "blocks": "layers", "learning_rate": "lr", "schedule_epochs": "epochs"},
        multiple=14,
        square=True,
        batch_size=16,
        epochs=160,
        alone="its loss is a mean over simulated patches, of which each image has its own number",
        weights=("timm:{encoder_name}",),
    ),
    "rad": ModelEntry(
        "RAD",
        "onePass",
        "anomalib",
        anomalib="Rad",
        renamed={"encoder_name": "backbone", "blocks": "layers"},
        multiple=16,
        half=False,
        weights=("timm:{encoder_name}",),
    ),
    "superAdd": ModelEntry(
        "SuperADD",
        "onePass",
        "anomalib",
        anomalib="SuperADD",
        renamed={
            "encoder_name": "backbone",
            "blocks": "layers",
            "window_size": "patch_size",
            "window_overlap": "patch_overlap",
        },
        multiple=16,
        weights=("timm:{encoder_name}",),
    ),
    "foundAd": ModelEntry(
        "FoundAD",
        "gradient",
        "2,000 epochs, batch 8: the authors' code, for one to four images",
        anomalib="FoundAD",
        renamed={"learning_rate": "lr"},
        multiple=14,
        batch_size=8,
        epochs=2000,
        alone="one draw decides whether the images of a step are spoilt",
        weights=("timm:{encoder_name}",),
    ),
    "mhPatchcore": ModelEntry(
        "MH-PatchCore",
        "onePass",
        "anomalib",
        anomalib="MHPatchcore",
        passes=3,
        weights=(_TIMM,),
        exports=("onnx", "torchscript"),
        half=False,
    ),
    "dsr": ModelEntry(
        "DSR",
        "gradient",
        "100 epochs, batch 8: the authors' code",
        anomalib="Dsr",
        scaled_only=True,
        batch_size=8,
        epochs=100,
        manual_optimisation=True,
        alone=_OWN_STEPS,
        weights=(f"file:{QUANTISER}",),
    ),
    "anomalyVfm": ModelEntry(
        "AnomalyVFM",
        "zeroShot",
        "anomalib",
        anomalib="AnomalyVFM",
        scaled_only=True,
        multiple=16,
        weights=("hub:MaticFuc/anomalyvfm_radio@17654e763c8fae5ae1c44e2ec421a427783d6196",),
    ),
}


def input_normalization(spec: ExperimentSpec) -> Literal["imagenet", "none"]:
    """How pixel values are scaled for the model.

    Raises:
        InvalidConfig: the manifest asks for what the model cannot use.
    """
    asked, entry = spec.transforms.normalization, CATALOG[spec.model.name]
    if entry.scaled_only and asked == "imagenet":
        raise InvalidConfig(
            f"{spec.model.name} wants images of 0..1: set transforms.normalization: none, or leave it out"
        )
    if entry.normalised_only and asked == "none":
        raise InvalidConfig(
            f"{spec.model.name} wants normalised images: set transforms.normalization: imagenet, or leave it out"
        )
    return asked or ("none" if entry.scaled_only else "imagenet")
