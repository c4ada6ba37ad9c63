"""Training on several devices (here processes on the CPU): the same result as on one, and failures of a worker."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.reasons import ExitCode
from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import Diverged, InternalError, InvalidConfig, Stopped
from anomaly_runner.local import run_locally
from anomaly_runner.models.anomalib_model import BuildOptions, build_module, without_pretrained_weights
from anomaly_runner.models.check import check_devices
from anomaly_runner.storage import FolderStore
from anomaly_runner.training.gradient import callbacks, checkpoints, ddp, workers
from anomaly_runner.training.gradient.callbacks import MetricRecorder
from anomaly_runner.training.gradient.checkpoints import Checkpointer
from anomaly_runner.training.gradient.data_module import BatchPartition, DecodedImages, ImageDataModule, decode_all
from anomaly_runner.training.gradient.ddp import EpochSeed
from anomaly_runner.training.gradient.fit import FitContext, Training, build_validation_metrics, fit
from anomaly_runner.training.gradient.training_plan import make_plan
from anomaly_runner.training.gradient.worker_spec import WorkerSpec
from support.noisy_images import NoisyImages
from support.textures import EXPERIMENT, write_manifest, write_textures

SIDE, BATCH, SEED = 64, 4, 7
RANDOM = {"backbone": "resnet18", "preTrained": False}
FASTFLOW = {"name": "fastflow", "fastflow": RANDOM | {"flowSteps": 2}}
FRE = {"name": "fre", "fre": RANDOM | {"layer": "layer2", "latentDim": 20}}
CFA = {"name": "cfa", "cfa": {"backbone": "resnet18"}}
LONG: dict[str, Any] = {"maxEpochs": 4, "earlyStopping": {"enabled": False}}
MakeFolders = Callable[..., list[Path]]
"""Makes folders of these names."""
SCORES, WEIGHTS = 1e-5, 1e-3
"""How far one device and several may be apart, in parts of the largest score and of the largest change of a weight:
Adam makes full steps of gradients that are little but noise. Another order of the images comes to 1e-2 and 1."""


def spec(model: dict[str, Any], **training: Any) -> ExperimentSpec:
    return ExperimentSpec.model_validate(
        {
            "dataset": {"source": {"s3": {"uri": "s3://data"}}},
            "model": model,
            "training": training,
            "transforms": {"inputSize": {"height": SIDE, "width": SIDE}},
            "output": {"s3": {"uri": "s3://results"}},
            "scheduling": {"gpus": {"count": 0}},
        }
    )


def pixels(count: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, 3, SIDE, SIDE)).astype(np.float32) * 0.3


def training_images(count: int, work: Path) -> DecodedImages:
    samples = tuple(Sample(f"good/{index:02d}.png", "good") for index in range(count))
    return decode_all([Batch(samples, pixels(count, 1))], count, (SIDE, SIDE), work)


def validation_images() -> DecodedImages:
    images = pixels(8, 2)
    images[1::2, :, 10:30, 10:30] += 1.5
    labels = ["good", "spot"] * 4
    return DecodedImages(tuple(Sample(f"{label}/{index}.png", label) for index, label in enumerate(labels)), images)


class TrainingRun:
    """A training in a folder of its own, or in the folder of an earlier training.

    Args:
        on_batch: called with the number of batches done.
        read_augmented: reads the images of all processes; None for images that do not change.
    """

    def __init__(
        self,
        folder: Path,
        model: dict[str, Any],
        *,
        devices: int = 1,
        images: int = 10,
        seed: int = 7,
        on_batch: Callable[[int], None] = lambda done: None,
        read_augmented: Any = None,
        **training: Any,
    ) -> None:
        work = folder / f"work{len(list(folder.iterdir()))}"
        work.mkdir()
        experiment = spec(model, trainBatchSize=BATCH, devices=devices, **training)
        check_devices(experiment, gpus=0)
        self.plan = replace(make_plan(experiment, has_gpu=False), seed=seed)
        torch.manual_seed(1)
        options = BuildOptions((SIDE, SIDE), BATCH, None, "object")
        with without_pretrained_weights():
            self.module = build_module(experiment.model, options)
        self.start = {name: value.clone() for name, value in self.module.state_dict().items()}
        learnt, validation = training_images(images, work), validation_images()
        self.batches_done, self._on_batch = 0, on_batch
        context = FitContext(
            device=torch.device("cpu"), work=work, advance=self._advance, log_metrics=lambda step, values: None
        )
        worker_spec = WorkerSpec(
            model=experiment.model,
            options=options,
            plan=self.plan,
            samples=learnt.samples,
            read_augmented=read_augmented,
            device_type="cpu",
            work=work,
        )
        recorder = MetricRecorder()
        self.training = Training(
            module=self.module,
            data=ImageDataModule(
                learnt,
                validation,
                seed=seed,
                train_batch_size=BATCH,
                eval_batch_size=3,
                read_augmented=read_augmented,
            ),
            plan=self.plan,
            checkpointer=Checkpointer(FolderStore(folder / "store"), work, self.plan.checkpointing, "fingerprint"),
            context=context,
            validation_metrics=build_validation_metrics(self.plan, validation.samples, None, context, recorder),
            recorder=recorder,
            worker_spec=worker_spec if devices > 1 else None,
        )

    def _advance(self, count: int) -> None:
        self.batches_done += count
        self._on_batch(self.batches_done)

    def fit(self) -> Self:
        self.report = fit(self.training)
        return self

    @property
    def scores(self) -> NDArray[np.float32]:
        with torch.inference_mode():
            images = torch.from_numpy(validation_images().inputs)
            scores: NDArray[np.float32] = self.module.eval().model(images).pred_score.numpy().reshape(-1)
            return scores

    @property
    def state(self) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = self.module.state_dict()
        return state


def relative_differences(first: TrainingRun, second: TrainingRun) -> tuple[float, float]:
    """Differences of weights and scores, relative to the largest change of a weight and to the largest score."""
    names = [name for name, _ in first.module.named_parameters()]
    changed = max(float((first.state[name] - first.start[name]).abs().max()) for name in names)
    weights = max(float((first.state[name] - second.state[name]).abs().max()) for name in names)
    return weights / changed, float(np.abs(first.scores - second.scores).max() / np.abs(first.scores).max())


@pytest.fixture(autouse=True)
def save_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_SAVE_INTERVAL_FACTOR", 0)


@pytest.fixture
def make_folders(tmp_path: Path) -> MakeFolders:
    def make(*names: str) -> list[Path]:
        for name in names:
            (tmp_path / name).mkdir()
        return [tmp_path / name for name in names]

    return make


@pytest.mark.slow
def test_a_training_that_is_given_up_ends_on_every_device(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = TrainingRun(tmp_path, FASTFLOW, devices=2, maxEpochs=50, earlyStopping={"enabled": False})
    context = replace(run.training.context, asked_to_end=lambda: "others are better")
    run.training = replace(run.training, context=context)
    run.fit()
    assert (run.report.epochs, run.report.devices, run.report.pruned) == (1, 2, "others are better")
    assert "did not end in time" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "options"),
    [
        (FASTFLOW, {"images": 11}),
        (FASTFLOW, {"images": 9, "accumulateGradientBatches": 2}),
        (FRE, {"images": 10}),
        (CFA, {"images": 11}),
    ],
    ids=["fastflow", "accumulated", "fre", "cfa"],
)
def test_two_devices_give_the_same_weights_as_one(
    make_folders: MakeFolders, model: dict[str, Any], options: dict[str, Any], measured: Callable[[str], None]
) -> None:
    """Includes epochs whose last step has 3 images, or 1."""
    one, two, shuffled = make_folders("one", "two", "shuffled")
    options |= {"maxEpochs": 3, "earlyStopping": {"enabled": False}}
    alone, other = TrainingRun(one, model, **options).fit(), TrainingRun(shuffled, model, seed=8, **options).fit()
    together = TrainingRun(two, model, devices=2, **options).fit()
    (weights, scores), (order_weights, order_scores) = (
        relative_differences(alone, together),
        relative_differences(alone, other),
    )
    measured(
        f"{model['name']} on two devices: weights {weights:.1e}, scores {scores:.1e} from one; "
        f"in another order of images {order_weights:.1e}, {order_scores:.1e}"
    )
    assert weights < min(WEIGHTS, order_weights / 100)
    assert scores < min(SCORES, order_scores / 100)
    assert together.report.steps == alone.report.steps


@pytest.fixture
def worker_processes(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The workers that a test starts."""
    processes: list[subprocess.Popen[bytes]] = []
    start = workers._start

    def started(*arguments: Any) -> subprocess.Popen[bytes]:
        processes.append(start(*arguments))
        return processes[-1]

    monkeypatch.setattr(workers, "_start", started)
    return processes


