"""Parameters of each model: those of anomalib 2.7 in Kubernetes spelling, with the defaults of the papers cited.

There is one block per model, and the blocks alone define which models exist: ``Model`` has a field for each block,
``ModelName`` its name, and the rules follow from its ``learning`` and ``takes_tiles``. The CRD has them in the order of
this file.

What other blocks of the spec set is not here: the input size is ``transforms.inputSize``, epochs and batch sizes are
those of ``training``, auxiliary images and weights come from ``model.weights``.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from anomaly_api.base import Contract
from anomaly_api.primitives import Fraction, Text

Layers = Annotated[tuple[Text, ...], Field(min_length=1, max_length=8)]
LearningRate = Annotated[float, Field(gt=0, le=10)]
Weight = Annotated[float, Field(ge=0, le=10_000)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Blocks = Annotated[tuple[Annotated[int, Field(ge=0, le=63)], ...], Field(min_length=1, max_length=8)]

Learning = Literal["onePass", "gradient", "zeroShot"]
"""How a model uses the training images: it sees each once (or a few times), trains on them by gradient, or needs none
(or a few, as references)."""
_SUFFIX = "Parameters"


class ModelParameters(Contract):
    """The parameters of one model, which is named after the class: InpFormerParameters belongs to inpFormer.

    The docstring of a block begins with the model's display name and a colon.

    Raises:
        TypeError: the class is not named after a model.
    """

    name: ClassVar[str]
    """The model, as manifests name it."""
    learning: ClassVar[Learning] = "gradient"
    takes_tiles: ClassVar[bool] = False
    """Whether the model can work on tiles of an image, which requires features that can be joined."""
    field_description: ClassVar[str] = ""
    """Description of the field of ``Model`` that holds the block; empty for one made from the title."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        model = cls.__name__.removesuffix(_SUFFIX)
        if model in ("", cls.__name__):
            raise TypeError(f"{cls.__name__}: a block of parameters is named after its model, as in Padim{_SUFFIX}")
        cls.name = model[0].lower() + model[1:]

    @classmethod
    def title(cls) -> str:
        """Return the model's display name, such as CFLOW-AD."""
        return (cls.__doc__ or cls.name).partition(":")[0]


class PadimParameters(ModelParameters):
    """PaDiM: a Gaussian per patch position over features of a frozen backbone (Defard et al., ICPR 2020)."""

    learning = "onePass"
    takes_tiles = True

    backbone: Text = "resnet18"
    """Name of a timm model."""
    layers: Layers = ("layer1", "layer2", "layer3")
    """Feature layers of the backbone, as timm's feature_info names them (tf_efficientnet_lite0: blocks.0 ...)."""
    pre_trained: bool = True
    """Load ImageNet weights; false gives random weights (for tests)."""
    n_features: Annotated[int, Field(ge=1, le=2048)] | None = None
    """Channels kept, drawn by the run's seed; unset means 100 for resnet18, 550 for wide_resnet50_2, else all
    up to 100."""


