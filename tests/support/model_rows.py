"""One row per model: how the tests of all models run it, small and fast, and what it is compared with.

A model without a row fails ``tests/unit/contract/test_models.py``. A row gives the reason for any test it leaves out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from anomaly_api.artifacts import ExportFormat
from anomaly_runner.models.catalog import DTD, IMAGENETTE

RANDOM = {"backbone": "resnet18", "preTrained": False}
PLAIN = {"backbone": "resnet18", "pre_trained": False}
"""``RANDOM`` as anomalib's arguments."""
SHORT = {"maxEpochs": 2, "trainBatchSize": 4, "earlyStopping": {"enabled": False}}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A training compared with plain anomalib under Lightning: our parameters, and the equivalent ones of anomalib."""

    theirs: dict[str, Any] = field(default_factory=dict)
    ours: dict[str, Any] | None = None
    """Our parameters; None for those of the row."""
    variant: str = ""
    """What distinguishes it from the model's first comparison."""
    side: int | None = None
    """Side of the images in pixels; None for that of the row."""
    training: dict[str, Any] = field(default_factory=lambda: {"maxEpochs": 2})
    trainer: dict[str, Any] = field(default_factory=dict)
    """Lightning's arguments that are equivalent to ``training``."""
    crop: dict[str, Any] = field(default_factory=dict)
    """Arguments of anomalib's pre-processor that keep it from cropping."""
    batch: int = 4
    """Images per training step."""
    files: dict[str, str] = field(default_factory=dict)
    """anomalib's arguments that name folders of the weights cache."""


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """How one model is tested, with random instead of pretrained weights."""

    parameters: dict[str, Any] = field(default_factory=dict)
    side: int = 64
    """Side of the images in pixels."""
    training: dict[str, Any] = field(default_factory=dict)
    """``spec.training`` of the run from images to exports."""
    weights_from_cache: bool = False
    """Whether the model loads files of the folder's cache; other weights are initialised in memory."""
    few_images: bool = False
    """Whether it is tested on few images, because it takes seconds for each."""
    usual_exports: tuple[ExportFormat, ...] = ("onnx", "torchscript")
    """Exports that every test run writes; others, which take minutes or gigabytes, are written with ``--rare``."""
    comparisons: tuple[Comparison, ...] = ()
    small_encoder: bool = False
    """Whether its encoder, which takes minutes and gigabytes, is replaced by a small one: ``support.small_encoder``."""
    no_exports_because: str = ""
    """Why it is not run from images to exports; empty if it is."""
    no_comparison_because: str = ""
    """Why it is not compared with anomalib; empty if it is."""

    @property
    def category(self) -> str:
        """Folder of its images below that of the data."""
        return "few" if self.few_images else "textures"


_WRITTEN_OUT = "written out here, over timm: test_models_match_anomalib and test_tiling are its tests"
_NO_TRAINING = "it has no training"