@pytest.mark.slow
def test_early_stopping_stops_all(make_folders: MakeFolders, worker_processes: list[subprocess.Popen[bytes]]) -> None:
    one, two = make_folders("one", "two")
    options: dict[str, Any] = {"maxEpochs": 30, "earlyStopping": {"patience": 1}}
    alone, together = (
        TrainingRun(one, FASTFLOW, **options).fit(),
        TrainingRun(two, FASTFLOW, devices=2, **options).fit(),
    )
    assert together.report.stopped_early
    assert together.report.epochs == alone.report.epochs < 30
    assert [process.returncode for process in worker_processes] == [0]


@pytest.mark.slow
@pytest.mark.parametrize("model", [FASTFLOW, CFA], ids=lambda model: model["name"])
def test_a_stopped_training_on_two_devices_ends_with_the_same_weights_bit_for_bit(
    make_folders: MakeFolders, worker_processes: list[subprocess.Popen[bytes]], model: dict[str, Any]
) -> None:
    def stop(done: int) -> None:
        if done >= 8:
            raise Stopped("the node is wanted back")

    whole_folder, broken = make_folders("whole", "broken")
    whole = TrainingRun(whole_folder, model, devices=2, **LONG).fit()
    with pytest.raises(Stopped):
        TrainingRun(broken, model, devices=2, on_batch=stop, **LONG).fit()
    assert all(process.returncode is not None for process in worker_processes)
    resumed = TrainingRun(broken, model, devices=2, **LONG).fit()
    assert resumed.report.resumed_from_step == 6
    assert all(torch.equal(value, resumed.state[name]) for name, value in whole.state.items())
    assert resumed.report.history == whole.report.history


