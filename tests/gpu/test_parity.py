"""Every model trained on the GPU: the CPU, and each export on either, gives the scores of the GPU, image by image.

An experiment of a few small images with random weights runs on the GPU from its manifest to its exports, which the run
itself compares with torch; the state that it keeps is then scored on the CPU and on the GPU.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_api.model import ModelName
from anomaly_runner.exporting.compare import TOLERANCES
from hack.demo.auxiliary import write_auxiliary_weights
from support.backbones import write_efficientnet_b5
from support.device_forms import RUN, DeviceForms, forms_on
from support.model_rows import ROWS
from support.textures import texture, write_textures
from support.worker import Worker

TOLERANCE = TOLERANCES["float32"]
"""Largest difference, as a share of the largest score, of every model: that of an export from torch, for the same
reason. Both add up the same products in another order, which changes a score by about 1e-6 of itself; another operator,
or TF32 in place of float32, changes it by 1e-3 and more."""
ALSO_ON_CPU = ("padim", "patchcore", "fastflow")
Forms = Callable[[ModelName], DeviceForms]


def cases() -> Iterator[Any]:
    """A parameter for each model, marked by whether it is among those that try the room without a GPU."""
    for name, row in ROWS.items():
        marks = [pytest.mark.also_on_cpu] if name in ALSO_ON_CPU else []
        if row.no_exports_because and name not in ALSO_ON_CPU:
            marks.append(pytest.mark.skip(reason=f"{name}: {row.no_exports_because}"))
        yield pytest.param(name, marks=marks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    write_textures(made / "data/textures")
    write_textures(made / "data/few", train=3, good=2, defects=1)
    write_auxiliary_weights(made / "weights")
    pictures = [
        np.asarray(texture(index).resize((128, 128), Image.Resampling.BICUBIC), np.float32) for index in range(4)
    ]
    write_efficientnet_b5(made / "weights", torch.from_numpy(np.stack(pictures) / 255).permute(0, 3, 1, 2))
    return made


@pytest.fixture(scope="module")
def forms(folder: Path, worker: Worker, device: torch.device) -> Forms:
    """Trains a model once, for all of its tests, also where that fails."""
    done: dict[str, DeviceForms] = {}
    tried: set[str] = set()

    def forms_of(name: ModelName) -> DeviceForms:
        if name in tried and name not in done:
            pytest.fail(f"{name} failed in the test before")
        tried.add(name)
        if name not in done:
            done[name] = worker.call(forms_on, folder, name, device)
        return done[name]

    return forms_of


@pytest.mark.parametrize("name", tuple(cases()))
def test_the_cpu_gives_the_scores_of_the_gpu(
    forms: Forms, name: ModelName, device: torch.device, measured: Callable[[str], None]
) -> None:
    found = forms(name)
    assert found.trained_on == f"torch {device.type}"
    assert found.distinct > 1
    check(name, found, measured, *(way for way in (RUN, "torch on cpu") if way in found.apart))


@pytest.mark.parametrize("name", tuple(cases()))
def test_exports_of_a_model_on_the_gpu_give_its_scores_on_both_devices(
    forms: Forms, name: ModelName, measured: Callable[[str], None]
) -> None:
    found = forms(name)
    check(name, found, measured, *(way for way in found.apart if way not in (RUN, "torch on cpu")))


def check(name: str, found: DeviceForms, measured: Callable[[str], None], *ways: str) -> None:
    """Keep how far others are from torch on the device, and compare it with the tolerance."""
    assert ways
    for way in ways:
        apart = found.apart[way]
        pixels = "" if apart.pixel is None else f", pixels by {apart.pixel:.1e}"
        by = f"{way} ({found.onnx_provider})" if way.startswith("onnx as") else way
        measured(f"{name}, {by}: images differ by {apart.image:.1e} of the largest{pixels}")
        assert apart.image <= TOLERANCE, way
        assert apart.pixel is None or apart.pixel <= TOLERANCE, way
