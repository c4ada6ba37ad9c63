"""The device that torch computes on, on a machine without a GPU: what is said, and what a run makes of it."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from anomaly_runner.models import device as module
from anomaly_runner.models.device import choose_device
from anomaly_runner.system.gpu import Gpu

A100 = Gpu(name="NVIDIA A100", compute_capability=(8, 0), memory=40 << 30, driver="580.65.06", cuda=(13, 0))


@pytest.fixture(autouse=True)
def without_gpu() -> Iterator[None]:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU that torch can use")
    choose_device.cache_clear()
    yield
    choose_device.cache_clear()


def test_without_a_driver_the_cpu_works_and_says_why() -> None:
    chosen = choose_device()
    assert chosen.device == torch.device("cpu")
    assert "NVIDIA's driver is not in the container" in str(chosen.problem)


@pytest.mark.parametrize(
    ("gpu", "why"),
    [
        (replace(A100, driver="535.288", cuda=(12, 2)), "driver 535.288 serves CUDA 12.2; this image needs CUDA 13.0"),
        (replace(A100, name="Tesla P100", compute_capability=(6, 0)), "Tesla P100 has compute capability 6.0"),
        (A100, "torch cannot use NVIDIA A100: "),
    ],
    ids=["old driver", "old GPU", "torch's own words"],
)
def test_a_gpu_that_torch_cannot_use_is_explained(gpu: Gpu, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "list_gpus", lambda: (gpu,))
    assert str(choose_device().problem).startswith(why)
