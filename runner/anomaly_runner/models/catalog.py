"""The catalog of models: how each model learns, which inputs and weights it needs, and which exports it supports.

Imports no torch, because the documentation's generator and the checks before a download read this table too. The
parameters that users choose are in ``anomaly_api.parameters``; the table in docs/models.md is made from both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from anomaly_api import parameters as blocks
from anomaly_api.artifacts import ExportFormat
from anomaly_api.experiment import ExperimentSpec
from anomaly_api.model import ModelName
from anomaly_api.parameters import Learning, ModelParameters
from anomaly_runner.errors import InvalidConfig

DTD = "datasets/dtd"
IMAGENETTE = "datasets/imagenette"
QUANTISER = "anomalib/pre_trained/dsr/vq_model_pretrained_128_4096.pckl"
TEACHERS = "anomalib/pre_trained/efficientad_pretrained_weights"


@dataclass(frozen=True)
class AnomalibClass:
    """How anomalib's Lightning module is constructed. Source: the signatures of ``anomalib.models``."""

    name: str
    """Class in ``anomalib.models``."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Names of constructor arguments, by the names of our parameters, where these differ."""
    late_loader: str | None = None
    """Method of the module that loads weights when a training begins, and does nothing else; None for most models."""


@dataclass(frozen=True)
class InputConstraints:
    """Constraints on the network's input. Source: the network's architecture, as anomalib builds it."""

    normalization: Literal["imagenet", "none"] | None = None
    """The only normalisation it works with (``none``: values 0..1); None for any, with ImageNet's as the default."""
    clip_inside: bool = False
    """Images with values 0..1 are normalised for CLIP in front of the network."""
    size: tuple[int, int] | None = None
    """The only rows and columns that it takes, in pixels; None for any."""
    multiple: int = 1
    """Rows and columns must be multiples of this, in pixels; a patch size in the encoder's name takes precedence."""
    square: bool = False
    """Rows and columns must be equal."""


@dataclass(frozen=True)
class TrainingDefaults:
    """Defaults that ``spec.training`` overrides.

    They are the values of the papers or, where a paper names none, of the published results of anomalib or the
    reference system.
    """

    source: str
    """Origin of each value, for people."""
    epochs: int | None = None
    steps: int | None = None
    """Optimiser steps, for models whose paper counts these instead of epochs."""
    batch_size: int = 32
    """Images in a training step."""
    patience: int | None = None
    """Epochs without improvement after which the training stops; None for no early stopping."""
    clip: float | None = None
    """Norm that gradients are clipped to. Source: the module's ``trainer_arguments`` in anomalib."""


@dataclass(frozen=True)
class TrainingLoop:
    """Properties of the training that ``spec.training`` cannot change. Source: anomalib's Lightning module."""

    passes: int = 1
    """Number of passes over the training images, for a model without epochs."""
    fixed_batch_size: bool = False
    """The module accepts no other batch size than the default."""
    manual_optimization: bool = False
    """The module steps its optimisers itself (Lightning's ``automatic_optimization = False``)."""
    prepares_before_training: bool = False
    """The module reads all training images before the first epoch, and keeps the result in its state."""
    calibrates_after_training: bool = False
    """The module calibrates itself on validation images, which is needed after training (``on_validation_start``)."""
    single_device_reason: str | None = None
    """Reason why the model trains only on one device; None if several devices can share the images of a step."""


@dataclass(frozen=True)
class ExportSupport:
    """Formats that the model can be exported to. Source: the tests of all models, which write and read each format.

    Each run still compares its exports with torch.
    """

    formats: tuple[ExportFormat, ...] = get_args(ExportFormat)
    float16: bool = True
    """Whether float16 can represent the model's numbers."""


