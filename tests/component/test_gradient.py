"""Training by gradient: the same result for the same seed, stopped or not; validation by exact metrics."""

import errno
import io
import math
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Never, Self
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from sklearn.metrics import roc_auc_score

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.model import Model
from anomaly_api.reasons import ExitCode
from anomaly_api.run import RunReport, TrainingReport
from anomaly_api.status import Curve
from anomaly_runner import experiment
from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import (
    DataInvalid,
    Diverged,
    InvalidConfig,
    RunFailed,
    Stopped,
    StorageDenied,
    StorageUnavailable,
)
from anomaly_runner.local import run_locally
from anomaly_runner.models.anomalib_model import BuildOptions, build_module, without_pretrained_weights
from anomaly_runner.storage import FolderStore
from anomaly_runner.system.stop import StopSignal
from anomaly_runner.training import with_anomalib
from anomaly_runner.training.gradient import checkpoints
from anomaly_runner.training.gradient.callbacks import LossMonitor, MetricRecorder
from anomaly_runner.training.gradient.checkpoints import CHECKPOINT_KEY, Checkpointer
from anomaly_runner.training.gradient.data_module import DecodedImages, ImageDataModule, to_anomalib
from anomaly_runner.training.gradient.fit import (
    FitContext,
    Training,
    build_validation_metrics,
    find_batch_size,
    fit,
    largest_fitting,
)
from anomaly_runner.training.gradient.training_plan import check_calibration, make_plan, why_metric_unavailable
from hack.demo.auxiliary import write_auxiliary_weights
from support.textures import EXPERIMENT, write_manifest

SIDE = 64
RANDOM = {"backbone": "resnet18", "preTrained": False}
FASTFLOW = {"name": "fastflow", "fastflow": RANDOM | {"flowSteps": 2}}
CFLOW = {"name": "cflow", "cflow": RANDOM | {"layers": ["layer1"], "couplingBlocks": 2, "fiberBatchSize": 512}}
CFA = {"name": "cfa", "cfa": {"backbone": "resnet18"}}
DRAEM = {"name": "draem", "draem": {"enableSspcab": True}}
GANOMALY = {"name": "ganomaly", "ganomaly": {"nFeatures": 8}}
EFFICIENTAD = {"name": "efficientad"}
SIDES = {"efficientad": 256}
"""Its autoencoder takes no smaller images."""


def spec(model: dict[str, Any], **training: Any) -> ExperimentSpec:
    return ExperimentSpec.model_validate(
        {
            "dataset": {"source": {"s3": {"uri": "s3://data"}}},
            "model": model,
            "training": training,
            "transforms": {"inputSize": {"height": SIDE, "width": SIDE}},
            "output": {"s3": {"uri": "s3://results"}},
        }
    )


def build_with_random_weights(model: Model, options: BuildOptions) -> Any:
    with without_pretrained_weights():
        return build_module(model, options)


def decoded_images(count: int, seed: int, defects: bool = False, side: int = SIDE) -> DecodedImages:
    """Random images; ``defects`` puts a bright spot on every second one."""
    random = np.random.default_rng(seed)
    pixels = random.normal(size=(count, 3, side, side)).astype(np.float32) * 0.3
    samples = []
    for index in range(count):
        label = "spot" if defects and index % 2 else "good"
        if label == "spot":
            pixels[index, :, 10:30, 10:30] += 1.5
        samples.append(Sample(f"{label}/{index:02d}.png", label))
    return DecodedImages(tuple(samples), pixels)


def raise_stopped() -> Never:
    raise Stopped("the node is wanted back")


