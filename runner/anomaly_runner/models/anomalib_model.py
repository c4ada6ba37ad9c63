"""anomalib's models as this runner trains and scores them.

The Lightning module is built from our parameters alone, without anomalib's pre-processor, post-processor, metrics and
pictures: images are prepared, and raw scores evaluated, in one place for all models. A trained model is never restored
by ``load_from_checkpoint``, which would build it anew and download its weights again.
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

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class BuildOptions:
    """What a model is built with, beside its parameters."""

    size: tuple[int, int]
    """Rows and columns of its input."""
    batch_size: int
    """Images of a training step."""
    weights: Path | None
    """Folder with auxiliary images; None where the model will not be trained."""
    subject: str
    """What the images show, in English, such as ``screw``: WinCLIP's class name."""


class AnomalibModel(ScoringModel):
    """A network of anomalib whose outputs have one form, whatever the model.

    Args:
        network: anomalib's torch model, or what ``traceable`` makes of it.
        size: rows and columns of the maps.
        localises: whether it has maps.
        clip: images are 0..1 and are normalised here as CLIP wants them.
    """

    def __init__(self, network: nn.Module, size: tuple[int, int], localises: bool, clip: bool) -> None:
        super().__init__()
        self.network = network
        self.localises = localises
        self.concurrent = not clip  # WinCLIP hands feature maps from layer to layer through itself
        self._size = size
        self._clip = clip

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Raw scores (B,) and maps (B, 1, H, W), or None, of images (B, 3, H, W)."""
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
        """Maps (B, 1, H, W) from (B, h, w) or (B, 1, h, w)."""
        if maps.dim() == 3:
            maps = maps.unsqueeze(1)
        if tuple(maps.shape[-2:]) != self._size:
            maps = nn.functional.interpolate(maps, size=self._size, mode="bilinear", align_corners=False)
        return maps.float()

    @property
    def needs_calibration(self) -> bool:
        """Whether scores are relative to those of some training images."""
        return hasattr(self.network, "calibrate")

    def calibrate(self, images: Tensor) -> None:
        """Relate scores to these training images (B, 3, H, W), where the network needs that; see ``TraceableCflow``."""
        calibrate = getattr(self.network, "calibrate", None)
        if calibrate is not None:
            calibrate(images)


def _normalized_for_clip(images: Tensor) -> Tensor:
    mean, std = (images.new_tensor(values)[:, None, None] for values in (_CLIP_MEAN, _CLIP_STD))
    return (images - mean) / std


def build_module(model: Model, options: BuildOptions) -> Any:
    """anomalib's Lightning module for training.

    Raises:
        WeightsNotFound: pre-trained weights could not be loaded.
        InvalidConfig: parameters that anomalib refuses.
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
    module.hparams.clear()  # classes of anomalib would go into checkpoints, which hold plain data alone
    return module


def _construction(model: Model) -> AnomalibClass:
    """How anomalib's class of the model is constructed."""
    construction = CATALOG[model.name].anomalib
    if construction is None:
        raise ValueError(f"{model.name} is written out here; anomalib's is not used")
    return construction


def _make_reproducible(module: Any) -> None:
    """Make two builds from one seed the same, and the module one that can be copied."""
    for part in module.modules():
        if hasattr(part, "anomaly_source_paths"):  # DRAEM and GLASS pick by index from files in the disk's order
            part.anomaly_source_paths.sort()
        if hasattr(part, "radius"):  # CFA's: no optimiser has it, and with its history it cannot be copied
            part.radius = part.radius.detach()


def _name_damaged_weights(module: Any, model: Model) -> None:
    """Let a module that loads weights when a training begins name them if they are damaged."""
    if (name := _construction(model).late_loader) is not None:
        setattr(module, name, naming_damaged_weights(partial(weight_names, model))(getattr(module, name)))


def _anomalib_class(name: str) -> Any:
    return getattr(import_quietly("anomalib.models"), name)


def import_quietly(module: str) -> Any:
    """A module of anomalib, without warnings about what it imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return importlib.import_module(module)


def _pre_processor_of(size: tuple[int, int]) -> Any:
    """A pre-processor that says the input's size: anomalib's models read it from nowhere else."""
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Resize

    return PreProcessor(transform=Resize(size, antialias=True))


def _arguments(model: Model, construction: AnomalibClass, options: BuildOptions) -> dict[str, Any]:
    """Arguments of the module's constructor: our parameters by its names, and what only some models ask for."""
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
"""Constructor arguments of models that ask for more than their parameters, by the model."""


def scoring_model(model: Model, module: Any, size: tuple[int, int]) -> AnomalibModel:
    """The trained module's network, ready to score images of this many rows and columns."""
    entry, make_traceable = CATALOG[model.name], TRACEABLE.get(model.name)
    network = make_traceable(module.model) if make_traceable else module.model
    return AnomalibModel(network, size, entry.localises, clip=entry.inputs.clip_inside)


@contextmanager
def without_pretrained_weights() -> Iterator[None]:
    """Build networks of timm, torchvision and open_clip with random weights, and download nothing, within this block.

    For a model whose whole state is loaded afterwards: anomalib builds several with their weights, or with the images
    that they train with, and offers no other way.
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
    """In place of torchvision's ``WeightsEnum.get_state_dict``: the state of a network with random weights."""
    import torchvision

    name = type(weights).__name__.removesuffix("_Weights").lower()
    state: Mapping[str, Tensor] = torchvision.models.get_model(name, weights=None).state_dict()
    return state