class PatchcoreParameters(ModelParameters):
    """PatchCore: nearest neighbours in a coreset of patch features (Roth et al., CVPR 2022)."""

    learning = "onePass"
    takes_tiles = True

    backbone: Text = "wide_resnet50_2"
    """Name of a timm model."""
    layers: Layers = ("layer2", "layer3")
    """Feature layers of the backbone."""
    pre_trained: bool = True
    """Load ImageNet weights; false gives random weights (for tests)."""
    coreset_sampling_ratio: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the training patches kept in the memory bank."""
    coreset: Literal["Auto", "Exact", "Chunked"] = "Auto"
    """How that share is picked: from all patches at once (Exact), or from chunks of them, in bounded memory and in a
    time that grows no faster than the images (Chunked). Auto is Exact where that fits into memory, else Chunked, with
    a warning. Chunks have 262,144 patches; where memory is short half of that, a quarter, down to 16,384, also with a
    warning, since other chunks keep other patches."""
    num_neighbors: Annotated[int, Field(ge=1, le=64)] = 9
    """Neighbours used to weight the image score."""


class CfaParameters(ModelParameters):
    """CFA: coupled-hypersphere feature adaptation (Lee et al., IEEE Access 2022)."""

    backbone: Literal["vgg19_bn", "resnet18", "wide_resnet50_2"] = "wide_resnet50_2"
    """torchvision model, with its ImageNet weights."""
    gamma_c: Count = 1
    """Channels of the descriptors are divided by this."""
    gamma_d: Count = 1
    """Centroids: patch positions divided by this."""
    num_nearest_neighbors: Annotated[int, Field(ge=1, le=64)] = 3
    """Centroids that attract a patch."""
    num_hard_negative_features: Annotated[int, Field(ge=1, le=64)] = 3
    """Centroids that repel a patch."""
    radius: Annotated[float, Field(gt=0)] = 1e-5
    """Radius of the hyperspheres at the start."""


class CflowParameters(ModelParameters):
    """CFLOW-AD: conditional normalising flows over features of a frozen backbone (Gudovskiy et al., WACV 2022)."""

    field_description = "Parameters of CFLOW."

    backbone: Text = "wide_resnet50_2"
    """Name of a timm model."""
    layers: Layers = ("layer2", "layer3", "layer4")
    """Feature layers of the backbone."""
    pre_trained: bool = True
    """Load ImageNet weights; false gives random weights (for tests)."""
    fiber_batch_size: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Patches per step of a decoder."""
    condition_vector: Annotated[int, Field(ge=4, le=1024, multiple_of=4)] = 128
    """Length of the positional encoding."""
    coupling_blocks: Annotated[int, Field(ge=1, le=64)] = 8
    """Coupling blocks of each flow."""
    clamp_alpha: Annotated[float, Field(gt=0, le=10)] = 1.9
    """Bound of the log-scale in a block."""
    permute_soft: bool = False
    """Soft permutations between blocks."""
    learning_rate: LearningRate = 1e-4
    """Adam's learning rate."""


class CsflowParameters(ModelParameters):
    """CS-Flow: fully convolutional cross-scale flows over EfficientNet-B5 (Rudolph et al., WACV 2022)."""

    cross_conv_hidden_channels: Annotated[int, Field(ge=1, le=4096)] = 1024
    """Hidden channels of the subnetworks."""
    n_coupling_blocks: Annotated[int, Field(ge=1, le=64)] = 4
    """Coupling blocks."""
    clamp: Annotated[float, Field(gt=0, le=10)] = 3
    """Bound of the log-scale in a block."""


class DfkdeParameters(ModelParameters):
    """DFKDE: kernel density of deep features, after PCA; image scores only (anomalib)."""

    learning = "onePass"

    backbone: Text = "resnet18"
    """Name of a timm model."""
    layers: Layers = ("layer4",)
    """Feature layers of the backbone."""
    pre_trained: bool = True
    """Load ImageNet weights; false gives random weights (for tests)."""
    n_pca_components: Annotated[int, Field(ge=1, le=2048)] = 16
    """Principal components kept."""
    feature_scaling_method: Literal["norm", "scale"] = "scale"
    """How features are scaled: to unit length, or by their largest length."""
    max_training_points: Count = 40_000
    """Training images kept."""


class DfmParameters(ModelParameters):
    """DFM: reconstruction error of deep features after PCA (Ahuja et al., arXiv:1909.11786, 2019).

    Its other score, the likelihood, is not offered: anomalib 2.7 fails when it is fitted.
    """

    learning = "onePass"

    backbone: Text = "resnet50"
    """Name of a timm model."""
    layer: Text = "layer3"
    """Feature layer of the backbone."""
    pre_trained: bool = True
    """Load ImageNet weights; false gives random weights (for tests)."""
    pooling_kernel_size: Annotated[int, Field(ge=1, le=64)] = 4
    """Average pooling of the features."""
    pca_level: Annotated[float, Field(gt=0, le=1)] = 0.97
    """Share of the variance that the principal components keep."""