class TrainingRun:
    """A training in a folder of its own, or in the folder of an earlier training.

    Args:
        stop_after: batches after which it is stopped.
        weights: folder with auxiliary images.
    """

    def __init__(
        self,
        folder: Path,
        model: dict[str, Any],
        stop_after: int | None = None,
        weights: Path | None = None,
        **training: Any,
    ) -> None:
        work, side = folder / f"work{len(list(folder.iterdir()))}", SIDES.get(model["name"], SIDE)
        work.mkdir()
        batch, count = (1, 1) if model is EFFICIENTAD else (4, 10)
        experiment = spec(model, trainBatchSize=batch, **training)
        self.plan = make_plan(experiment, has_gpu=False)
        torch.manual_seed(1)
        options = BuildOptions((side, side), batch, weights, "object")
        self.build = partial(build_with_random_weights, experiment.model, options)
        self.module = self.build()
        validation = decoded_images(2 if model is EFFICIENTAD else 8, 2, defects=True, side=side)
        self.data = ImageDataModule(
            decoded_images(count, 1, side=side), validation, seed=7, train_batch_size=batch, eval_batch_size=3
        )
        self.store, self.batches_done, self.stop_after = FolderStore(folder / "store"), 0, stop_after
        self.curves: list[Curve] = []
        self.context = FitContext(
            device=torch.device("cpu"),
            work=work,
            advance=self._advance,
            log_metrics=lambda step, values: None,
            show_curve=self.curves.append,
            asked_to_end=lambda: "others are better" if len(self.curves) >= self.end_after else None,
        )
        self.end_after = math.inf
        """Epochs after which the operator asks for the end."""
        self.stop: Callable[[], None] = raise_stopped
        recorder = MetricRecorder()
        self.training = Training(
            module=self.module,
            data=self.data,
            plan=self.plan,
            checkpointer=Checkpointer(self.store, work, self.plan.checkpointing, "fingerprint"),
            context=self.context,
            validation_metrics=build_validation_metrics(self.plan, validation.samples, None, self.context, recorder),
            recorder=recorder,
        )

    def _advance(self, count: int) -> None:
        self.batches_done += count
        if self.stop_after is not None and self.batches_done >= self.stop_after:
            self.stop()

    def fit(self) -> Self:
        self.report = fit(self.training)
        return self

    @property
    def state(self) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = self.module.state_dict()
        return state


def published_training(results: Path) -> TrainingReport:
    """The training's part of a run's report."""
    training = RunReport.model_validate_json((results / "report.json").read_bytes()).training
    assert training is not None
    return training


def equal_states(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two models have the same weights, bit for bit."""
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of teachers, and so few pictures that a training draws each more than once."""
    made = tmp_path_factory.mktemp("weights")
    write_auxiliary_weights(made, pictures=2)
    return made


@pytest.fixture
def cache(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which anomalib finds weights and pictures."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(weights))
    return weights


@pytest.fixture(autouse=True)
def save_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_SAVE_INTERVAL_FACTOR", 0)


@pytest.mark.slow
@pytest.mark.parametrize("model", [FASTFLOW, CFLOW, GANOMALY, EFFICIENTAD], ids=lambda model: model["name"])
def test_a_stopped_training_ends_with_the_same_weights_bit_for_bit(
    tmp_path: Path, model: dict[str, Any], cache: Path
) -> None:
    folders = [tmp_path / name for name in ("whole", "again", "broken")]
    for folder in folders:
        folder.mkdir()
    epochs, stop_after = (3, 2) if model is EFFICIENTAD else (4, 8)
    options: dict[str, Any] = {"maxEpochs": epochs, "earlyStopping": {"enabled": False}, "weights": cache}
    whole, again = (TrainingRun(folder, model, **options).fit() for folder in folders[:2])
    assert equal_states(whole.state, again.state)
    with pytest.raises(Stopped):
        TrainingRun(folders[2], model, stop_after=stop_after, **options).fit()
    assert (folders[2] / "store" / CHECKPOINT_KEY).is_file()
    torch.manual_seed(99)
    resumed = TrainingRun(folders[2], model, **options).fit()
    assert resumed.report.resumed_from_step in dict(resumed.report.history["trainLoss"])
    assert equal_states(whole.state, resumed.state)
    assert resumed.report.history == whole.report.history
    resumed.training.checkpointer.discard()
    assert not (folders[2] / "store" / CHECKPOINT_KEY).exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"maxEpochs": 2}, {"maxEpochs": 30, "earlyStopping": {"patience": 2}}, {"maxSteps": 4}],
    ids=["epochs", "early stopping", "steps"],
)
def test_a_finished_training_is_not_repeated(tmp_path: Path, options: dict[str, Any]) -> None:
    first = TrainingRun(tmp_path, FASTFLOW, **options).fit()
    assert not (tmp_path / "store" / CHECKPOINT_KEY).exists()
    with pytest.raises(Stopped), first.training.checkpointer.preserved():
        raise Stopped
    again = TrainingRun(tmp_path, FASTFLOW, **options)
    again.stop_after = first.batches_done + 1
    again.fit()
    assert again.batches_done == first.batches_done
    assert equal_states(first.state, again.state)
    assert again.report == first.report.model_copy(update={"resumed_from_step": first.report.steps})


