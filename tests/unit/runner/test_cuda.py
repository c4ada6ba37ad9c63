"""CUDA for onnxruntime: what its driver says, what is told where it is missing, the provider's options."""

import ctypes
from typing import Any

import pytest

from anomaly_runner.scoring import cuda_libraries
from anomaly_runner.scoring.cuda_libraries import DRIVER, driver_problem
from anomaly_runner.scoring.cuda_provider import onnx_gpu_problem, provider_options

SUCCESS, NO_DEVICE = 0, 100
"""CUresult of cuda.h."""
WORDS = "no CUDA-capable device is detected"


class Driver:
    """CUDA's driver on a machine with so many GPUs, as far as it is asked."""

    def __init__(self, gpus: int, init: int = SUCCESS) -> None:
        self._gpus, self._init = gpus, init

    def cuInit(self, _flags: int) -> int:  # noqa: N802
        return self._init

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self._gpus
        return SUCCESS

    def cuGetErrorString(self, _code: int, text: Any) -> int:  # noqa: N802
        text._obj.value = WORDS.encode()
        return SUCCESS


def install(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> None:
    def load(name: str) -> Driver:
        assert name == DRIVER
        return driver

    monkeypatch.setattr(ctypes, "CDLL", load)


def test_a_gpu_that_the_driver_shows_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Driver(gpus=1))
    assert driver_problem() is None


def test_without_a_driver_the_loader_s_own_words_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_libraries, "DRIVER", "libno-such-driver.so.1")
    assert "libno-such-driver.so.1: cannot open shared object file" in (driver_problem() or "")


@pytest.mark.parametrize(
    ("driver", "told"), [(Driver(1, NO_DEVICE), f"{WORDS} (CUDA error {NO_DEVICE})"), (Driver(0), "shows no GPU")]
)
def test_a_driver_that_does_not_start_or_has_no_gpu_is_told(
    monkeypatch: pytest.MonkeyPatch, driver: Driver, told: str
) -> None:
    install(monkeypatch, driver)
    assert (driver_problem() or "").endswith(told)


def test_without_a_driver_no_library_of_cuda_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError("the libraries of CUDA were loaded")

    monkeypatch.setattr(cuda_libraries, "DRIVER", "libno-such-driver.so.1")
    monkeypatch.setattr("anomaly_runner.scoring.cuda_provider.preload_cuda", refuse)
    assert onnx_gpu_problem() == driver_problem()


def test_float32_stays_float32_unless_tf32_is_asked_for() -> None:
    exact, rounded = provider_options(tf32=False), provider_options(tf32=True)
    assert (exact["use_tf32"], rounded["use_tf32"]) == ("0", "1")
    assert {name: value for name, value in exact.items() if rounded[name] != value} == {"use_tf32": "0"}