class DraemParameters(ModelParameters):
    """DRAEM: reconstruction and segmentation of simulated defects (Zavrtanik et al., ICCV 2021)."""

    enable_sspcab: bool = False
    """Add the self-supervised predictive convolutional block (Ristea et al., CVPR 2022)."""
    sspcab_lambda: Weight = 0.1
    """Weight of its loss."""
    opacity_low: Fraction = 0.1
    """Smallest opacity of the simulated defects."""
    opacity_high: Fraction = 1.0
    """Largest opacity of the simulated defects."""


class EfficientadParameters(ModelParameters):
    """EfficientAD: a student that imitates a small teacher, and an autoencoder (Batzner et al., WACV 2024)."""

    model_size: Literal["small", "medium"] = "small"
    """Size of student and teacher."""
    teacher_out_channels: Annotated[int, Field(ge=1, le=2048)] = 384
    """Channels of the teacher's features; the published teachers have 384."""
    learning_rate: LearningRate = 1e-4
    """Adam's learning rate."""
    weight_decay: Weight = 1e-5
    """Adam's weight decay."""
    padding: bool = False
    """Pad inside the networks."""
    pad_maps: bool = True
    """Pad the maps where padding is off."""


class FastflowParameters(ModelParameters):
    """FastFlow: 2D normalising flows over features of a frozen backbone (Yu et al., arXiv:2111.07677, 2021)."""

    backbone: Literal["resnet18", "wide_resnet50_2", "cait_m48_448", "deit_base_distilled_patch16_384"] = "resnet18"
    """Name of a timm model."""
    pre_trained: bool = True
    """Load ImageNet weights; false gives random weights (for tests)."""
    flow_steps: Annotated[int, Field(ge=1, le=64)] = 8
    """Steps of each flow."""
    conv3x3_only: bool = False
    """Only 3 x 3 convolutions in the subnetworks, instead of 3 x 3 and 1 x 1 in turn."""
    hidden_ratio: Annotated[float, Field(gt=0, le=16)] = 1.0
    """Hidden channels of the subnetworks, as a share of their input."""


class FreParameters(ModelParameters):
    """FRE: a linear autoencoder of deep features (Ndiour et al., BMVC 2023)."""

    backbone: Text = "resnet50"
    """Name of a timm model."""
    layer: Text = "layer3"
    """Feature layer of the backbone."""
    pre_trained: bool = True
    """Load ImageNet weights; false gives random weights (for tests)."""
    pooling_kernel_size: Annotated[int, Field(ge=1, le=64)] = 2
    """Average pooling of the features."""
    latent_dim: Annotated[int, Field(ge=1, le=8192)] = 220
    """Size of the reduced features."""


class GanomalyParameters(ModelParameters):
    """GANomaly: distance of an image's code and that of its reconstruction (Akcay et al., ACCV 2018)."""

    n_features: Annotated[int, Field(ge=1, le=1024)] = 64
    """Feature maps of the first layer."""
    latent_vec_size: Annotated[int, Field(ge=1, le=4096)] = 100
    """Length of the code."""
    extra_layers: Annotated[int, Field(ge=0, le=16)] = 0
    """Further layers in encoder and decoder."""
    add_final_conv_layer: bool = True
    """A final convolution."""
    adversarial_weight: Weight = 1
    """Weight of the adversarial loss."""
    contextual_weight: Weight = 50
    """Weight of the image's reconstruction loss."""
    encoder_weight: Weight = 1
    """Weight of the code's reconstruction loss."""
    learning_rate: LearningRate = 2e-4
    """Adam's learning rate."""
    beta1: Fraction = 0.5
    """Adam's decay rate of the first moment."""
    beta2: Fraction = 0.999
    """Adam's decay rate of the second moment."""


class ReverseDistillationParameters(ModelParameters):
    """Reverse distillation: a decoder that restores a teacher's features (Deng and Li, CVPR 2022)."""

    takes_tiles = True
    field_description = "Parameters of reverse distillation."

    backbone: Text = "wide_resnet50_2"
    """A ResNet of timm; its decoder mirrors it."""
    layers: Layers = ("layer1", "layer2", "layer3")
    """Feature layers of the backbone."""
    anomaly_map_mode: Literal["add", "multiply"] = "add"
    """How the layers' maps are joined."""
    pre_trained: bool = True
    """Load ImageNet weights; false gives random weights (for tests)."""


