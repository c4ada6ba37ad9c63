"""A GPU that is full, or absent: what CUDA and its libraries then say ends a run by the right reason."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from anomaly_api.reasons import ExitCode, Reason
from support.device_runs import (
    MEBIBYTE,
    code_of_a_run_on_a_full_gpu,
    estimated_and_taken,
    first_product_on_a_full_gpu,
    found_batch_size,
    pod_config,
)
from support.textures import write_textures
from support.worker import Worker

SIDE = 256
SMALL, MAXIMUM = 4, 32
"""Images in a step: a number whose memory is measured, and one that needs several times as much."""
LEFT = 200 * MEBIBYTE
"""Enough for a network's weights, not for its features of 32 images."""

ESTIMATED = 0.5, 1.1
"""The estimate as a share of the memory that is taken. It leaves out the workspaces of cuDNN and cuBLAS, which vary by
the card; a lower one would let runs fail late, and a higher one refuses runs that would fit."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_textures(tmp_path / "data/textures", train=MAXIMUM)
    return tmp_path


def test_the_batch_size_finder_finds_what_fits(folder: Path, worker: Worker, measured: Callable[[str], None]) -> None:
    found, peak = worker.alone(found_batch_size, folder, SIDE, SMALL, MAXIMUM)
    measured(f"FastFlow at {SIDE} px: {SMALL} images take {peak / 1e6:.0f} MB; {found} fit in half as much again")
    assert 2 <= found < MAXIMUM


def test_a_training_on_a_full_gpu_ends_as_out_of_memory(folder: Path, worker: Worker) -> None:
    assert worker.alone(code_of_a_run_on_a_full_gpu, folder, SIDE, LEFT) == ExitCode.OUT_OF_MEMORY


def test_what_cublas_says_on_a_full_gpu_is_out_of_memory(worker: Worker, measured: Callable[[str], None]) -> None:
    found = worker.alone(first_product_on_a_full_gpu)
    if found is None:
        pytest.skip("cuBLAS had all the memory that it needs, although the GPU was full")
    error, is_out_of_memory = found
    measured(f"cuBLAS on a full GPU: {error.splitlines()[0][:160]}")
    assert is_out_of_memory, error


@pytest.mark.parametrize("name", ["padim", "patchcore"])
def test_the_memory_that_a_model_takes_is_the_estimated(
    name: str, worker: Worker, measured: Callable[[str], None]
) -> None:
    model = {"name": name, name: {"backbone": "resnet18", "preTrained": False}}
    estimated, taken = worker.alone(estimated_and_taken, model, SIDE, images=64, batch=16)
    measured(f"{name} at {SIDE} px: {estimated / 1e6:.0f} MB estimated, {taken / 1e6:.0f} MB taken")
    assert ESTIMATED[0] * taken <= estimated <= ESTIMATED[1] * taken


@pytest.mark.also_on_cpu
def test_a_pod_whose_gpu_cannot_be_used_says_so(tmp_path: Path) -> None:
    """Hidden from CUDA, while the driver still shows it."""
    config, message = pod_config(tmp_path), tmp_path / "message"
    options = [f"--config={config}", f"--work={tmp_path / 'work'}", f"--termination={message}"]
    ended = subprocess.run(
        [sys.executable, "-m", "anomaly_runner", "pod", *options],
        check=False,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == ExitCode.GPU_UNAVAILABLE, ended.stderr[-2000:]
    assert json.loads(message.read_text())["reason"] == Reason.GPU_UNAVAILABLE
