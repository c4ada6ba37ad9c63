"""Training on several devices, here processes on the CPU: the same as on one, and it ends when one of them does."""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.reasons import ExitCode
from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import InternalError, InvalidConfig, Stopped
from anomaly_runner.local import run_locally
from anomaly_runner.models import anomalib_model
from anomaly_runner.models.anomalib_model import build_module, without_pretrained_weights
from anomaly_runner.models.check import check_devices
from anomaly_runner.storage import FolderStore
from anomaly_runner.training.gradient import checkpoints, followers
from anomaly_runner.training.gradient.checkpoints import Keeper
from anomaly_runner.training.gradient.fit import Surroundings, Training, fit, judge_of
from anomaly_runner.training.gradient.images import DecodedImages, ImageData, Share, decode_all
from anomaly_runner.training.gradient.order import Order
from anomaly_runner.training.gradient.plan import make_plan
from support.textures import EXPERIMENT, write_manifest, write_textures

SIDE, BATCH = 64, 4
RANDOM = {"backbone": "resnet18", "preTrained": False}
FASTFLOW = {"name": "fastflow", "fastflow": RANDOM | {"flowSteps": 2}}
FRE = {"name": "fre", "fre": RANDOM | {"layer": "layer2", "latentDim": 20}}
CFA = {"name": "cfa", "cfa": {"backbone": "resnet18"}}
LONG = {"maxEpochs": 4, "earlyStopping": {"enabled": False}}
SCORES, WEIGHTS = 1e-5, 1e-3
"""How far one device and several may be apart, in parts of the largest score and of the largest change of a weight:
Adam makes full steps of gradients that are little but noise. Another order of the images comes to 1e-2 and 1."""


def spec(model, **training):
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


def pixels(count, seed):
    return np.random.default_rng(seed).normal(size=(count, 3, SIDE, SIDE)).astype(np.float32) * 0.3


def training_images(count, work):
    samples = tuple(Sample(f"good/{index:02d}.png", "good") for index in range(count))
    return decode_all([Batch(samples, pixels(count, 1))], count, (SIDE, SIDE), work)


def validation_images():
    images = pixels(8, 2)
    images[1::2, :, 10:30, 10:30] += 1.5
    labels = ["good", "spot"] * 4
    return DecodedImages(tuple(Sample(f"{label}/{index}.png", label) for index, label in enumerate(labels)), images)


class Run:
    """One training in a folder of its own, or in that of an earlier one."""

    def __init__(self, folder, model, *, devices=1, images=10, seed=7, step=None, **training) -> None:
        work = folder / f"work{len(list(folder.iterdir()))}"
        work.mkdir()
        asked = spec(model, trainBatchSize=BATCH, devices=devices, **training)
        check_devices(asked, gpus=0)
        self.plan = replace(make_plan(asked, has_gpu=False), seed=seed)
        torch.manual_seed(1)
        built_for = anomalib_model.BuildOptions((SIDE, SIDE), BATCH, None, "object")
        with without_pretrained_weights():
            self.module = build_module(asked.model, built_for)
        self.start = {name: value.clone() for name, value in self.module.state_dict().items()}
        learnt, validation = training_images(images, work), validation_images()
        data = ImageData(learnt, validation, seed=seed, train_batch_size=BATCH, eval_batch_size=3)
        around = Surroundings(torch.device("cpu"), work, self._step, lambda step, values: None)
        self.done, self._in_step = 0, step or (lambda done: None)
        keeper, history = Keeper(FolderStore(folder / "store"), work, self.plan.checkpointing, "fingerprint"), {}
        judge = judge_of(self.plan, validation.samples, None, around, history)
        order = Order(asked.model, built_for, self.plan, learnt.samples, None, "cpu", work)
        self.training = Training(
            self.module, data, self.plan, keeper, around, judge, history, order if devices > 1 else None
        )

    def _step(self, count) -> None:
        self.done += count
        self._in_step(self.done)

    def fit(self):
        self.report = fit(self.training)
        return self

    @property
    def scores(self):
        with torch.inference_mode():
            images = torch.from_numpy(validation_images().inputs)
            return self.module.eval().model(images).pred_score.numpy().reshape(-1)

    @property
    def state(self):
        return self.module.state_dict()