class StfpmParameters(ModelParameters):
    """STFPM: a student that imitates a teacher's feature pyramid (Wang et al., BMVC 2021)."""

    takes_tiles = True

    backbone: Text = "resnet18"
    """Name of a timm model; the teacher has its ImageNet weights."""
    layers: Layers = ("layer1", "layer2", "layer3")
    """Feature layers of the backbone."""


class SupersimplenetParameters(ModelParameters):
    """SuperSimpleNet: simulated defects in feature space (Rolih et al., ICPR 2024), trained on good images alone."""

    perlin_threshold: Fraction = 0.2
    """Threshold of the noise that shapes simulated defects."""
    backbone: Text = "wide_resnet50_2.tv_in1k"
    """Name of a timm model, with its ImageNet weights."""
    layers: Layers = ("layer2", "layer3")
    """Feature layers of the backbone."""
    adapt_cls_features: bool = False
    """Adapt the features of the classification head too."""


class UflowParameters(ModelParameters):
    """U-Flow: a U-shaped normalising flow (Tailanian et al., JMIV 2024); input size 448 x 448."""

    backbone: Literal["mcait", "resnet18", "wide_resnet50_2"] = "mcait"
    """Feature extractor, with its ImageNet weights."""
    flow_steps: Annotated[int, Field(ge=1, le=64)] = 4
    """Steps of each flow."""
    affine_clamp: Annotated[float, Field(gt=0, le=10)] = 2.0
    """Bound of the log-scale in a block."""
    affine_subnet_channels_ratio: Annotated[float, Field(gt=0, le=16)] = 1.0
    """Hidden channels of the subnetworks, as a share of their input."""
    permute_soft: bool = False
    """Soft permutations between blocks."""


class DinomalyParameters(ModelParameters):
    """Dinomaly: a decoder that restores DINOv2's features (Guo et al., CVPR 2025)."""

    encoder_name: Text = "vit_base_patch14_reg4_dinov2"
    """A DINOv2 vision transformer of timm."""
    bottleneck_dropout: Fraction = 0.2
    """Dropout in the bottleneck."""
    decoder_depth: Annotated[int, Field(ge=2, le=64)] = 8
    """Layers of the decoder."""
    remove_class_token: bool = False
    """Leave the class token out."""
    use_context_recentering: bool = False
    """Subtract the class token from the patch tokens."""


class AnomalydinoParameters(ModelParameters):
    """AnomalyDINO: nearest neighbours of DINOv2 patches (Damm et al., WACV 2025)."""

    learning = "onePass"

    encoder_name: Text = "vit_small_patch14_dinov2"
    """A DINOv2 vision transformer of timm."""
    num_neighbours: Annotated[int, Field(ge=1, le=64)] = 1
    """Neighbours whose distances are averaged."""
    masking: bool = False
    """Leave out the background, found by the first principal component."""
    coreset_subsampling: bool = False
    """Keep a coreset of the patches."""
    sampling_ratio: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share kept, with coresetSubsampling."""


class WinclipParameters(ModelParameters):
    """WinCLIP: CLIP's similarity to words for good and defective, in windows (Jeong et al., CVPR 2023)."""

    learning = "zeroShot"

    class_name: Text | None = None
    """What the images show, in English, such as screw; unset means dataset.category, else object."""
    k_shot: Annotated[int, Field(ge=0, le=64)] = 0
    """Training images used as references; 0 uses none."""
    scales: Annotated[tuple[Annotated[int, Field(ge=1, le=15)], ...], Field(min_length=1, max_length=4)] = (2, 3)
    """Window sizes, in patches."""


