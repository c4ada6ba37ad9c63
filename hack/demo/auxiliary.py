"""What EfficientAD, DSR and DRAEM load beside a backbone, made here: random networks, and pieces of photographs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anomaly_runner.models.catalog import DTD, IMAGENETTE, QUANTISER, TEACHERS

SIDE = 256


def write_auxiliary_weights(cache: Path, pictures: int = 12) -> None:
    """Fill a cache, in the layout of ``model.weights``."""
    write_teacher(cache / TEACHERS / "pretrained_teacher_small.pth")
    write_quantiser(cache / QUANTISER)
    for folder in (DTD, IMAGENETTE):
        write_pictures(cache / folder / "photographs", pictures)


def write_teacher(file: Path) -> None:
    """The small teacher of EfficientAD, with random weights."""
    from anomalib.models.image.efficient_ad.torch_model import SmallPatchDescriptionNetwork

    _write_state(lambda: SmallPatchDescriptionNetwork(out_channels=384, padding=False), file)


def write_quantiser(file: Path) -> None:
    """The quantising autoencoder of DSR, with random weights."""
    from anomalib.models.image.dsr.torch_model import DsrModel

    _write_state(lambda: DsrModel().discrete_latent_model, file)


def _write_state(build: Callable[[], Any], file: Path) -> None:
    import torch

    file.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(build().state_dict(), file)


def write_pictures(folder: Path, count: int) -> None:
    """Pieces of photographs that scikit-image brings."""
    from skimage import data

    folder.mkdir(parents=True)
    for index in range(count):
        whole = getattr(data, ("astronaut", "coffee", "chelsea")[index % 3])()
        top, left = np.random.default_rng(index).integers(0, np.array(whole.shape[:2]) - SIDE)
        Image.fromarray(whole[top : top + SIDE, left : left + SIDE]).save(folder / f"{index}.jpg")