@pytest.mark.slow
def test_a_run_that_is_stopped_after_its_training_does_not_train_again(
    textures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(document: dict[str, Any]) -> None:
        training = {"maxEpochs": 2, "trainBatchSize": 4}
        document["spec"] |= {"model": FASTFLOW, "training": training, "export": {"types": []}}

    def stopped(*arguments: Any, **options: Any) -> Never:
        raise Stopped

    manifest, results = write_manifest(textures, EXPERIMENT, short), textures / "results/factory/textures/local"
    with monkeypatch.context() as patched:
        patched.setattr(experiment, "predict", stopped)
        assert run_locally(manifest, textures) == ExitCode.STOPPED
    assert (results / CHECKPOINT_KEY).is_file()
    assert run_locally(manifest, textures) == 0
    training = published_training(results)
    assert training.resumed_from_step == training.steps == 4
    assert not (results / CHECKPOINT_KEY).exists()


def pruned_training(folder: Path, end_after: int, **options: Any) -> TrainingRun:
    """A training of 3 steps an epoch that is asked to end."""
    run = TrainingRun(folder, FASTFLOW, **options)
    run.end_after = end_after
    return run.fit()


@pytest.mark.slow
def test_a_training_shows_its_curve_and_ends_after_the_epoch_in_which_it_is_asked_to(tmp_path: Path) -> None:
    run = pruned_training(tmp_path, 2, maxEpochs=6, checkValEveryNEpoch=1)
    assert (run.report.epochs, run.report.steps, run.report.pruned) == (2, 6, "others are better")
    history = run.report.history["imageAUROC"]
    assert [step for step, _ in history] == [3, 6]
    first, second, last = run.curves  # the last is shown again at the end
    assert (first.metric, first.epochs, second.epochs) == ("imageAUROC", (1,), (1, 2))
    assert last == second
    assert second.values == pytest.approx([value for _, value in history], abs=1e-6)


@pytest.mark.slow
def test_a_curve_has_the_epochs_of_the_validations(tmp_path: Path) -> None:
    run = pruned_training(tmp_path, 99, maxEpochs=5, checkValEveryNEpoch=2)
    assert (run.curves[-1].metric, run.curves[-1].epochs) == ("imageAUROC", (2, 4))
    assert run.curves[0].metric == "trainLoss"  # there is nothing better yet
    assert (run.report.epochs, run.report.pruned) == (5, None)


@pytest.mark.slow
def test_without_validations_the_curve_is_the_loss(tmp_path: Path) -> None:
    run = pruned_training(tmp_path, 1, maxSteps=9, earlyStopping={"enabled": False})
    assert (run.curves[-1].metric, run.report.epochs, run.report.pruned) == ("trainLoss", 1, "others are better")
    assert run.curves[-1].values == pytest.approx([run.report.history["trainLoss"][0][1]], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"maxEpochs": 2}, {"maxSteps": 6}], ids=["epochs", "steps"])
def test_a_training_that_is_over_is_not_pruned(tmp_path: Path, options: dict[str, Any]) -> None:
    assert pruned_training(tmp_path, 2, **options).report.pruned is None


@pytest.mark.slow
def test_a_pruned_training_stays_so_for_the_next_pod(tmp_path: Path) -> None:
    first = pruned_training(tmp_path, 2, maxEpochs=6, checkValEveryNEpoch=1)
    with pytest.raises(Stopped), first.training.checkpointer.preserved():
        raise Stopped
    again = TrainingRun(tmp_path, FASTFLOW, maxEpochs=6, checkValEveryNEpoch=1).fit()
    assert again.report == first.report.model_copy(update={"resumed_from_step": 6})
    assert again.curves == [first.curves[-1]]