class PatchflowParameters(ModelParameters):
    """PatchFlow: one normalising flow over the features of several layers and scales (Zhang et al., arXiv:2602.05238,
    2026)."""

    backbone: Text = "tf_efficientnet_b5"
    """Name of a timm model: a CNN, of which stages 2 to 4 are taken, or a DINOv2 vision transformer."""
    pre_trained: bool = True
    """Load ImageNet weights; false gives random weights (for tests)."""
    flow_steps: Annotated[int, Field(ge=1, le=64)] = 1
    """Coupling blocks of the flow."""
    flow_feature_dim: Annotated[int, Field(ge=2, le=4096)] = 128
    """Channels that the features are brought to before the flow."""
    flow_hidden_dim: Annotated[int, Field(ge=1, le=4096)] = 128
    """Hidden channels of the subnetworks."""
    num_scales: Annotated[int, Field(ge=1, le=4)] = 3
    """Sizes at which the backbone sees an image, each half of the one before."""
    patch_size: Annotated[int, Field(ge=1, le=15)] = 3
    """Side of the neighbourhood whose features are averaged."""
    learning_rate: LearningRate = 1e-3
    """Adam's learning rate."""
    weight_decay: Weight = 1e-4
    """Adam's weight decay."""


class InpFormerParameters(ModelParameters):
    """INP-Former: a decoder that restores DINOv2's features from prototypes of the image itself (Luo et al., CVPR
    2025)."""

    encoder_name: Text = "vit_base_patch14_reg4_dinov2"
    """A DINOv2 vision transformer of timm: small, base or large."""
    inp_num: Annotated[int, Field(ge=1, le=64)] = 6
    """Prototypes of an image."""
    remove_class_token: bool = True
    """Leave the class token out."""


class UninetParameters(ModelParameters):
    """UniNet: a student that restores the features of two teachers, contrastively (Wei et al., CVPR 2025), trained on
    good images alone."""

    student_backbone: Literal["resnet50", "wide_resnet50_2"] = "wide_resnet50_2"
    """The ResNet that the student mirrors."""
    teacher_backbone: Literal["resnet50", "wide_resnet50_2"] = "wide_resnet50_2"
    """torchvision model of both teachers, with its ImageNet weights; one of them is trained too."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 0.1
    """Divides the similarities in the contrastive loss."""


class GlassParameters(ModelParameters):
    """GLASS: a discriminator of features, taught by defects simulated in images and, by gradient ascent, in features
    (Chen et al., ECCV 2024)."""

    backbone: Text = "wide_resnet50_2"
    """Name of a timm model, with its ImageNet weights."""
    layers: Layers = ("layer2", "layer3")
    """Feature layers of the backbone."""
    pretrain_embed_dim: Annotated[int, Field(ge=1, le=8192)] = 1536
    """Length that each layer's features of a patch are pooled to."""
    target_embed_dim: Annotated[int, Field(ge=1, le=8192)] = 1536
    """Length that the features of all layers together are pooled to."""
    patch_size: Literal[1, 3, 5, 7, 9] = 3
    """Side of the neighbourhood of a patch."""
    pre_projection: Annotated[int, Field(ge=0, le=8)] = 1
    """Linear layers that adapt the features."""
    discriminator_layers: Annotated[int, Field(ge=2, le=8)] = 2
    """Layers of the discriminator."""
    discriminator_hidden: Annotated[int, Field(ge=1, le=8192)] = 1024
    """Hidden width of the discriminator."""
    learning_rate: LearningRate = 1e-4
    """Adam's learning rate for the adaptation; the discriminator has twice that."""
    ascent_steps: Annotated[int, Field(ge=1, le=1000)] = 20
    """Steps of gradient ascent from noisy features to simulated ones."""
    hypersphere: bool = False
    """Simulated features keep away from the centre of the good ones (for products that all look alike), instead of
    from each good one."""
    gaussian_noise_std: Annotated[float, Field(gt=0, le=10)] = 0.015
    """Standard deviation of the noise that the ascent begins with."""
    radius_quantile: Fraction = 0.75
    """Quantile of the distances to the centre that is the hypersphere's radius."""
    focal_loss_quantile_threshold: Fraction = 0.5
    """Share of the easiest patches left out of the focal loss."""
    mining: bool = True
    """Do the gradient ascent."""


