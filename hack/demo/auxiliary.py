"""Stand-ins for what EfficientAD, DSR and DRAEM load besides a backbone.

Networks get random weights, and data sets of photographs are pieces of those that scikit-image brings.
The tests that use them need no sensible results, and download nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anomaly_runner.models.catalog import DTD, IMAGENETTE, QUANTISER, TEACHERS

SIDE = 256


def write_auxiliary_weights(cache: Path, pictures: int = 12) -> None:
    """Fill a cache in the layout of `model.weights`, with `pictures` pictures in each data set."""
    write_teacher(cache / TEACHERS / "pretrained_teacher_small.pth")
    write_quantiser(cache / QUANTISER)
    for folder in (DTD, IMAGENETTE):
        write_pictures(cache / folder / "photographs", pictures)


def write_teacher(file: Path) -> None:
    """Write the small teacher of EfficientAD, with random weights."""
    _write_state("efficient_ad", lambda found: found.SmallPatchDescriptionNetwork(384, padding=False), file)


def write_quantiser(file: Path) -> None:
    """Write the quantising autoencoder of DSR, with random weights."""
    _write_state("dsr", lambda found: found.DsrModel().discrete_latent_model, file)


def _write_state(model: str, build: Callable[[Any], Any], file: Path) -> None:
    """Write the state dictionary of the network that `build` makes from the module of anomalib's `model`."""
    import torch

    from anomaly_runner.models.anomalib_model import import_quietly

    module = import_quietly(f"anomalib.models.image.{model}.torch_model")
    file.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(build(module).state_dict(), file)


def write_pictures(folder: Path, count: int) -> None:
    """Write `count` square pieces of scikit-image's photographs."""
    from skimage import data

    folder.mkdir(parents=True)
    for index in range(count):
        whole = getattr(data, ("astronaut", "coffee", "chelsea")[index % 3])()
        top, left = np.random.default_rng(index).integers(0, np.array(whole.shape[:2]) - SIDE)
        Image.fromarray(whole[top : top + SIDE, left : left + SIDE]).save(folder / f"{index}.jpg")