@pytest.mark.slow
def test_a_resumed_training_goes_on_with_its_curve(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("whole", "broken")]
    for folder in folders:
        folder.mkdir()
    options: dict[str, Any] = {"maxEpochs": 4, "checkValEveryNEpoch": 1}
    whole = TrainingRun(folders[0], FASTFLOW, **options).fit()
    with pytest.raises(Stopped):
        TrainingRun(folders[1], FASTFLOW, stop_after=8, **options).fit()
    assert TrainingRun(folders[1], FASTFLOW, **options).fit().curves[-1] == whole.curves[-1]


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 6], ids=["in an epoch", "before a validation"])
def test_a_signal_that_lightning_sees_first_stops_the_run(tmp_path: Path, step: int) -> None:
    with StopSignal().listening():
        run = TrainingRun(tmp_path, FASTFLOW, stop_after=step, maxEpochs=4, earlyStopping={"enabled": False})
        run.stop = lambda: signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped):
            run.fit()
    assert (tmp_path / "store" / CHECKPOINT_KEY).is_file()


@pytest.mark.slow
def test_a_checkpoint_of_another_configuration_is_not_resumed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Stopped):
        TrainingRun(tmp_path, FASTFLOW, stop_after=5, maxEpochs=4).fit()
    other = TrainingRun(tmp_path, FASTFLOW, maxEpochs=4)
    assert Checkpointer(other.store, tmp_path, other.plan.checkpointing, "another").resume_point is None
    assert "another configuration" in caplog.text


def unversioned(checkpoint: dict[str, Any]) -> None:
    """A checkpoint from before there was a version: the callbacks' states are under the former names of the classes."""
    metadata = checkpoint.pop("anomaly_runner")
    checkpoint["anomaly_run"] = {name: metadata[name] for name in ("fingerprint", "batches", "batch_size")}
    checkpoint["anomaly_run"]["over"] = metadata["finished"]
    names = {"metrics": "Watch", "bestState": "Best", "rngState": "Chance"}
    checkpoint["callbacks"] = {names.get(key, key): state for key, state in checkpoint["callbacks"].items()}


def of_the_next_version(checkpoint: dict[str, Any]) -> None:
    checkpoint["anomaly_runner"]["format"] += 1


@pytest.mark.slow
@pytest.mark.parametrize("change", [unversioned, of_the_next_version])
def test_a_checkpoint_of_another_format_version_is_not_resumed(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"maxEpochs": 3, "checkpointing": {"keep": "best"}, "earlyStopping": {"patience": 9}}
    folders = [tmp_path / name for name in ("whole", "upgraded")]
    for folder in folders:
        folder.mkdir()
    whole = TrainingRun(folders[0], FASTFLOW, **options).fit()
    with pytest.raises(Stopped):
        TrainingRun(folders[1], FASTFLOW, stop_after=5, **options).fit()
    file = folders[1] / "store" / CHECKPOINT_KEY
    checkpoint = torch.load(file, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, file)
    upgraded = TrainingRun(folders[1], FASTFLOW, **options).fit()
    assert "is of another release: training begins anew" in caplog.text
    assert upgraded.report == whole.report
    assert equal_states(whole.state, upgraded.state)


@pytest.mark.slow
def test_keys_in_a_checkpoint_do_not_depend_on_class_names(tmp_path: Path) -> None:
    """Changed keys or contents need a new FORMAT_VERSION, because Lightning skips states with unknown keys."""
    options: dict[str, Any] = {"maxEpochs": 3, "checkpointing": {"keep": "best"}, "earlyStopping": {"patience": 9}}
    with pytest.raises(Stopped):
        TrainingRun(tmp_path, FASTFLOW, stop_after=5, **options).fit()
    checkpoint = torch.load(tmp_path / "store" / CHECKPOINT_KEY, weights_only=True)
    assert checkpoint["anomaly_runner"].keys() == {"format", "fingerprint", "batches", "batch_size", "finished"}
    assert checkpoint["anomaly_runner"]["format"] == checkpoints.FORMAT_VERSION == 3
    ours = {key: state for key, state in checkpoint["callbacks"].items() if not key.startswith("EarlyStopping{")}
    assert ours.keys() == {"metrics", "bestState", "liveCurve", "rngState"}
    assert ours["metrics"].keys() == {"trainLoss", "imageAUROC", "imageF1Max"}
    assert ours["bestState"].keys() == {"value", "epoch", "state"}
    assert ours["liveCurve"].keys() == {"epochs", "pruned"}
    assert ours["rngState"].keys() - {"cuda"} == {"torch", "python", "numpy"}