class L2btParameters(ModelParameters):
    """L2BT: two students that map a layer of DINOv2 to another and back (Costanzino et al., IEEE Access 2025)."""

    layers: Annotated[tuple[Annotated[int, Field(ge=0, le=11)], ...], Field(min_length=2, max_length=2)] = (7, 11)
    """The two blocks of vit_base_patch14_reg4_dinov2, counted from 0."""
    topk_ratio: Annotated[float, Field(gt=0, le=1)] = 0.001
    """Share of the map, its largest values, whose mean is the image score."""
    learning_rate: LearningRate = 1e-4
    """Adam's learning rate."""


class GeneralAdParameters(ModelParameters):
    """GeneralAD: a discriminator of a vision transformer's patches, taught by distorted features (Strater et al., ECCV
    2024)."""

    encoder_name: Text = "vit_large_patch14_dinov2.lvd142m"
    """A vision transformer of timm with patches of 14 pixels, whose name begins with vit or eva."""
    pre_trained: bool = True
    """Load pretrained weights; false gives random weights (for tests)."""
    blocks: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1, max_length=8)] = (24,)
    """Blocks whose features are used, counted from 1."""
    hidden_dim: Annotated[int, Field(ge=1, le=8192)] = 2048
    """Hidden width of the discriminator."""
    dsc_layers: Annotated[int, Field(ge=1, le=16)] = 1
    """Attention blocks of the discriminator."""
    dsc_heads: Annotated[int, Field(ge=1, le=64)] = 4
    """Heads of each attention block."""
    dsc_dropout: Fraction = 0.1
    """Dropout of the attention blocks."""
    noise_std: Annotated[float, Field(gt=0, le=10)] = 0.25
    """Standard deviation of the noise that distorts features."""
    fake_feature_type: Literal[
        "random",
        "attn",
        "copy_out",
        "shuffle",
        "randshuffle",
        "copy_out_and_random",
        "copy_out_and_attn",
        "shuffle_and_random",
        "shuffle_and_attn",
        "randshuffle_and_random",
        "randshuffle_and_attn",
    ] = "random"
    """How features are distorted: noise on random or attended patches, patches copied, patches shuffled."""
    num_fake_patches: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Patches of an image that are copied or shuffled, at most; unset means all."""
    top_k: Annotated[int, Field(ge=1, le=65_536)] = 10
    """Patches, the most anomalous ones, whose mean is the image score."""
    learning_rate: LearningRate = 5e-4
    """AdamW's learning rate at the start."""
    lr_decay_factor: Fraction = 0.2
    """Learning rate at the end, as a share of that at the start."""
    schedule_epochs: Count = 160
    """Epochs over which the learning rate falls."""
    weight_decay: Weight = 1e-5
    """AdamW's weight decay."""


class RadParameters(ModelParameters):
    """RAD: patches of the most similar training images, at about the same place (arXiv:2601.22763, 2026)."""

    learning = "onePass"

    encoder_name: Text = "vit_base_patch16_dinov3"
    """A vision transformer of timm."""
    pre_trained: bool = True
    """Load pretrained weights; false gives random weights (for tests)."""
    blocks: Blocks = (3, 6, 9, 11)
    """Blocks whose features are used, counted from 0."""
    layer_weights: Annotated[tuple[Weight, ...], Field(min_length=1, max_length=8)] | None = None
    """Weight of each block's distances; unset means equal weights."""
    k_image: Annotated[int, Field(ge=1, le=1_000_000)] = 150
    """Training images that an image is compared with, the most similar ones."""
    use_positional_bank: bool = True
    """Compare patches only with those at about the same place."""
    pos_radius: Annotated[int, Field(ge=0, le=16)] = 1
    """Largest distance between the places of compared patches, in patches."""
    max_ratio: Fraction = 0.01
    """Share of the map's pixels, the highest ones, whose mean is the image score; 0 takes only the highest one."""


