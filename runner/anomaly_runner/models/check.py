"""Check a model before anything is fetched: its backbone and layers, input size, devices and exports."""

import re
from collections.abc import Sequence

from anomaly_api.base import Contract
from anomaly_api.experiment import ExperimentSpec
from anomaly_api.model import Model
from anomaly_api.parameters import SuperAddParameters, SupersimplenetParameters
from anomaly_runner.errors import InvalidConfig
from anomaly_runner.models.backbone import choose_backbone
from anomaly_runner.models.catalog import CATALOG, input_normalization
from anomaly_runner.models.tiling import Tiles

_NOISE_CELLS = 32
"""Largest number of cells along a side of anomalib's Perlin noise.

The noise is drawn at the next power of two above the number of features along a side. That power must be at least this
number, so there must be more than half as many features."""


def check_spec(spec: ExperimentSpec, gpus: int) -> None:
    """Check everything of a spec that depends on the model and the machine alone.

    Args:
        spec: the experiment.
        gpus: number of GPUs that the training's pod sees.

    Raises:
        InvalidConfig: the model, the input size, the devices or the exports cannot be as the spec asks.
    """
    size = spec.transforms.input_size
    input_normalization(spec)
    check_model(spec.model, (size.height, size.width))
    check_devices(spec, gpus)
    check_exports(spec)


def check_model(model: Model, size: tuple[int, int]) -> None:
    """Check the model against what is installed, and the input size against the model.

    Args:
        model: the manifest's model.
        size: rows and columns of the input.

    Raises:
        InvalidConfig: the backbone or a layer is unknown, the model does not accept the input size, or tiles or windows
            do not fit into it.
    """
    entry, parameters = CATALOG[model.name], model.parameters
    if entry.inputs.size and size != entry.inputs.size:
        rows, columns = entry.inputs.size
        raise InvalidConfig(f"{model.name} takes images of {rows} x {columns}: set transforms.inputSize")
    multiple = patches_of(parameters) or entry.inputs.multiple
    if any(side % multiple for side in size):
        raise InvalidConfig(f"{model.name} wants an inputSize of multiples of {multiple}, not {size[0]} x {size[1]}")
    if entry.inputs.square and size[0] != size[1]:
        raise InvalidConfig(f"{model.name} wants a square inputSize, not {size[0]} x {size[1]}")
    if isinstance(parameters, SuperAddParameters):
        _check_windows(parameters, size, multiple)
    backbone, layers = getattr(parameters, "backbone", None), layers_of(parameters)
    if backbone and layers:
        choice = choose_backbone(backbone, layers)
        Tiles(size, model.tiling).check_aligned(choice.reductions)
        if isinstance(parameters, SupersimplenetParameters):
            _check_noise(min(choice.reductions), size)


def _check_noise(reduction: int, size: tuple[int, int]) -> None:
    """Check that SuperSimpleNet's simulated defects, noise of up to 32 cells a side, fit into its features.

    Args:
        reduction: stride of the finest layer in pixels. The noise is drawn at twice that layer's resolution.
        size: rows and columns of the input.

    Raises:
        InvalidConfig: the input is too small.
    """
    smallest = _NOISE_CELLS // 4 * reduction + 1
    if min(size) < smallest:
        raise InvalidConfig(
            f"supersimplenet wants an inputSize of at least {smallest} x {smallest} with these layers: "
            "the defects that it simulates do not fit into fewer features"
        )


def _check_windows(parameters: SuperAddParameters, size: tuple[int, int], multiple: int) -> None:
    """Check that SuperADD's windows consist of whole patches and fit into the image.

    Raises:
        InvalidConfig: they do not.
    """
    side, overlap = parameters.window_size, parameters.window_overlap
    cuts_patches = side % multiple or overlap % multiple
    if cuts_patches or 2 * overlap >= side or side > min(size):
        raise InvalidConfig(
            f"model.superAdd: windowSize {side} and windowOverlap {overlap} must be multiples of "
            f"{multiple}, the overlap less than half a window, and windows no larger than inputSize, "
            f"{size[0]} x {size[1]}"
        )


def check_devices(spec: ExperimentSpec, gpus: int) -> None:
    """Check that the model can be trained on the devices asked for.

    Args:
        spec: the experiment.
        gpus: number of GPUs that the pod sees; without GPUs, each device is a process on the CPUs.

    Raises:
        InvalidConfig: the model trains on one device, batches cannot be split evenly, or the pod has too few GPUs.
    """
    entry, training, name = CATALOG[spec.model.name], spec.training, spec.model.name
    devices, batch = training.devices or 1, training.train_batch_size or entry.training.batch_size
    if devices == 1:
        return
    if not entry.parallel:
        why = entry.loop.single_device_reason or "it sees every training image once"
        raise InvalidConfig(f"training.devices: {name} trains on one device, because {why}; set 1, or leave it out")
    if training.batch_size_finder:
        raise InvalidConfig("training.batchSizeFinder looks at one device; with training.devices set trainBatchSize")
    if batch % devices:
        raise InvalidConfig(
            f"training.trainBatchSize {batch} is the number of images of a step on all devices: make "
            f"it a multiple of training.devices, {devices}"
        )
    if gpus and devices > gpus:
        raise InvalidConfig(
            f"training.devices is {devices}, the pod sees {gpus} GPUs: set scheduling.gpus.count to "
            f"{devices}, or training.devices to {gpus}"
        )


def check_exports(spec: ExperimentSpec) -> None:
    """Check that the model supports the formats and the precision of the exports.

    Raises:
        InvalidConfig: it does not; the message lists the supported formats.
    """
    entry = CATALOG[spec.model.name]
    if missing := set(spec.export.types) - set(entry.exports.formats):
        raise InvalidConfig(
            f"export.types: {spec.model.name} cannot be written as {', '.join(sorted(missing))}; "
            f"there is {', '.join(entry.exports.formats)}"
        )
    if spec.export.types and spec.export.precision == "float16" and not entry.exports.float16:
        raise InvalidConfig(f"export.precision: {spec.model.name} has numbers that float16 cannot hold; set float32")


def layers_of(parameters: Contract) -> Sequence[str]:
    """The feature layers of a model's backbone; empty if its parameters name none."""
    layers: Sequence[str] = getattr(parameters, "layers", ()) or ()
    layer: str | None = getattr(parameters, "layer", None)
    return (layer,) if layer else layers


def patches_of(parameters: Contract) -> int | None:
    """Patch size of a vision transformer in pixels, from its name (16 for vit_base_patch16_dinov3), if that has one."""
    found = re.search(r"patch(\d+)", getattr(parameters, "encoder_name", ""))
    return int(found[1]) if found else None