def cut(state: bytes) -> bytes:
    return state[: len(state) // 2]


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [cut, lambda _: b"", lambda _: b"<html>"], ids=["cut off", "empty", "a page"])
def test_a_damaged_checkpoint_is_not_resumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: Callable[[bytes], bytes]
) -> None:
    file = io.BytesIO()
    torch.save({"weight": torch.zeros(100_000)}, file)
    run = TrainingRun(tmp_path, FASTFLOW, maxEpochs=1)
    (tmp_path / "store" / CHECKPOINT_KEY).parent.mkdir(parents=True)
    (tmp_path / "store" / CHECKPOINT_KEY).write_bytes(damaged(file.getvalue()))
    assert run.fit().report.resumed_from_step is None
    assert "is damaged: training begins anew" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("refusal", [StorageUnavailable, StorageDenied])
def test_a_training_whose_checkpoint_cannot_be_uploaded_is_still_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, refusal: type[RunFailed]
) -> None:
    def refused(store: FolderStore, source: Path, key: str) -> Never:
        raise refusal("not today")

    monkeypatch.setattr(FolderStore, "upload", refused)
    with pytest.raises(Stopped):
        TrainingRun(tmp_path, FASTFLOW, stop_after=5, maxEpochs=4).fit()
    assert "could not be stored: not today" in caplog.text


@pytest.mark.slow
def test_a_full_disk_costs_the_checkpoint_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> Never:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Trainer, "save_checkpoint", full)
    run = TrainingRun(tmp_path, FASTFLOW, maxEpochs=2, earlyStopping={"enabled": False}).fit()
    assert run.report.epochs == 2
    assert "could not be saved: [Errno 28] No space left on device" in caplog.text
    with pytest.raises(Stopped), run.training.checkpointer.preserved():
        raise Stopped
    assert not (tmp_path / "store" / CHECKPOINT_KEY).exists()


def test_images_without_a_label_are_no_good_ones_for_a_model_that_calibrates_itself() -> None:
    samples = tuple(Sample(f"{label}.png", label) for label in ("good", "dent", "unknown"))
    made = to_anomalib(Batch(samples, np.arange(3 * 3 * 2 * 4, dtype=np.float32).reshape(3, 3, 2, 4)))
    assert made.gt_label.tolist() == [False, True, True]
    assert made.gt_mask.shape == (3, 2, 4)
    assert not made.gt_mask.any()
    assert made.image_path == ["good.png", "dent.png", "unknown.png"]
    assert made.image[1, 0, 0, 0] == 24


@pytest.mark.slow
def test_the_best_epoch_is_kept_by_the_auroc_of_scikit_learn(tmp_path: Path) -> None:
    run = TrainingRun(
        tmp_path, FASTFLOW, maxEpochs=4, checkpointing={"keep": "best"}, earlyStopping={"enabled": False}
    ).fit()
    values = [value for _, value in run.report.history["imageAUROC"]]
    assert run.report.kept_epoch == int(np.argmax(values))
    validation = decoded_images(8, 2, defects=True)
    with torch.inference_mode():
        scores = run.module.model(torch.from_numpy(validation.inputs)).pred_score.numpy()
    truth = [bool(sample.defect) for sample in validation.samples]
    assert max(values) == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)


@pytest.mark.slow
def test_the_best_epoch_by_the_loss_is_that_of_the_lowest(tmp_path: Path) -> None:
    by_loss = {"metric": "trainLoss", "enabled": False}
    run = TrainingRun(tmp_path, FASTFLOW, maxEpochs=4, checkpointing={"keep": "best"}, earlyStopping=by_loss).fit()
    losses = [value for _, value in run.report.history["trainLoss"]]
    assert (run.report.kept_epoch, len(losses)) == (int(np.argmin(losses)), 4)


@pytest.mark.slow
def test_early_stopping_ends_a_training_without_improvement(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, FASTFLOW, maxEpochs=30, earlyStopping={"patience": 2}).fit()
    assert run.report.stopped_early
    values = [value for _, value in run.report.history["imageAUROC"]]
    assert run.report.epochs == len(values) == int(np.argmax(values)) + 1 + 2 < 30
    assert run.report.kept_epoch == run.report.epochs - 1, "the last, unless the best is asked for"


def test_a_loss_that_is_not_finite_names_epoch_and_step(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, FASTFLOW, maxEpochs=3, earlyStopping={"enabled": False})
    with torch.no_grad():
        next(run.module.model.fast_flow_blocks.parameters()).fill_(torch.nan)
    with pytest.raises(Diverged, match="loss became nan in epoch 0"):
        run.fit()