@dataclass(frozen=True)
class WeightSource:
    """A source of weights or auxiliary images that the model loads. Source: anomalib's code that builds the module.

    ``str`` is the form that docs/models.md shows.
    """

    kind: Literal["timm", "torchvision", "hub", "file", "folder"]
    """timm or torchvision: name of a model; hub: repository on the Hugging Face hub; file or folder: path in the cache.
    """
    name: str
    """May contain names of parameters in braces."""
    revision: str = ""
    """Revision of a hub repository; empty for the newest."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}{'@' if self.revision else ''}{self.revision}"


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """The catalog's entry of a model; the type of its parameters defines its name and how it learns."""

    parameters: type[ModelParameters]
    training: TrainingDefaults
    loop: TrainingLoop = TrainingLoop()
    anomalib: AnomalibClass | None = None
    """None for models that are implemented in this package."""
    inputs: InputConstraints = InputConstraints()
    localises: bool = True
    """Whether the model returns anomaly maps besides image scores."""
    exports: ExportSupport = ExportSupport()
    weights: tuple[WeightSource, ...] = ()

    @property
    def name(self) -> ModelName:
        """Value of ``spec.model.name``."""
        return self.parameters.name

    @property
    def learning(self) -> Learning:
        """How the model uses the training images."""
        return self.parameters.learning

    @property
    def by_gradient(self) -> bool:
        """Whether the model is trained by gradient descent."""
        return self.learning == "gradient"

    @property
    def parallel(self) -> bool:
        """Whether several devices can train the model: its loss is a mean over images that are independent."""
        return self.by_gradient and self.loop.single_device_reason is None


_BACKBONE = WeightSource("timm", "{backbone}")
_ENCODER = WeightSource("timm", "{encoder_name}")
_BATCH_NORM = "its batch normalisation sees the images of a step together"
_SUM = "its loss adds up over the images of a step instead of being their mean"
_OWN_STEPS = "it takes its own optimiser steps"

