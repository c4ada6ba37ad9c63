"""How torch is configured for CPUs and for GPUs. A GPU's settings can be made, and read back, where there is none."""

import os
import subprocess
import sys

import pytest
import torch

from anomaly_runner.models.threads import gpu_arithmetic

_ON_A_GPU = """
import os, sys, torch
import anomaly_runner.models.threads as threads
threads.cpu_limit = lambda: 3
threads.TorchThreads(torch.device("cuda"), tf32="tf32" in sys.argv)
print(torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32,
      torch.backends.cudnn.deterministic, os.environ["CUBLAS_WORKSPACE_CONFIG"])
"""


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [([], ["3", "highest", "False", "True", ":4096:8"]), (["tf32"], ["3", "high", "True", "True", ":4096:8"])],
)
def test_a_process_with_a_gpu_uses_the_cpus_of_its_pod_and_is_exact_unless_told(
    arguments: list[str], printed: list[str]
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-c", _ON_A_GPU, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == printed


@pytest.mark.parametrize(
    ("given", "turns"),
    [
        ({}, "5000"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "0"),
        ({"GOMP_SPINCOUNT": "70"}, "70"),
    ],
    ids=["nothing", "policy", "turns"],
)
def test_threads_that_wait_soon_leave_the_cpus_to_others_unless_told(given: dict[str, str], turns: str) -> None:
    mine = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "-c", "import anomaly_runner, torch"],
        capture_output=True,
        text=True,
        check=True,
        env=mine | {"OMP_DISPLAY_ENV": "VERBOSE"} | given,
    )
    assert f"GOMP_SPINCOUNT = '{turns}'" in done.stderr, "what torch's OpenMP itself says that it does"


def _settings() -> tuple[str, bool, bool]:
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.deterministic,
    )


def test_the_arithmetic_of_a_training_ends_with_it() -> None:
    before = _settings()
    with gpu_arithmetic(tf32=True, deterministic=True):
        assert _settings() == ("high", True, True)
    assert _settings() == before
    with gpu_arithmetic(tf32=False, deterministic=False):
        assert _settings() == ("highest", False, False)
    assert _settings() == before
