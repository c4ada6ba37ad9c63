"""Trainings on the GPU: stopped and resumed, and shared by several."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from support.device_runs import Finished, finished, whole_and_resumed
from support.textures import write_textures
from support.worker import Worker

RESUMED = 1e-3
"""How far a resumed training may be from an uninterrupted one on a GPU, as a share of the largest score. Kernels that
add by atomics do so in any order, and every step enlarges the rounding; other images in other steps come to 1e-2."""
SEVERAL = 1e-3
"""The same for several devices, whose gradients are added in another order, for the same reason."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_textures(tmp_path / "data/textures", train=10)
    return tmp_path


def apart(first: Finished, second: Finished) -> float:
    """Largest difference of the image scores, as a share of the largest."""
    return float(np.abs(first.scores - second.scores).max() / np.abs(first.scores).max())


@pytest.mark.parametrize(
    ("deterministic", "allowed"),
    [pytest.param(True, 0, marks=pytest.mark.also_on_cpu), (False, RESUMED)],
    ids=["deterministic", "default"],
)
def test_a_stopped_training_ends_as_one_that_was_not_stopped(
    folder: Path, worker: Worker, measured: Callable[[str], None], deterministic: bool, allowed: float
) -> None:
    training = {"maxEpochs": 4, "trainBatchSize": 4, "deterministic": deterministic}
    whole, resumed = worker.call(whole_and_resumed, folder, training, batches=8)
    assert whole.training.resumed_from_step is None
    assert resumed.training.resumed_from_step == 6
    assert resumed.training.steps == whole.training.steps
    kind = "deterministic" if deterministic else "by default"
    measured(f"stopped and resumed, {kind}: scores differ by {apart(whole, resumed):.1e} of the largest")
    assert apart(whole, resumed) <= allowed


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_as_one(folder: Path, worker: Worker, measured: Callable[[str], None]) -> None:
    training = {"maxEpochs": 3, "trainBatchSize": 4}
    one = worker.call(finished, folder, training)
    two = worker.call(finished, folder, training | {"devices": 2}, scheduling={"gpus": {"count": 2}})
    assert two.training.devices == 2
    measured(f"two GPUs: scores differ by {apart(one, two):.1e} of the largest from one")
    assert apart(one, two) <= SEVERAL
