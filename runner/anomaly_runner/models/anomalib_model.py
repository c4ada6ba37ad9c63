"""Build anomalib's models for training, and wrap them for scoring.

The Lightning module is built from our parameters only, without anomalib's pre-processor, post-processor, metrics and
pictures: for all models, this runner itself prepares images and evaluates raw scores. A trained model is never restored
by ``load_from_checkpoint``, which would build it again and download its weights again.
"""

import importlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from anomaly_api.model import Model, ModelName
from anomaly_runner.errors import InvalidConfig, WeightsNotFound
from anomaly_runner.models.backbone import Backbone, choose_backbone
from anomaly_runner.models.base import ScoringModel
from anomaly_runner.models.catalog import CATALOG, DTD, IMAGENETTE, AnomalibClass
from anomaly_runner.models.damaged_weights import naming_damaged_weights
from anomaly_runner.models.tiling import Tiles
from anomaly_runner.models.traceable import TRACEABLE
from anomaly_runner.models.weights import weight_names
from anomaly_runner.system.out_of_memory import is_out_of_memory

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class BuildOptions:
    """Options of building a model, besides its parameters."""

    size: tuple[int, int]
    """Rows and columns of its input."""
    batch_size: int
    """Images in a training step."""
    weights: Path | None
    """Folder with auxiliary images; None if the model will not be trained."""
    subject: str
    """English name of the object on the images, such as ``screw``: WinCLIP's class name."""


class AnomalibModel(ScoringModel):
    """A network of anomalib with the same form of outputs for all models.

    Args:
        network: anomalib's torch model, or its wrapper from ``traceable``.
        size: rows and columns of the maps.
        localises: whether the model has maps.
        clip: images have values 0..1, and are normalised here with CLIP's mean and standard deviation.
    """

    def __init__(self, network: nn.Module, size: tuple[int, int], localises: bool, clip: bool) -> None:
        super().__init__()
        self.network = network
        self.localises = localises
        self.concurrent = not clip  # WinCLIP stores feature maps in attributes during its forward pass
        self._size = size
        self._clip = clip

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return raw scores (B,) and maps (B, 1, H, W), or None for the maps, of images (B, 3, H, W)."""
        found = self.network(_normalized_for_clip(images) if self._clip else images)
        maps = None if found.anomaly_map is None or not self.localises else self._full_size(found.anomaly_map)
        if found.pred_score is not None:
            scores = found.pred_score
        elif maps is not None:
            scores = maps.amax((1, 2, 3))
        else:
            raise ValueError("the network answers neither scores nor maps")
        return scores.reshape(-1).float(), maps

    def _full_size(self, maps: Tensor) -> Tensor:
        """Resize maps (B, h, w) or (B, 1, h, w) to (B, 1, H, W), float32."""
        if maps.dim() == 3:
            maps = maps.unsqueeze(1)
        if tuple(maps.shape[-2:]) != self._size:
            maps = nn.functional.interpolate(maps, size=self._size, mode="bilinear", align_corners=False)
        return maps.float()

    @property
    def needs_calibration(self) -> bool:
        """Whether scores are relative to those of training images, so that ``calibrate`` must be called."""
        return hasattr(self.network, "calibrate")

    def calibrate(self, images: Tensor) -> None:
        """Calibrate scores on these training images (B, 3, H, W) if the network needs that; see ``TraceableCflow``."""
        calibrate = getattr(self.network, "calibrate", None)
        if calibrate is not None:
            calibrate(images)


def _normalized_for_clip(images: Tensor) -> Tensor:
    mean, std = (images.new_tensor(values)[:, None, None] for values in (_CLIP_MEAN, _CLIP_STD))
    return (images - mean) / std


def build_module(model: Model, options: BuildOptions) -> Any:
    """Build anomalib's Lightning module for training.

    Raises:
        WeightsNotFound: pre-trained weights could not be loaded.
        InvalidConfig: anomalib refuses the parameters.
    """
    construction = _construction(model)
    arguments = _arguments(model, construction, options)
    try:
        with naming_damaged_weights(partial(weight_names, model)):
            module = _anomalib_class(construction.name)(
                **arguments,
                pre_processor=_pre_processor_of(options.size),
                post_processor=False,
                evaluator=False,
                visualizer=False,
            )
    except (OSError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise WeightsNotFound(
            f"cannot build {model.name} with its pre-trained weights: {error}; for a cluster with no "
            "internet set model.weights"
        ) from error
    except (ValueError, NotImplementedError, KeyError) as error:
        raise InvalidConfig(f"model.{model.name}: {error}") from error
    module.pre_processor = None
    _make_reproducible(module)
    _name_damaged_weights(module, model)
    if model.tiling is not None:
        module.model.tiler = Tiles(options.size, model.tiling)
    module.hparams.clear()  # they would put anomalib's classes into checkpoints, which hold only plain data
    return module


def _construction(model: Model) -> AnomalibClass:
    """The catalog's entry for the constructor of the model's class in anomalib."""
    construction = CATALOG[model.name].anomalib
    if construction is None:
        raise ValueError(f"{model.name} is written out here; anomalib's is not used")
    return construction


def _make_reproducible(module: Any) -> None:
    """Make builds with the same seed identical, and make the module one that can be copied."""
    for part in module.modules():
        if hasattr(part, "anomaly_source_paths"):  # DRAEM and GLASS index these files, which are in the disk's order
            part.anomaly_source_paths.sort()
        if hasattr(part, "radius"):  # CFA's: not optimised, but its autograd history prevents a copy
            part.radius = part.radius.detach()


def _name_damaged_weights(module: Any, model: Model) -> None:
    """Wrap the method that loads weights when a training begins, so that an error names damaged weights."""
    if (name := _construction(model).late_loader) is not None:
        setattr(module, name, naming_damaged_weights(partial(weight_names, model))(getattr(module, name)))


def _anomalib_class(name: str) -> Any:
    return getattr(import_quietly("anomalib.models"), name)


def import_quietly(module: str) -> Any:
    """Import a module of anomalib without the FutureWarnings of its imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return importlib.import_module(module)