@pytest.mark.slow
def test_workers_of_a_resumed_training_draw_the_same_random_numbers(
    make_folders: MakeFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int) -> None:
        if done >= 8:
            raise Stopped("the node is wanted back")

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    noise = NoisyImages(SIDE)
    whole_folder, broken = make_folders("whole", "broken")
    whole = TrainingRun(whole_folder, FASTFLOW, devices=2, read_augmented=noise, **LONG).fit()
    with pytest.raises(Stopped):
        TrainingRun(broken, FASTFLOW, devices=2, read_augmented=noise, on_batch=stop, **LONG).fit()
    resumed = TrainingRun(broken, FASTFLOW, devices=2, read_augmented=noise, **LONG).fit()
    assert resumed.report.resumed_from_step == 6
    assert resumed.report.history == whole.report.history
    assert all(torch.equal(value, resumed.state[name]) for name, value in whole.state.items())


def test_every_rank_and_every_epoch_draws_other_random_numbers() -> None:
    drawn = set()
    for epoch, rank in ((0, 1), (0, 2), (1, 1)):
        seed = EpochSeed(SEED, rank)
        seed.on_train_epoch_start(SimpleNamespace(current_epoch=epoch), None)
        first = (torch.rand(1).item(), float(np.random.rand()), random.random())
        seed.on_train_epoch_start(SimpleNamespace(current_epoch=epoch), None)
        assert (torch.rand(1).item(), float(np.random.rand()), random.random()) == first
        drawn |= set(first)
    assert len(drawn) == 9


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_after_a_worker_has_died_is_told_as_the_workers_failure(
    make_folders: MakeFolders, worker_processes: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an aborted collective of NCCL, which leaves whatever was in memory."""

    def aborted(outputs: Any) -> torch.Tensor:
        os.kill(worker_processes[0].pid, signal.SIGKILL)
        return torch.tensor(torch.nan)

    monkeypatch.setattr(callbacks, "_loss_of", aborted)
    run = TrainingRun(make_folders("aborted")[0], FASTFLOW, devices=2, **LONG)
    with pytest.raises(InternalError, match=r"training\.devices: the process device1 was killed by signal 9"):
        run.fit()


@pytest.mark.slow
def test_a_training_that_diverges_on_several_devices_is_told_as_such(
    make_folders: MakeFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_GRACE_SECONDS", 3.0)
    run = TrainingRun(make_folders("diverged")[0], FASTFLOW, devices=2, **LONG)
    with torch.no_grad():
        next(run.module.model.fast_flow_blocks.parameters()).fill_(torch.nan)
    with pytest.raises(Diverged, match="loss became nan in epoch 0"):
        run.fit()


def test_nccl_leaves_failures_to_this_program() -> None:
    """Torch knows the settings, and they are made before there is a process group."""
    header = Path(torch.__file__).parent / "include/torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp"
    known = header.read_text()
    assert [name for name in ddp._NCCL_SETTINGS if f'"{name}"' not in known] == []


@pytest.mark.slow
def test_a_killed_worker_fails_the_run_in_seconds(
    make_folders: MakeFolders, worker_processes: list[subprocess.Popen[bytes]]
) -> None:
    killed: list[float] = []

    def kill(done: int) -> None:
        if done == 2:
            killed.append(time.monotonic())
            os.kill(worker_processes[0].pid, signal.SIGKILL)

    run = TrainingRun(
        make_folders("killed")[0], FASTFLOW, devices=2, on_batch=kill, maxEpochs=500, earlyStopping={"enabled": False}
    )
    with pytest.raises(InternalError, match=r"training\.devices: the process device1 was killed by signal 9"):
        run.fit()
    assert time.monotonic() - killed[0] < workers._GRACE_SECONDS
    assert not any(thread.name == "workers" for thread in threading.enumerate())


@pytest.mark.slow
def test_a_run_that_hangs_after_a_worker_has_died_is_ended(
    make_folders: MakeFolders,
    worker_processes: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    given_up = threading.Event()
    codes: list[int] = []

    def kill_and_hang(done: int) -> None:
        os.kill(worker_processes[0].pid, signal.SIGKILL)
        assert given_up.wait(30)

    def end(code: int) -> None:
        codes.append(code)
        given_up.set()

    monkeypatch.setattr(workers, "_GRACE_SECONDS", 0.5)
    monkeypatch.setattr(os, "_exit", end)
    run = TrainingRun(make_folders("hung")[0], FASTFLOW, devices=2, on_batch=kill_and_hang, **LONG)
    with pytest.raises(InternalError):
        run.fit()
    assert codes == [ExitCode.INTERNAL_ERROR]
    assert "run failed" in caplog.text


@pytest.mark.slow
def test_a_worker_that_cannot_start_fails_the_run_with_its_last_log_lines(make_folders: MakeFolders) -> None:
    run = TrainingRun(make_folders("lost")[0], FASTFLOW, devices=2, **LONG)
    worker_spec = run.training.worker_spec
    assert worker_spec is not None
    worker_spec = replace(worker_spec, samples=worker_spec.samples * 1000)
    run.training = replace(run.training, worker_spec=worker_spec)
    with pytest.raises(InternalError, match=r"(?s)device1 ended with code 1: .*ValueError: mmap length"):
        run.fit()


@pytest.mark.slow
def test_a_worker_ends_when_its_parent_ends(make_folders: MakeFolders) -> None:
    run = TrainingRun(make_folders("orphan")[0], FASTFLOW, devices=2)
    worker_spec, descriptor = run.training.worker_spec, run.training.data.training_descriptor
    assert worker_spec is not None
    assert descriptor is not None
    process = workers._start(replace(worker_spec, rank=1), descriptor, worker_spec.work / "device1.log")
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(300) == ExitCode.STOPPED  # mostly for its imports


@pytest.mark.slow
def test_a_run_on_two_devices_gives_the_same_scores_as_on_one(
    tmp_path: Path, worker_processes: list[subprocess.Popen[bytes]]
) -> None:
    """A whole run from its manifest, with augmented images, which each device reads itself."""
    write_textures(tmp_path / "data/textures", train=7)

    def scores(devices: int) -> NDArray[np.float64]:
        def experiment(document: dict[str, Any]) -> None:
            document["spec"] |= {
                "model": FASTFLOW,
                "evaluation": {"latency": {"enabled": False}},
                "export": {"types": []},
                "training": {"trainBatchSize": 4, "maxEpochs": 2, "devices": devices},
                "scheduling": {"gpus": {"count": 0}},
            }
            document["spec"]["transforms"]["augmentations"] = {"horizontalFlip": 0.5, "brightness": 0.2}
            document["metadata"]["name"] = f"devices{devices}"

        assert run_locally(write_manifest(tmp_path, EXPERIMENT, experiment), tmp_path) == 0
        table = pq.read_table(tmp_path / f"results/factory/devices{devices}/local/predictions.parquet")
        return np.array(table.to_pydict()["score"])

    one, two = scores(1), scores(2)
    assert len(worker_processes) == 1
    assert np.abs(one - two).max() < SCORES * np.abs(one).max()


@pytest.mark.parametrize("images", range(1, 14))
def test_partitions_of_an_epoch_make_up_its_batches(images: int) -> None:
    order, partitions = list(range(100, 100 + images)), [BatchPartition(rank, 3) for rank in range(3)]
    steps = [order[start : start + 6] for start in range(0, images, 6)]
    for partition in partitions:
        rows = partition.rows(order, 6)
        own = [rows[start : start + 2] for start in range(0, len(rows), 2)]
        assert own == [step[partition.rank :: 3] or [order[-1]] for step in steps]
    for step in steps:
        values = np.random.default_rng(len(step)).normal(size=len(step))
        means = [
            values[partition.rank :: 3].mean() if partition.rank < len(step) else np.float64(9)
            for partition in partitions
        ]
        weights = [partition.loss_weight(len(step)) for partition in partitions]
        mean = np.mean([mean * weight for mean, weight in zip(means, weights, strict=True)])
        assert mean == pytest.approx(values.mean())


@pytest.mark.parametrize(
    ("model", "training", "gpus", "complaint"),
    [
        ({"name": "stfpm"}, {}, 0, "stfpm trains on one device, because its batch normalisation"),
        ({"name": "cflow"}, {}, 0, "its own optimiser steps"),
        ({"name": "efficientad"}, {}, 0, "one image a step"),
        ({"name": "csflow"}, {}, 0, "its loss adds up"),
        ({"name": "padim"}, {}, 0, "it sees every training image once"),
        (FASTFLOW, {"trainBatchSize": 7}, 0, r"training\.trainBatchSize 7 .* multiple of training\.devices, 2"),
        (FASTFLOW, {"batchSizeFinder": {}}, 0, "batchSizeFinder looks at one device"),
        (FASTFLOW, {}, 1, r"training\.devices is 2, the pod sees 1 GPUs: set scheduling\.gpus\.count"),
    ],
)
def test_trainings_that_cannot_use_several_devices_are_refused_before_anything_is_fetched(
    model: dict[str, Any], training: dict[str, Any], gpus: int, complaint: str
) -> None:
    with pytest.raises(InvalidConfig, match=complaint):
        check_devices(spec(model, devices=2, **training), gpus)


def test_every_model_trains_on_one_device() -> None:
    check_devices(spec({"name": "padim"}, devices=1), gpus=0)
    check_devices(spec({"name": "cflow"}), gpus=4)
    check_devices(spec(FASTFLOW, devices=2), gpus=2)