ROWS: dict[str, ModelRow] = {
    "winclip": ModelRow(
        parameters={"scales": [2]},
        side=240,
        few_images=True,
        usual_exports=("torchscript",),
        small_encoder=True,
        no_comparison_because=_NO_TRAINING,
    ),
    "efficientad": ModelRow(
        side=256,
        few_images=True,
        training={"maxSteps": 2},
        weights_from_cache=True,
        comparisons=(Comparison(training={"maxSteps": 2}, batch=1, files={"imagenet_dir": IMAGENETTE}),),
    ),
    "dsr": ModelRow(
        side=128,
        few_images=True,
        training=SHORT | {"maxEpochs": 1},
        weights_from_cache=True,
        no_exports_because="its quantiser's codes jump where its weights are random",
        comparisons=(Comparison(),),
    ),
    "draem": ModelRow(
        few_images=True,
        training=SHORT | {"maxEpochs": 1},
        weights_from_cache=True,
        comparisons=(Comparison(training={"maxEpochs": 1}, files={"dtd_dir": DTD}),),
    ),
    "csflow": ModelRow(
        few_images=True,
        parameters={"crossConvHiddenChannels": 64, "nCouplingBlocks": 2},
        side=128,
        training=SHORT,
        weights_from_cache=True,
        comparisons=(Comparison(theirs={"cross_conv_hidden_channels": 64, "n_coupling_blocks": 2}),),
    ),
    "cfa": ModelRow(
        parameters={"backbone": "resnet18"},
        training=SHORT,
        comparisons=(Comparison(theirs={"backbone": "resnet18"}),),
    ),
    "cflow": ModelRow(
        parameters=RANDOM | {"layers": ["layer1", "layer2"], "couplingBlocks": 2, "fiberBatchSize": 256},
        training=SHORT,
        comparisons=(
            Comparison(theirs=PLAIN | {"layers": ["layer1", "layer2"], "coupling_blocks": 2, "fiber_batch_size": 256}),
        ),
    ),
    "dfkde": ModelRow(
        parameters=RANDOM | {"nPcaComponents": 4},
        comparisons=(Comparison(theirs=PLAIN | {"n_pca_components": 4}, training={}),),
    ),
    "dfm": ModelRow(
        parameters=RANDOM | {"layer": "layer2", "poolingKernelSize": 2},
        comparisons=(Comparison(theirs=PLAIN | {"layer": "layer2", "pooling_kernel_size": 2}, training={}),),
    ),
    "fastflow": ModelRow(
        parameters=RANDOM | {"flowSteps": 2},
        training=SHORT,
        comparisons=(
            Comparison(theirs=PLAIN | {"flow_steps": 2}),
            Comparison(
                variant="bfloat16",
                theirs=PLAIN | {"flow_steps": 2},
                training={
                    "maxEpochs": 4,
                    "precision": "bfloat16",
                    "accumulateGradientBatches": 2,
                    "gradientClipping": {"value": 0.1},
                },
                trainer={"precision": "bf16-mixed", "accumulate_grad_batches": 2, "gradient_clip_val": 0.1},
            ),
        ),
    ),
    "fre": ModelRow(
        parameters=RANDOM | {"layer": "layer2", "latentDim": 20},
        training=SHORT,
        comparisons=(Comparison(theirs=PLAIN | {"layer": "layer2", "latent_dim": 20, "input_dim": 128 * 4 * 4}),),
    ),
    "ganomaly": ModelRow(
        parameters={"nFeatures": 8},
        training=SHORT,
        comparisons=(Comparison(theirs={"n_features": 8, "batch_size": 4}),),
    ),
    "reverseDistillation": ModelRow(parameters=RANDOM, training=SHORT, comparisons=(Comparison(theirs=PLAIN),)),
    "stfpm": ModelRow(training=SHORT, comparisons=(Comparison(),)),
    "supersimplenet": ModelRow(
        parameters={"backbone": "resnet18"},
        side=128,
        training=SHORT,
        comparisons=(Comparison(theirs={"backbone": "resnet18"}),),
    ),
    "dinomaly": ModelRow(
        parameters={"encoderName": "vit_small_patch14_dinov2", "decoderDepth": 8},
        side=56,
        training={"maxSteps": 2},
        comparisons=(
            Comparison(
                ours={"encoderName": "vit_small_patch14_dinov2"},
                theirs={"encoder_name": "vit_small_patch14_dinov2"},
                training={"maxSteps": 3},
                crop={"crop_size": 56},
            ),
        ),
    ),
    "anomalydino": ModelRow(side=56, comparisons=(Comparison(training={}),)),
    "patchflow": ModelRow(
        parameters=RANDOM | {"numScales": 2, "flowFeatureDim": 16, "flowHiddenDim": 8},
        training=SHORT,
        comparisons=(
            Comparison(
                ours=RANDOM | {"numScales": 2, "flowSteps": 2, "flowFeatureDim": 16, "flowHiddenDim": 8},
                theirs=PLAIN | {"num_scales": 2, "flow_steps": 2, "flow_feature_dim": 16, "flow_hidden_dim": 8},
            ),
        ),
    ),
    "inpFormer": ModelRow(
        parameters={"encoderName": "vit_small_patch14_dinov2"},
        side=56,
        training={"maxSteps": 2},
        comparisons=(
            Comparison(
                theirs={"encoder_name": "vit_small_patch14_dinov2"},
                training={"maxSteps": 12},
                crop={"crop_size": 56},
            ),
        ),
    ),
    "uninet": ModelRow(
        parameters={"studentBackbone": "resnet50", "teacherBackbone": "resnet50"},
        training=SHORT,
        comparisons=(
            Comparison(
                theirs={"student_backbone": "resnet50", "teacher_backbone": "resnet50"}, training={"maxEpochs": 1}
            ),
        ),
    ),
    "glass": ModelRow(
        parameters={
            "backbone": "resnet18",
            "pretrainEmbedDim": 384,
            "targetEmbedDim": 384,
            "discriminatorHidden": 64,
        },
        training=SHORT,
        comparisons=(
            Comparison(
                theirs={
                    "backbone": "resnet18",
                    "pretrain_embed_dim": 384,
                    "target_embed_dim": 384,
                    "discriminator_hidden": 64,
                    "input_shape": (64, 64),
                },
                files={"anomaly_source_path": DTD},
            ),
        ),
    ),
    "l2bt": ModelRow(side=56, training=SHORT, comparisons=(Comparison(),)),
    "generalAd": ModelRow(
        parameters={
            "encoderName": "vit_small_patch14_dinov2",
            "preTrained": False,
            "blocks": [12],
            "hiddenDim": 64,
            "topK": 3,
        },
        side=56,
        training=SHORT,
        comparisons=(
            Comparison(
                ours={"encoderName": "vit_small_patch14_dinov2", "blocks": [10, 12], "hiddenDim": 64},
                theirs={"backbone": "vit_small_patch14_dinov2", "layers": [10, 12], "hidden_dim": 64},
            ),
        ),
    ),
    "rad": ModelRow(
        parameters={"encoderName": "vit_tiny_patch16_224", "blocks": [5, 11], "kImage": 5},
        comparisons=(
            Comparison(
                theirs={"backbone": "vit_tiny_patch16_224", "layers": [5, 11], "k_image": 5},
                training={},
                crop={"center_crop_size": (64, 64)},
            ),
        ),
    ),
    "superAdd": ModelRow(
        parameters={
            "encoderName": "vit_small_patch16_dinov3",
            "blocks": [5, 8],
            "windowSize": 64,
            "windowOverlap": 16,
        },
        side=96,
        comparisons=(
            Comparison(
                theirs={
                    "backbone": "vit_small_patch16_dinov3",
                    "layers": [5, 8],
                    "patch_size": 64,
                    "patch_overlap": 16,
                },
                training={},
            ),
        ),
    ),
    "foundAd": ModelRow(
        parameters={"encoderName": "vit_small_patch14_dinov2.lvd142m", "predDepth": 1},
        side=56,
        training=SHORT,
        comparisons=(Comparison(theirs={"encoder_name": "dinov2_vit_small_14", "pred_depth": 1, "image_size": 56}),),
    ),
    "mhPatchcore": ModelRow(
        parameters=RANDOM | {"memoryBankSize": 50, "localCoresetSize": 20},
        comparisons=(
            Comparison(theirs=PLAIN | {"memory_bank_size": 50, "local_coreset_size": 20}, side=224, training={}),
        ),
    ),
    "uflow": ModelRow(
        parameters={"backbone": "resnet18", "flowSteps": 2},
        side=448,
        training=SHORT | {"maxEpochs": 1},
        comparisons=(Comparison(theirs={"backbone": "resnet18", "flow_steps": 2}, training={"maxEpochs": 1}),),
    ),
    "anomalyVfm": ModelRow(side=64, small_encoder=True, no_comparison_because=_NO_TRAINING),
    "padim": ModelRow(
        parameters=RANDOM | {"layers": ["layer1", "layer2"], "nFeatures": 20},
        no_exports_because=_WRITTEN_OUT,
        no_comparison_because=_WRITTEN_OUT,
    ),
    "patchcore": ModelRow(
        parameters=RANDOM | {"layers": ["layer2", "layer3"]},
        no_exports_because=_WRITTEN_OUT,
        no_comparison_because=_WRITTEN_OUT,
    ),
}
"""The slowest first, so that other processes have work left while they run."""


def exported_models() -> list[str]:
    """Return the models that are run from images to exports."""
    return [name for name, row in ROWS.items() if not row.no_exports_because]


def comparisons() -> Iterator[tuple[str, str, Comparison]]:
    """Yield the title, the model and the comparison with all its fields set, of each comparison."""
    for name, row in ROWS.items():
        for case in row.comparisons:
            ours = row.parameters if case.ours is None else case.ours
            title = f"{name}, {case.variant}" if case.variant else name
            yield title, name, replace(case, ours=ours, side=case.side or row.side)