def apart(first, second):
    """How far weights and scores are from each other, in parts of the largest change and the largest score."""
    mine, its = first.module.state_dict(), second.module.state_dict()
    names = [name for name, _ in first.module.named_parameters()]
    changed = max(float((mine[name] - first.start[name]).abs().max()) for name in names)
    weights = max(float((mine[name] - its[name]).abs().max()) for name in names)
    return weights / changed, float(np.abs(first.scores - second.scores).max() / np.abs(first.scores).max())


@pytest.fixture(autouse=True)
def save_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_SHARE", 0)


@pytest.fixture
def folders(tmp_path: Path):
    def make(*names):
        for name in names:
            (tmp_path / name).mkdir()
        return [tmp_path / name for name in names]

    return make


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
def test_two_devices_train_as_one(folders, model, options, measured: Callable[[str], None]) -> None:
    """Also where the last step of an epoch has 3 images, or 1."""
    one, two, shuffled = folders("one", "two", "shuffled")
    options |= {"maxEpochs": 3, "earlyStopping": {"enabled": False}}
    alone, other = Run(one, model, **options).fit(), Run(shuffled, model, seed=8, **options).fit()
    together = Run(two, model, devices=2, **options).fit()
    (weights, scores), (order_weights, order_scores) = apart(alone, together), apart(alone, other)
    measured(
        f"{model['name']} on two devices: weights {weights:.1e}, scores {scores:.1e} from one; "
        f"in another order of images {order_weights:.1e}, {order_scores:.1e}"
    )
    assert weights < min(WEIGHTS, order_weights / 100)
    assert scores < min(SCORES, order_scores / 100)
    assert together.report.steps == alone.report.steps


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch):
    """The followers that a test starts."""
    found, start = [], followers._start

    def started(*arguments):
        found.append(start(*arguments))
        return found[-1]

    monkeypatch.setattr(followers, "_start", started)
    return found


@pytest.mark.slow
def test_early_stopping_stops_all(folders, processes) -> None:
    one, two = folders("one", "two")
    options = {"maxEpochs": 30, "earlyStopping": {"patience": 1}}
    alone, together = Run(one, FASTFLOW, **options).fit(), Run(two, FASTFLOW, devices=2, **options).fit()
    assert together.report.stopped_early
    assert together.report.epochs == alone.report.epochs < 30
    assert [process.returncode for process in processes] == [0]


@pytest.mark.slow
@pytest.mark.parametrize("model", [FASTFLOW, CFA], ids=lambda model: model["name"])
def test_a_stopped_training_on_two_devices_ends_with_the_same_weights_bit_for_bit(folders, processes, model) -> None:
    def stop(done) -> None:
        if done >= 8:
            raise Stopped("the node is wanted back")

    whole_folder, broken = folders("whole", "broken")
    whole = Run(whole_folder, model, devices=2, **LONG).fit()
    with pytest.raises(Stopped):
        Run(broken, model, devices=2, step=stop, **LONG).fit()
    assert all(process.returncode is not None for process in processes)
    resumed = Run(broken, model, devices=2, **LONG).fit()
    assert resumed.report.resumed_from_step == 6
    assert all(torch.equal(value, resumed.state[name]) for name, value in whole.state.items())
    assert resumed.report.history == whole.report.history