def test_losses_that_are_read_late_are_the_same_and_name_the_step(tmp_path: Path) -> None:
    """As on a GPU: several steps at once, and all of them before a validation and at an epoch's end."""
    recorder, trainer, module = MetricRecorder(), SimpleNamespace(current_epoch=0, global_step=0), MagicMock()
    monitor = LossMonitor(lambda: None, recorder, read_every=4)

    def train(losses: list[float]) -> None:
        for loss in losses:
            trainer.global_step += 1
            monitor.on_train_batch_end(trainer, module, {"loss": torch.tensor(loss)}, None, 0)

    train([1.0, 2.0, 4.0, 8.0, 16.0, 3.5])
    monitor.on_train_epoch_end(trainer, module)
    assert recorder.history["trainLoss"] == [(6, float(np.mean([1.0, 2.0, 4.0, 8.0, 16.0, 3.5])))]
    train([1.0, math.nan, 1.0])
    with pytest.raises(Diverged, match="loss became nan in epoch 0, step 8"):
        train([1.0])
    for read in (monitor.on_validation_start, monitor.on_train_epoch_end):
        train([math.inf])
        with pytest.raises(Diverged, match="loss became inf in epoch 0, step"):
            read(trainer, module)


@pytest.mark.parametrize(
    ("room", "initial", "maximum", "finer", "expected"),
    [
        (128, 8, 256, False, 128),
        (256, 8, 256, False, 256),
        (500, 8, 200, False, 200),
        (100, 8, 200, False, 64),
        (100, 8, 200, True, 100),
        (3, 8, 200, False, 2),
        (3, 8, 200, True, 3),
        (0, 8, 200, False, 0),
        (9, 8, 5, False, 5),
    ],
)
def test_the_largest_size_that_fits_is_found(room: int, initial: int, maximum: int, finer: bool, expected: int) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= room

    assert largest_fitting(fits, initial, maximum, finer) == expected
    assert max(tried) <= maximum
    assert len(tried) == len(set(tried))


@pytest.mark.slow
def test_the_batch_size_finder_tries_the_maximum_and_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TrainingRun(tmp_path, FASTFLOW, maxEpochs=3, batchSizeFinder={"initial": 2, "maximum": 8, "steps": 1})
    before, step = {name: value.clone() for name, value in run.state.items()}, type(run.module).training_step
    sizes: list[int] = []

    def short_of_memory(module: Any, batch: Any, *arguments: Any) -> Any:
        sizes.append(len(batch.image))
        if len(batch.image) == 8:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return step(module, batch, *arguments)

    monkeypatch.setattr(type(run.module), "training_step", short_of_memory)
    assert find_batch_size(run.build, run.data, run.plan, run.context) == 4
    assert sizes == [2, 4, 8]
    assert run.data.train_batch_size == 4
    assert equal_states(before, run.state)
    run.stop_after = 0
    with pytest.raises(Stopped):
        find_batch_size(run.build, run.data, run.plan, run.context)


@pytest.mark.slow
def test_the_batch_size_finder_takes_optimiser_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finder = {"initial": 2, "maximum": 2, "steps": 2}
    run = TrainingRun(tmp_path, FASTFLOW, maxEpochs=3, accumulateGradientBatches=2, batchSizeFinder=finder)
    done: list[str] = []

    def count_calls(name: str) -> None:
        step = getattr(type(run.module), name)

        def counted(*arguments: Any) -> Any:
            done.append(name)
            return step(*arguments)

        monkeypatch.setattr(type(run.module), name, counted)

    count_calls("training_step")
    count_calls("optimizer_step")
    assert find_batch_size(run.build, run.data, run.plan, run.context) == 2
    assert done.count("training_step") == 4
    assert done.count("optimizer_step") == 2


@pytest.mark.slow
@pytest.mark.parametrize("model", [CFA, DRAEM], ids=lambda model: model["name"])
def test_the_batch_size_finder_tries_modules_that_cannot_be_copied(
    tmp_path: Path, model: dict[str, Any], cache: Path
) -> None:
    run = TrainingRun(tmp_path, model, weights=cache, batchSizeFinder={"initial": 2, "maximum": 2, "steps": 1})
    assert find_batch_size(run.build, run.data, run.plan, run.context) == 2