_ENTRIES = (
    ModelEntry(
        parameters=blocks.PadimParameters,
        training=TrainingDefaults(source="Defard et al., ICPR 2020"),
        weights=(_BACKBONE,),
    ),
    ModelEntry(
        parameters=blocks.PatchcoreParameters,
        training=TrainingDefaults(source="Roth et al., CVPR 2022"),
        weights=(_BACKBONE,),
    ),
    ModelEntry(
        parameters=blocks.CfaParameters,
        anomalib=AnomalibClass("Cfa"),
        training=TrainingDefaults(
            source="30 epochs: the reference system; patience 5: anomalib's results",
            epochs=30,
            batch_size=4,
            patience=5,
        ),
        loop=TrainingLoop(prepares_before_training=True),
        weights=(WeightSource("torchvision", "{backbone}"),),
    ),
    ModelEntry(
        parameters=blocks.CflowParameters,
        anomalib=AnomalibClass("Cflow", renamed={"learning_rate": "lr"}),
        training=TrainingDefaults(source="50 epochs: the reference system", epochs=50, batch_size=16),
        loop=TrainingLoop(manual_optimization=True, single_device_reason=_OWN_STEPS),
        weights=(_BACKBONE,),
    ),
    ModelEntry(
        parameters=blocks.CsflowParameters,
        anomalib=AnomalibClass("Csflow"),
        training=TrainingDefaults(source="240 epochs, batch 16: the paper", epochs=240, batch_size=16, clip=1.0),
        loop=TrainingLoop(single_device_reason=_SUM),
        exports=ExportSupport(float16=False),
        weights=(WeightSource("torchvision", "efficientnet_b5"),),
    ),
    ModelEntry(
        parameters=blocks.DfkdeParameters,
        anomalib=AnomalibClass("Dfkde"),
        localises=False,
        training=TrainingDefaults(source="anomalib"),
        weights=(_BACKBONE,),
    ),
    ModelEntry(
        parameters=blocks.DfmParameters,
        anomalib=AnomalibClass("Dfm"),
        training=TrainingDefaults(source="Ahuja et al., 2019"),
        weights=(_BACKBONE,),
    ),
    ModelEntry(
        parameters=blocks.DraemParameters,
        anomalib=AnomalibClass("Draem"),
        inputs=InputConstraints(normalization="none"),
        training=TrainingDefaults(
            source="700 epochs, batch 8: the paper; patience 20: the reference system",
            epochs=700,
            batch_size=8,
            patience=20,
        ),
        loop=TrainingLoop(single_device_reason=_BATCH_NORM),
        weights=(WeightSource("folder", DTD),),
    ),
    ModelEntry(
        parameters=blocks.EfficientadParameters,
        anomalib=AnomalibClass("EfficientAd", renamed={"learning_rate": "lr"}, late_loader="prepare_pretrained_model"),
        inputs=InputConstraints(normalization="none"),
        training=TrainingDefaults(
            source="batch 1: the paper; 20,000 steps: the reference system", steps=20_000, batch_size=1
        ),
        loop=TrainingLoop(
            fixed_batch_size=True,
            calibrates_after_training=True,
            single_device_reason="it trains with one image a step",
        ),
        weights=(
            WeightSource("file", f"{TEACHERS}/pretrained_teacher_{{model_size}}.pth"),
            WeightSource("folder", IMAGENETTE),
        ),
    ),
    ModelEntry(
        parameters=blocks.FastflowParameters,
        anomalib=AnomalibClass("Fastflow"),
        training=TrainingDefaults(
            source="500 epochs, batch 32: the paper; patience 3: anomalib's results", epochs=500, patience=3
        ),
        weights=(_BACKBONE,),
    ),
    ModelEntry(
        parameters=blocks.FreParameters,
        anomalib=AnomalibClass("Fre"),
        training=TrainingDefaults(source="220 epochs: anomalib's results", epochs=220),
        weights=(_BACKBONE,),
    ),
    ModelEntry(
        parameters=blocks.GanomalyParameters,
        anomalib=AnomalibClass(
            "Ganomaly",
            renamed={
                "learning_rate": "lr",
                "adversarial_weight": "wadv",
                "contextual_weight": "wcon",
                "encoder_weight": "wenc",
            },
        ),
        localises=False,
        training=TrainingDefaults(source="100 epochs, patience 5: anomalib's results", epochs=100, patience=5),
        loop=TrainingLoop(manual_optimization=True, single_device_reason=_OWN_STEPS),
    ),
    ModelEntry(
        parameters=blocks.ReverseDistillationParameters,
        anomalib=AnomalibClass("ReverseDistillation"),
        training=TrainingDefaults(
            source="200 epochs, batch 16: the paper; patience 3: anomalib's results",
            epochs=200,
            batch_size=16,
            patience=3,
        ),
        loop=TrainingLoop(single_device_reason=_BATCH_NORM),
        weights=(_BACKBONE,),
    ),
    ModelEntry(
        parameters=blocks.StfpmParameters,
        anomalib=AnomalibClass("Stfpm"),
        training=TrainingDefaults(
            source="100 epochs, batch 32: the paper; patience 5: anomalib's results", epochs=100, patience=5
        ),
        loop=TrainingLoop(single_device_reason=_BATCH_NORM),
        weights=(_BACKBONE,),
    ),
    ModelEntry(
        parameters=blocks.SupersimplenetParameters,
        anomalib=AnomalibClass("Supersimplenet"),
        training=TrainingDefaults(source="300 epochs, batch 32: the paper", epochs=300),
        loop=TrainingLoop(single_device_reason=_BATCH_NORM),
        weights=(_BACKBONE,),
    ),
    ModelEntry(
        parameters=blocks.UflowParameters,
        anomalib=AnomalibClass("Uflow"),
        inputs=InputConstraints(size=(448, 448)),
        training=TrainingDefaults(
            source="200 epochs, patience 20: anomalib's results", epochs=200, batch_size=8, patience=20
        ),
        loop=TrainingLoop(single_device_reason=_SUM),
        weights=(_BACKBONE,),
    ),
    ModelEntry(
        parameters=blocks.DinomalyParameters,
        anomalib=AnomalibClass("Dinomaly"),
        inputs=InputConstraints(multiple=14),
        training=TrainingDefaults(
            source="5,000 steps, batch 16: the paper and anomalib's results", steps=5_000, batch_size=16, clip=0.1
        ),
        loop=TrainingLoop(single_device_reason="its loss weighs the images of a step against each other"),
        weights=(_ENCODER,),
    ),
    ModelEntry(
        parameters=blocks.AnomalydinoParameters,
        anomalib=AnomalibClass("AnomalyDINO"),
        inputs=InputConstraints(multiple=14),
        training=TrainingDefaults(source="Damm et al., WACV 2025"),
        weights=(_ENCODER,),
    ),
    ModelEntry(
        parameters=blocks.WinclipParameters,
        anomalib=AnomalibClass("WinClip"),
        inputs=InputConstraints(normalization="none", clip_inside=True, size=(240, 240)),
        training=TrainingDefaults(source="Jeong et al., CVPR 2023"),
        weights=(WeightSource("hub", "timm/vit_base_patch16_plus_clip_240.laion400m_e31"),),
    ),
    ModelEntry(
        parameters=blocks.PatchflowParameters,
        anomalib=AnomalibClass("Patchflow", renamed={"learning_rate": "lr"}),
        training=TrainingDefaults(
            source="batch 8: the authors' code; 200 epochs, patience 10: anomalib's configuration",
            epochs=200,
            batch_size=8,
            patience=10,
        ),
        loop=TrainingLoop(single_device_reason=_BATCH_NORM),
        weights=(_BACKBONE,),
    ),
    ModelEntry(
        parameters=blocks.InpFormerParameters,
        anomalib=AnomalibClass("InpFormer"),
        inputs=InputConstraints(multiple=14, square=True),
        training=TrainingDefaults(
            source="200 epochs, batch 16: the authors' code", epochs=200, batch_size=16, clip=0.1
        ),
        loop=TrainingLoop(single_device_reason="its loss weighs the images of a step against each other"),
        weights=(_ENCODER,),
    ),
    ModelEntry(
        parameters=blocks.UninetParameters,
        anomalib=AnomalibClass("UniNet"),
        inputs=InputConstraints(multiple=32),
        training=TrainingDefaults(source="100 epochs, batch 8: the authors' code", epochs=100, batch_size=8),
        loop=TrainingLoop(single_device_reason=_BATCH_NORM),
        exports=ExportSupport(float16=False),
        weights=(WeightSource("torchvision", "{teacher_backbone}"),),
    ),
    ModelEntry(
        parameters=blocks.GlassParameters,
        anomalib=AnomalibClass(
            "Glass", renamed={"patch_size": "patchsize", "ascent_steps": "step", "hypersphere": "svd"}
        ),
        inputs=InputConstraints(normalization="imagenet"),
        training=TrainingDefaults(
            source="batch 8: the paper; 100 epochs: anomalib's results", epochs=100, batch_size=8
        ),
        loop=TrainingLoop(manual_optimization=True, single_device_reason=_OWN_STEPS),
        weights=(
            _BACKBONE,
            WeightSource("folder", DTD),
        ),
    ),
    ModelEntry(
        parameters=blocks.L2btParameters,
        anomalib=AnomalibClass("L2BT", renamed={"learning_rate": "lr"}),
        inputs=InputConstraints(multiple=14),
        training=TrainingDefaults(source="50 epochs, batch 4: the authors' code", epochs=50, batch_size=4),
        weights=(WeightSource("timm", "vit_base_patch14_reg4_dinov2"),),
    ),
    ModelEntry(
        parameters=blocks.GeneralAdParameters,
        anomalib=AnomalibClass(
            "GeneralAD",
            renamed={
                "encoder_name": "backbone",
                "blocks": "layers",
                "learning_rate": "lr",
                "schedule_epochs": "epochs",
            },
        ),
        inputs=InputConstraints(multiple=14, square=True),
        training=TrainingDefaults(source="160 epochs, batch 16: the authors' code", epochs=160, batch_size=16),
        loop=TrainingLoop(
            single_device_reason="its loss is a mean over simulated patches, of which each image has its own number"
        ),
        weights=(_ENCODER,),
    ),
    ModelEntry(
        parameters=blocks.RadParameters,
        anomalib=AnomalibClass("Rad", renamed={"encoder_name": "backbone", "blocks": "layers"}),
        inputs=InputConstraints(multiple=16),
        training=TrainingDefaults(source="anomalib"),
        exports=ExportSupport(float16=False),
        weights=(_ENCODER,),
    ),
    ModelEntry(
        parameters=blocks.SuperAddParameters,
        anomalib=AnomalibClass(
            "SuperADD",
            renamed={
                "encoder_name": "backbone",
                "blocks": "layers",
                "window_size": "patch_size",
                "window_overlap": "patch_overlap",
            },
        ),
        inputs=InputConstraints(multiple=16),
        training=TrainingDefaults(source="anomalib"),
        weights=(_ENCODER,),
    ),
    ModelEntry(
        parameters=blocks.FoundAdParameters,
        anomalib=AnomalibClass("FoundAD", renamed={"learning_rate": "lr"}),
        inputs=InputConstraints(multiple=14),
        training=TrainingDefaults(
            source="2,000 epochs, batch 8: the authors' code, for one to four images", epochs=2_000, batch_size=8
        ),
        loop=TrainingLoop(single_device_reason="one draw decides whether the images of a step are spoilt"),
        weights=(_ENCODER,),
    ),
    ModelEntry(
        parameters=blocks.MhPatchcoreParameters,
        anomalib=AnomalibClass("MHPatchcore"),
        training=TrainingDefaults(source="anomalib"),
        loop=TrainingLoop(passes=3),
        exports=ExportSupport(formats=("onnx", "torchscript"), float16=False),
        weights=(_BACKBONE,),
    ),
    ModelEntry(
        parameters=blocks.DsrParameters,
        anomalib=AnomalibClass("Dsr", late_loader="on_train_start"),
        inputs=InputConstraints(normalization="none"),
        training=TrainingDefaults(source="100 epochs, batch 8: the authors' code", epochs=100, batch_size=8),
        loop=TrainingLoop(manual_optimization=True, single_device_reason=_OWN_STEPS),
        weights=(WeightSource("file", QUANTISER),),
    ),
    ModelEntry(
        parameters=blocks.AnomalyVfmParameters,
        anomalib=AnomalibClass("AnomalyVFM"),
        inputs=InputConstraints(normalization="none", multiple=16),
        training=TrainingDefaults(source="anomalib"),
        weights=(
            WeightSource("hub", "MaticFuc/anomalyvfm_radio", revision="17654e763c8fae5ae1c44e2ec421a427783d6196"),
        ),
    ),
)
CATALOG: Mapping[ModelName, ModelEntry] = {entry.name: entry for entry in _ENTRIES}


def input_normalization(spec: ExperimentSpec) -> Literal["imagenet", "none"]:
    """The normalisation of pixel values for the model.

    Raises:
        InvalidConfig: the manifest asks for a normalisation that the model cannot use.
    """
    asked, needed = spec.transforms.normalization, CATALOG[spec.model.name].inputs.normalization
    if asked and needed and asked != needed:
        wanted = "images of 0..1" if needed == "none" else "normalised images"
        raise InvalidConfig(
            f"{spec.model.name} wants {wanted}: set transforms.normalization: {needed}, or leave it out"
        )
    return asked or needed or "imagenet"