class SuperAddParameters(ModelParameters):
    """SuperADD: nearest neighbours of DINOv3 features, taken from overlapping windows of large images."""

    learning = "onePass"

    encoder_name: Text = "vit_huge_plus_patch16_dinov3"
    """A DINOv3 vision transformer of timm, with its weights."""
    blocks: Blocks | None = None
    """Blocks whose features are used, counted from 0; unset means those for the encoder's size."""
    window_size: Annotated[int, Field(ge=16, le=4096)] = 448
    """Side of the windows in pixels: a multiple of the transformer's patches, no larger than the image."""
    window_overlap: Annotated[int, Field(ge=1, le=2048)] = 16
    """Overlap of the windows in pixels: a multiple of the transformer's patches, less than half of windowSize."""
    gaussian_blur_sigma: Annotated[float, Field(ge=0, le=64)] = 4.0
    """Smoothing of the map, in pixels; 0 leaves it as it is."""
    score_quantile: Annotated[float, Field(gt=0, le=1)] = 0.001
    """Share of the map's pixels, the highest ones, whose mean is the image score."""


class FoundAdParameters(ModelParameters):
    """FoundAD: projects features of a frozen DINO back onto those of good parts; for few images (Zhai et al., ICLR
    2026)."""

    encoder_name: Literal[
        "vit_small_patch14_dinov2.lvd142m",
        "vit_base_patch14_dinov2.lvd142m",
        "vit_large_patch14_dinov2.lvd142m",
        "vit_small_patch16_dinov3.lvd1689m",
        "vit_base_patch16_dinov3.lvd1689m",
        "vit_large_patch16_dinov3.lvd1689m",
    ] = "vit_base_patch14_dinov2.lvd142m"
    """A DINO vision transformer of timm, with its weights."""
    n_layer: Annotated[int, Field(ge=1, le=24)] = 3
    """Block whose features are used, counted from the end."""
    feat_normed: bool = False
    """Scale features to length 1."""
    pred_depth: Annotated[int, Field(ge=1, le=64)] = 6
    """Blocks of the projector."""
    pred_emb_dim: Annotated[int, Field(ge=16, le=8192)] = 384
    """Width of the projector."""
    dropout: Fraction = 0.2
    """Dropout of the projector's input features."""
    top_k: Annotated[int, Field(ge=1, le=65_536)] = 10
    """Patches, the most anomalous ones, whose mean is the image score."""
    color_jitter: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Strength of the colour jitter on pasted pieces of the simulated defects."""
    use_few_shot_augmentation: bool = True
    """Turn, flip, tint and blur training images."""
    learning_rate: LearningRate = 1e-3
    """AdamW's learning rate."""
    weight_decay: Weight = 1e-4
    """AdamW's weight decay."""


class MhPatchcoreParameters(ModelParameters):
    """MH-PatchCore: PatchCore by Mahalanobis distances in a space of principal components, with a small bank."""

    learning = "onePass"

    backbone: Text = "wide_resnet50_2.tv2_in1k"
    """Name of a timm model."""
    layers: Layers = ("layer2", "layer3")
    """Feature layers of the backbone."""
    pre_trained: bool = True
    """Load ImageNet weights; false gives random weights (for tests)."""
    pca_variance_ratio: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Share of the variance that the principal components keep."""
    covariance_shrinkage: Fraction = 0.07
    """Shrinkage of the covariance towards a multiple of the identity."""
    memory_bank_size: Count = 1000
    """Patches kept in the memory bank."""
    local_coreset_size: Count = 256
    """Patches kept of each block that is merged into it."""
    num_neighbors: Annotated[int, Field(ge=1, le=64)] = 9
    """Neighbours used to weight the image score."""


class DsrParameters(ModelParameters):
    """DSR: restores quantised features that were corrupted, and segments what changed (Zavrtanik et al., ECCV 2022).
    Codes change in jumps, so an export that rounds differently (OpenVINO) may fail its comparison with torch."""

    latent_anomaly_strength: Fraction = 0.2
    """Smallest strength of the simulated anomalies."""
    upsampling_train_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.7
    """Share of the epochs after which the network that sharpens maps is trained instead of the others."""


class AnomalyVfmParameters(ModelParameters):
    """AnomalyVFM: a vision foundation model taught by synthetic anomalies; sees no image of the task. It has
    no parameters."""

    learning = "zeroShot"


BLOCKS: dict[str, type[ModelParameters]] = {block.name: block for block in ModelParameters.__subclasses__()}
"""The block of each model, by its name."""