@pytest.mark.slow
def test_a_resumed_run_keeps_the_batch_size_that_it_had_found(textures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(document: dict[str, Any]) -> None:
        training = {"maxEpochs": 2, "batchSizeFinder": {"initial": 3, "maximum": 3, "steps": 1}}
        document["spec"] |= {"model": FASTFLOW, "training": training, "export": {"types": []}}

    def stopped(*arguments: Any, **options: Any) -> Never:
        raise Stopped

    manifest = write_manifest(textures, EXPERIMENT, short)
    with monkeypatch.context() as patched:
        patched.setattr(experiment, "predict", stopped)
        assert run_locally(manifest, textures) == ExitCode.STOPPED
    monkeypatch.setattr(with_anomalib, "find_batch_size", lambda *_: 2)
    assert run_locally(manifest, textures) == 0
    assert published_training(textures / "results/factory/textures/local").batch_size == 3


@pytest.mark.slow
def test_a_validation_checks_the_stop_signal(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, FASTFLOW, maxEpochs=4, earlyStopping={"patience": 4})
    seen: list[int] = []

    def advance(count: int) -> None:
        seen.append(count)
        if seen[-2:] == [1, 0]:
            raise Stopped

    run.context = replace(run.context, advance=advance)
    validation_metrics = build_validation_metrics(
        run.plan, run.data.validation_samples, None, run.context, MetricRecorder()
    )
    run.training = replace(run.training, context=run.context, validation_metrics=validation_metrics)
    with pytest.raises(Stopped):
        run.fit()
    assert seen == [0, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("model", "training", "complaint"),
    [
        ({"name": "efficientad"}, {"trainBatchSize": 8}, "trains with 1 image a step"),
        (CFLOW, {"gradientClipping": {"value": 1}}, "takes its own optimiser steps"),
        (FASTFLOW, {"precision": "float16"}, "needs a GPU"),
        (FASTFLOW, {"precision": "tf32"}, r"needs a GPU of compute capability 8\.0"),
        (GANOMALY, {"earlyStopping": {"metric": "pixelAUROC"}}, "has no pixel scores"),
    ],
)
def test_unsupported_settings_are_refused_before_the_model_is_built(
    model: dict[str, Any], training: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidConfig, match=complaint):
        make_plan(spec(model, **training), has_gpu=False)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"name": "draem"}, (700, None, 8, 20)),
        ({"name": "efficientad"}, (None, 20_000, 1, None)),
        ({"name": "cflow"}, (50, None, 16, None)),
        ({"name": "cfa"}, (30, None, 4, 5)),
    ],
)
def test_defaults_are_those_of_the_papers_and_the_reference_system(
    model: dict[str, Any], expected: tuple[int | None, ...]
) -> None:
    plan = make_plan(spec(model), has_gpu=False)
    patience = plan.early_stopping.patience if plan.early_stopping else None
    assert (plan.max_epochs, plan.max_steps, plan.batch_size, patience) == expected


def test_tf32_needs_a_gpu_that_has_it() -> None:
    asked = spec(FASTFLOW, precision="tf32")
    with pytest.raises(InvalidConfig, match=r"compute capability 8\.0"):
        make_plan(asked, has_gpu=True)
    assert make_plan(asked, has_gpu=True, has_tf32=True).precision == "tf32"


def test_an_operator_without_a_deterministic_algorithm_is_named_with_the_field(tmp_path: Path) -> None:
    """``put_`` has none on CPUs either, where every training is deterministic."""
    run = TrainingRun(tmp_path, FASTFLOW, maxEpochs=1, deterministic=True)

    def training_step(*_: Any) -> None:
        torch.zeros(2).put_(torch.tensor([0]), torch.ones(1))

    run.module.training_step = training_step
    with pytest.raises(InvalidConfig, match=r"training\.deterministic: put_ does not have a deterministic implem"):
        run.fit()


def test_steps_alone_replace_the_default_epochs() -> None:
    plan = make_plan(spec(FASTFLOW, maxSteps=9), has_gpu=False)
    assert (plan.max_epochs, plan.max_steps, plan.total_batches(100)) == (None, 9, 9)
    assert replace(plan, accumulate_grad_batches=3).total_batches(100) == 27