@pytest.mark.slow
def test_a_killed_follower_fails_the_run_in_seconds(folders, processes) -> None:
    killed = []

    def kill(done) -> None:
        if done == 2:
            killed.append(time.monotonic())
            os.kill(processes[0].pid, signal.SIGKILL)

    run = Run(*folders("killed"), FASTFLOW, devices=2, step=kill, maxEpochs=500, earlyStopping={"enabled": False})
    with pytest.raises(InternalError, match=r"training\.devices: the process device1 was killed by signal 9"):
        run.fit()
    assert time.monotonic() - killed[0] < followers._FAREWELL_SECONDS
    assert not any(thread.name == "followers" for thread in threading.enumerate())


@pytest.mark.slow
def test_a_run_that_cannot_be_woken_when_a_follower_is_gone_is_ended(
    folders, processes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given_up, codes = threading.Event(), []

    def kill_and_hang(done) -> None:
        os.kill(processes[0].pid, signal.SIGKILL)
        assert given_up.wait(30)

    def end(code) -> None:
        codes.append(code)
        given_up.set()

    monkeypatch.setattr(followers, "_FAREWELL_SECONDS", 0.5)
    monkeypatch.setattr(followers.os, "_exit", end)
    run = Run(*folders("hung"), FASTFLOW, devices=2, step=kill_and_hang, **LONG)
    with pytest.raises(InternalError):
        run.fit()
    assert codes == [ExitCode.INTERNAL_ERROR]
    assert "run failed" in caplog.text


@pytest.mark.slow
def test_a_follower_that_cannot_start_fails_the_run_with_its_last_words(folders) -> None:
    run = Run(*folders("lost"), FASTFLOW, devices=2, **LONG)
    order = replace(run.training.order, samples=run.training.order.samples * 1000)
    run.training = replace(run.training, order=order)
    with pytest.raises(InternalError, match=r"(?s)device1 ended with code 1: .*ValueError: mmap length"):
        run.fit()


@pytest.mark.slow
def test_a_follower_ends_when_the_first_process_does(folders) -> None:
    run = Run(*folders("orphan"), FASTFLOW, devices=2)
    order = replace(run.training.order, rank=1)
    process = followers._start(order, run.training.data.training_descriptor, order.work / "device1.log")
    process.stdin.close()
    assert process.wait(300) == ExitCode.STOPPED  # most of which it imports what it needs


@pytest.mark.slow
def test_a_run_on_two_devices_scores_as_on_one(tmp_path: Path, processes) -> None:
    """From the manifest on, with augmented images, which each device reads for itself."""
    write_textures(tmp_path / "data/textures", train=7)

    def scores(devices):
        def experiment(document) -> None:
            document["spec"] |= {
                "model": FASTFLOW,
                "evaluation": {},
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
    assert len(processes) == 1
    assert np.abs(one - two).max() < SCORES * np.abs(one).max()


@pytest.mark.parametrize("images", range(1, 14))
def test_shares_of_an_epoch_are_its_steps(images) -> None:
    order, shares = list(range(100, 100 + images)), [Share(rank, 3) for rank in range(3)]
    steps = [order[start : start + 6] for start in range(0, images, 6)]
    for share in shares:
        rows = share.of(order, 6)
        own = [rows[start : start + 2] for start in range(0, len(rows), 2)]
        assert own == [step[share.rank :: 3] or [order[-1]] for step in steps]
    for step in steps:
        values = np.random.default_rng(len(step)).normal(size=len(step))
        means = [values[share.rank :: 3].mean() if share.rank < len(step) else np.float64(9) for share in shares]
        mean = np.mean([mean * share.weight(len(step)) for mean, share in zip(means, shares, strict=True)])
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
def test_what_cannot_be_shared_out_is_said_before_anything_is_fetched(model, training, gpus, complaint) -> None:
    with pytest.raises(InvalidConfig, match=complaint):
        check_devices(spec(model, devices=2, **training), gpus)


def test_one_device_is_for_every_model() -> None:
    check_devices(spec({"name": "padim"}, devices=1), gpus=0)
    check_devices(spec({"name": "cflow"}), gpus=4)
    check_devices(spec(FASTFLOW, devices=2), gpus=2)