def _pre_processor_of(size: tuple[int, int]) -> Any:
    """A pre-processor that holds the input's size: anomalib's models read the size only from there."""
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Resize

    return PreProcessor(transform=Resize(size, antialias=True))


def _arguments(model: Model, construction: AnomalibClass, options: BuildOptions) -> dict[str, Any]:
    """Arguments of the module's constructor: our parameters under anomalib's names, and those of ``COMPLETED``."""
    plain = {
        construction.renamed.get(name, name): list(value) if isinstance(value, tuple) else value
        for name, value in model.parameters.model_dump(exclude_none=True).items()
    }
    completed = COMPLETED.get(model.name)
    return completed(plain, options) if completed else plain


def _draem(plain: dict[str, Any], options: BuildOptions) -> dict[str, Any]:
    low, high = plain.pop("opacity_low"), plain.pop("opacity_high")
    return plain | {"beta": (low, high), "dtd_dir": options.weights and options.weights / DTD}


def _efficientad(plain: dict[str, Any], options: BuildOptions) -> dict[str, Any]:
    return plain | ({"imagenet_dir": options.weights / IMAGENETTE} if options.weights else {})


def _fre(plain: dict[str, Any], options: BuildOptions) -> dict[str, Any]:
    backbone = Backbone(choose_backbone(plain["backbone"], [plain["layer"]]), pre_trained=False)
    [(rows, columns)], pool = backbone.sizes(*options.size), plain["pooling_kernel_size"]
    return plain | {"input_dim": backbone.channels[0] * math.prod((rows // pool, columns // pool))}


def _ganomaly(plain: dict[str, Any], options: BuildOptions) -> dict[str, Any]:
    return plain | {"batch_size": options.batch_size}


def _glass(plain: dict[str, Any], options: BuildOptions) -> dict[str, Any]:
    source = options.weights and str(options.weights / DTD)
    return plain | {"input_shape": options.size, "anomaly_source_path": source}


def _found_ad(plain: dict[str, Any], options: BuildOptions) -> dict[str, Any]:
    from anomalib.models.image.foundad.components.encoder_loader import TIMM_MODEL_NAMES

    [encoder] = [theirs for theirs, timm_name in TIMM_MODEL_NAMES.items() if timm_name == plain["encoder_name"]]
    return plain | {"encoder_name": encoder, "image_size": options.size[0]}


def _winclip(plain: dict[str, Any], options: BuildOptions) -> dict[str, Any]:
    return {"class_name": options.subject} | plain | {"scales": tuple(plain["scales"])}


COMPLETED: Mapping[ModelName, Callable[[dict[str, Any], BuildOptions], dict[str, Any]]] = {
    "draem": _draem,
    "efficientad": _efficientad,
    "fre": _fre,
    "ganomaly": _ganomaly,
    "glass": _glass,
    "winclip": _winclip,
    "foundAd": _found_ad,
}
"""Functions that complete the constructor arguments of models that need more than their parameters, by the model."""


def scoring_model(model: Model, module: Any, size: tuple[int, int]) -> AnomalibModel:
    """Wrap the trained module's network for scoring images of ``size`` (rows, columns)."""
    entry, make_traceable = CATALOG[model.name], TRACEABLE.get(model.name)
    network = make_traceable(module.model) if make_traceable else module.model
    return AnomalibModel(network, size, entry.localises, clip=entry.inputs.clip_inside)


@contextmanager
def without_pretrained_weights() -> Iterator[None]:
    """Build networks of timm, torchvision and open_clip with random weights inside this block, and download nothing.

    For models whose complete state is loaded afterwards: anomalib has no option to build some of its models without
    their pre-trained weights or auxiliary images.
    """
    import open_clip
    import timm
    from torchvision.models._api import WeightsEnum

    draem = import_quietly("anomalib.models.image.draem.lightning_model")
    anomalyvfm = import_quietly("anomalib.models.image.anomalyvfm.torch_model")
    open_clip_model = _with_options(open_clip.create_model_and_transforms, pretrained=None)
    with (
        _patched(timm, "create_model", _with_options(timm.create_model, pretrained=False)),
        _patched(open_clip, "create_model_and_transforms", open_clip_model),
        _patched(WeightsEnum, "get_state_dict", _untrained_state),
        _patched(draem, "download_and_extract", lambda *_: None),
        _patched(anomalyvfm, "hf_hub_download", lambda **_: ""),
        _patched(anomalyvfm, "load_file", lambda _: {}),
        _patched(anomalyvfm.AnomalyVFMModel, "load_state_dict", lambda model, state: None),
    ):
        yield


def _with_options(function: Callable[..., Any], **fixed: Any) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **(options | fixed))

    return call


@contextmanager
def _patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _untrained_state(weights: Any, *args: Any, **options: Any) -> Mapping[str, Tensor]:
    """Replacement of torchvision's ``WeightsEnum.get_state_dict``: the state of a network with random weights."""
    import torchvision

    name = type(weights).__name__.removesuffix("_Weights").lower()
    state: Mapping[str, Tensor] = torchvision.models.get_model(name, weights=None).state_dict()
    return state