@pytest.mark.parametrize(
    ("options", "monitor"),
    [
        (
            {"earlyStopping": {"enabled": False, "metric": "pixelAUROC"}, "checkpointing": {"keep": "best"}},
            "pixelAUROC",
        ),
        ({"earlyStopping": {"metric": "trainLoss"}}, "trainLoss"),
        ({"checkpointing": {"keep": "best"}}, "imageAUROC"),
    ],
)
def test_the_best_state_is_chosen_by_the_metric_without_early_stopping(options: dict[str, Any], monitor: str) -> None:
    plan = make_plan(spec(FASTFLOW, **options), has_gpu=False)
    assert plan.monitor == monitor


GOOD, DEFECT = Sample("good/0.png", "good"), Sample("spot/0.png", "spot")


@pytest.mark.parametrize(
    ("options", "validation", "reason"),
    [
        ({"earlyStopping": {"metric": "imageAUROC"}}, [GOOD], "needs good and defective images"),
        ({"earlyStopping": {"metric": "pixelAUROC"}}, [GOOD, DEFECT], "needs masks"),
        (
            {"earlyStopping": {"enabled": False, "metric": "pixelAUROC"}, "checkpointing": {"keep": "best"}},
            [GOOD, DEFECT],
            "needs masks",
        ),
        ({"earlyStopping": {"enabled": False}}, [GOOD], None),
        ({"earlyStopping": {"metric": "trainLoss"}}, [GOOD], None),
    ],
)
def test_why_a_metric_is_unavailable(options: dict[str, Any], validation: list[Sample], reason: str | None) -> None:
    why = why_metric_unavailable(make_plan(spec(FASTFLOW, **options), has_gpu=False), validation)
    if reason is None:
        assert why is None
    else:
        assert why is not None
        assert reason in why


def spoil(folder: Path) -> None:
    for index, file in enumerate(sorted(folder.iterdir())):
        file.unlink() if index else file.write_bytes(b"no image")


@pytest.mark.slow
@pytest.mark.parametrize("lose", [shutil.rmtree, spoil], ids=["absent", "unreadable"])
@pytest.mark.parametrize(
    ("training", "refusal"),
    [
        ({}, None),
        ({"earlyStopping": {"metric": "imageAUROC"}}, "training.earlyStopping.metric: imageAUROC needs good and"),
        ({"checkpointing": {"keep": "best"}}, "training.checkpointing.keep: the best state goes by a metric, and im"),
        (
            {"checkpointing": {"keep": "best"}, "earlyStopping": {"enabled": False}},
            "training.checkpointing.keep: the best state",
        ),
    ],
    ids=["default", "asked", "best", "best alone"],
)
def test_default_early_stopping_is_dropped_without_defective_images(
    textures: Path,
    lose: Callable[[Path], None],
    training: dict[str, Any],
    refusal: str | None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    lose(textures / "data/textures/test/scratch")

    def short(document: dict[str, Any]) -> None:
        course = {"maxEpochs": 1, "trainBatchSize": 4} | training
        document["spec"] |= {"model": FASTFLOW, "training": course, "export": {"types": []}}
        document["spec"]["dataset"]["limits"] = {"maxUnreadableImages": 1}

    ending = run_locally(write_manifest(textures, EXPERIMENT, short), textures)
    assert ending == (ExitCode.INVALID_CONFIG if refusal else 0)
    if refusal:
        assert refusal in capfd.readouterr().err
    else:
        report = (textures / "results/factory/textures/local/report.json").read_bytes()
        warnings = RunReport.model_validate_json(report).summary.warnings
        assert any("no early stopping" in warning for warning in warnings)


@pytest.mark.slow
def test_a_failure_of_the_training_is_not_reported_as_missing_weights(
    textures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(document: dict[str, Any]) -> None:
        document["spec"] |= {"model": FASTFLOW, "training": {"maxEpochs": 1}, "export": {"types": []}}

    def broken(training: Training) -> Never:
        raise EOFError

    monkeypatch.setattr(with_anomalib, "fit", broken)
    assert run_locally(write_manifest(textures, EXPERIMENT, short), textures) == ExitCode.INTERNAL_ERROR


def test_a_model_that_calibrates_itself_needs_a_good_image() -> None:
    plan = make_plan(spec(EFFICIENTAD), has_gpu=False)
    check_calibration(plan, [GOOD, DEFECT])
    with pytest.raises(DataInvalid, match="efficientad calibrates itself on good images"):
        check_calibration(plan, [DEFECT])
