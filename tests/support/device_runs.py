"""Whole runs from a manifest, for tests of a device: one that is stopped and resumed, one with too little GPU memory.

The functions take paths and plain values, so that they can be called in another process.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.reasons import ExitCode
from anomaly_api.run import RunReport, TrainingReport
from anomaly_api.status import Stage
from anomaly_runner.context import Context
from anomaly_runner.errors import Stopped
from anomaly_runner.local import run_locally
from anomaly_runner.models.memory_models import MemoryParameters, build_memory_model
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.system.out_of_memory import is_out_of_memory
from anomaly_runner.training.gradient import checkpoints
from anomaly_runner.training.memory_check import memory_needs
from support.optional import not_none
from support.textures import EXPERIMENT, Document, write_manifest

RESULTS = "results/factory/textures/local"
FASTFLOW = {"name": "fastflow", "fastflow": {"backbone": "resnet18", "preTrained": False, "flowSteps": 2}}
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Finished:
    """A run that has succeeded: its training's report, and the scores (N,) of its test images."""

    training: TrainingReport
    scores: NDArray[np.float64]


def experiment(folder: Path, training: dict[str, Any], side: int = 64, **more: Any) -> Path:
    """Write the manifest of a FastFlow with random weights over ``folder``/data/textures, without exports."""

    def change(document: Document) -> None:
        document["spec"] |= {
            "model": FASTFLOW,
            "training": {"earlyStopping": {"enabled": False}} | training,
            "transforms": {"inputSize": {"height": side, "width": side}},
            "evaluation": {"latency": {"enabled": False}},
            "export": {"types": []},
        } | more

    return write_manifest(folder, EXPERIMENT, change)


def finished(folder: Path, training: dict[str, Any], side: int = 64, **more: Any) -> Finished:
    """Run an experiment, which must succeed."""
    code = run_locally(experiment(folder, training, side, **more), folder)
    assert code == 0, f"exit code {code}"
    report = RunReport.model_validate_json((folder / RESULTS / "report.json").read_bytes())
    table = pq.read_table(folder / RESULTS / "predictions.parquet").to_pydict()
    return Finished(not_none(report.training), np.array(table["score"]))


def whole_and_resumed(folder: Path, training: dict[str, Any], batches: int) -> tuple[Finished, Finished]:
    """Run an experiment to its end, and once more, stopped after so many batches and started again."""
    whole = finished(folder, training)
    shutil.rmtree(folder / "results")
    with patch.object(checkpoints, "_SAVE_INTERVAL_FACTOR", 0):  # save at the end of every epoch
        with _stopped_after(batches):
            assert run_locally(experiment(folder, training), folder) == ExitCode.STOPPED
        return whole, finished(folder, training)


@contextmanager
def _stopped_after(batches: int) -> Iterator[None]:
    """Let the cluster want the node back after so many batches of the training."""
    advance, done = Context.advance, 0

    def counted(context: Context, count: int) -> None:
        nonlocal done
        if context.progress.stage is Stage.TRAIN:
            done += count
            if done >= batches:
                raise Stopped
        advance(context, count)

    with patch.object(Context, "advance", counted):
        yield


def found_batch_size(folder: Path, side: int, small: int, maximum: int) -> tuple[int, int]:
    """Let the batch-size finder work with half as much again as the GPU memory that a step of ``small`` images needs.

    Returns:
        The size that it found, and the most bytes that torch's tensors took with ``small``.
    """
    evaluation = {"evalBatchSize": 2}
    torch.cuda.reset_peak_memory_stats()
    finished(folder, {"maxEpochs": 1, "trainBatchSize": small} | evaluation, side)
    peak = torch.cuda.max_memory_allocated()
    shutil.rmtree(folder / "results")
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.5 * peak / torch.cuda.get_device_properties(0).total_memory)
    finder = {"initial": 2, "maximum": maximum, "steps": 1}
    found = finished(folder, {"maxEpochs": 1, "batchSizeFinder": finder} | evaluation, side)
    return found.training.batch_size, peak


def code_of_a_run_on_a_full_gpu(folder: Path, side: int, left: int) -> int:
    """Return the exit code of a training while other tensors leave so many bytes of the GPU's memory."""
    torch.ones(1, device="cuda")  # CUDA's own memory, which is taken once
    taken = fill_gpu(left)
    code = run_locally(experiment(folder, {"maxEpochs": 1, "trainBatchSize": 32}, side), folder)
    del taken
    return code


def fill_gpu(left: int) -> list[torch.Tensor]:
    """Take all of the GPU's memory but so many bytes, in ever smaller pieces down to a mebibyte."""
    pieces, size = [], 1 << 30
    while size >= MEBIBYTE:
        if torch.cuda.mem_get_info()[0] - size < left:
            size //= 2
            continue
        try:
            pieces.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:
            size //= 2
    return pieces


def first_product_on_a_full_gpu() -> tuple[str, bool] | None:
    """Multiply matrices for the first time in the process while the GPU is full: cuBLAS finds no memory for itself.

    Returns:
        The error and whether the runner takes it for a lack of memory; None if cuBLAS had all that it needs.
    """
    first, second, product = (torch.ones(64, 64, device="cuda") for _ in range(3))
    taken = fill_gpu(0)
    try:
        torch.mm(first, second, out=product)
        torch.cuda.synchronize()
    except RuntimeError as error:
        return f"{type(error).__name__}: {error}", is_out_of_memory(error)
    finally:
        del taken
    return None


def estimated_and_taken(model: dict[str, Any], side: int, images: int, batch: int) -> tuple[int, int]:
    """Fit PaDiM or PatchCore on the GPU and score a batch; return the bytes that were estimated, and those it took."""
    threads = TorchThreads(torch.device("cuda"))
    spec = ExperimentSpec.model_validate(
        {
            "dataset": {"source": {"s3": {"uri": "s3://data"}}},
            "model": model,
            "training": {"trainBatchSize": batch, "evalBatchSize": batch},
            "transforms": {"inputSize": {"height": side, "width": side}},
            "output": {"s3": {"uri": "s3://results"}},
        }
    )
    assert isinstance(spec.model.parameters, MemoryParameters)
    built = build_memory_model(spec.model.parameters, (side, side), threads, None).to(threads.device).eval()
    estimated = max(need.total for need in memory_needs(built, spec, images, threads))
    random, shape = torch.Generator().manual_seed(1), (batch, 3, side, side)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    built.learn((torch.rand(shape, generator=random) for _ in range(images // batch)), threads)
    with torch.inference_mode():
        built(torch.rand(shape, generator=random).to(threads.device))
    return estimated, torch.cuda.max_memory_allocated() - before


def pod_config(folder: Path) -> Path:
    """Write the RunConfig of a pod that was given a GPU, with its data on a claim; returns the file."""
    claim = {"persistentVolumeClaim": {"claimName": "data"}}
    spec = {
        "dataset": {"source": claim},
        "model": {"name": "padim", "padim": {"backbone": "resnet18", "preTrained": False}},
        "output": claim,
        "scheduling": {"gpus": {"count": 1}},
    }
    run = {"kind": "AnomalyExperiment", "namespace": "factory", "name": "textures", "uid": "1"}
    file = folder / "run.json"
    file.write_text(json.dumps({"run": run, "experiment": spec}))
    return file
