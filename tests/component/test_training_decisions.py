"""What decides a training by gradient: which state is kept, when it ends, what is saved and when, how it computes.

No model is trained here: the callbacks are called as Lightning would.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_auc_score
from torch import nn

from anomaly_api.dataset import DatasetLimits
from anomaly_api.experiment import ExperimentSpec
from anomaly_api.training import Checkpointing, GradientClipping
from anomaly_runner.data.batches import IntegrityLog
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.storage import FolderStore, Prefetcher
from anomaly_runner.training import train, with_anomalib
from anomaly_runner.training.gradient import checkpoints, fit
from anomaly_runner.training.gradient.callbacks import (
    BestState,
    MetricRecorder,
    MetricsReporter,
    ValidationMetrics,
    build_early_stopping,
)
from anomaly_runner.training.gradient.checkpoints import CHECKPOINT_KEY, Checkpointer
from anomaly_runner.training.gradient.fit import FitContext, build_trainer
from anomaly_runner.training.gradient.training_plan import TrainingPlan, make_plan
from anomaly_runner.training.inputs import ExperimentInputs
from support.contexts import make_context
from support.optional import not_none

MODULE: Any = None
"""Lightning's module, of which these callbacks take nothing."""


def spec(model: str = "fastflow", dataset: dict[str, Any] | None = None, **training: Any) -> ExperimentSpec:
    return ExperimentSpec.model_validate(
        {
            "dataset": {"source": {"s3": {"uri": "s3://data"}}} | (dataset or {}),
            "model": {"name": model},
            "training": training,
            "output": {"s3": {"uri": "s3://results"}},
            "scheduling": {"gpus": {"count": 0}},
        }
    )


def plan(model: str = "fastflow", **training: Any) -> TrainingPlan:
    return make_plan(spec(model, **training), has_gpu=False)


def trainer_after(epoch: int, **metrics: float) -> Any:
    """Lightning's trainer at the end of an epoch (from 0)."""
    return SimpleNamespace(current_epoch=epoch, callback_metrics=metrics, sanity_checking=False, global_step=3 * epoch)


def with_weight(value: float) -> Any:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, value)
    return module


@pytest.mark.parametrize(
    ("monitor", "values"),
    [("trainLoss", [3.0, 1.0, 2.0, 1.0]), ("imageAUROC", [0.5, 0.9, 0.7, 0.9])],
    ids=["the lowest loss", "the highest of any other metric"],
)
def test_the_best_state_is_the_first_of_equals_and_stays_as_it_was(monitor: str, values: list[float]) -> None:
    best, module = BestState(monitor), with_weight(0)
    hook = best.on_train_epoch_end if monitor == "trainLoss" else best.on_validation_end
    for epoch, value in enumerate(values):
        nn.init.constant_(module.weight, epoch)
        hook(trainer_after(epoch, **{monitor: value}), module)
    assert best.epoch == 1
    restored = with_weight(99)
    best.restore(restored)
    assert restored.weight.item() == 1


def test_the_best_state_goes_by_its_own_metric_at_its_own_time() -> None:
    by_loss, by_metric, module = BestState("trainLoss"), BestState("imageAUROC"), with_weight(0)
    trainer = trainer_after(4, trainLoss=1.0, imageAUROC=0.5)
    by_loss.on_validation_end(trainer, module)
    by_metric.on_train_epoch_end(trainer, module)
    by_metric.on_validation_end(trainer_after(4, trainLoss=1.0), module)
    assert (by_loss.epoch, by_metric.epoch) == (None, None)


@pytest.mark.parametrize(
    ("metric", "mode", "at_the_end_of_the_epoch"), [("imageAUROC", "max", False), ("trainLoss", "min", True)]
)
def test_early_stopping_is_as_the_spec_has_it(metric: str, mode: str, at_the_end_of_the_epoch: bool) -> None:
    asked = {"metric": metric, "patience": 7, "minDelta": 0.25}
    made = not_none(build_early_stopping(plan(earlyStopping=asked)))
    assert (made.monitor, made.mode, made.patience, abs(made.min_delta)) == (metric, mode, 7, 0.25)
    assert made._check_on_train_epoch_end is at_the_end_of_the_epoch
    assert not made.strict, "epochs without a validation have no metric"
    assert build_early_stopping(plan(earlyStopping=asked | {"enabled": False})) is None


SAMPLES = tuple(Sample(f"{label}/{index}.png", label) for index, label in enumerate(("good", "dent") * 5))
RANDOM = np.random.default_rng(5)
SCORES = RANDOM.normal(size=10).astype(np.float32) + np.tile([0, 0.5], 5).astype(np.float32)
MAPS = RANDOM.normal(size=(10, 4, 6)).astype(np.float32)
VALID = np.zeros((4, 6), bool)
VALID[:, :3] = True


def truth(sample: Sample) -> NDArray[np.bool_]:
    """The upper half of a dent is defective."""
    mask = np.zeros((4, 6), bool)
    mask[:2] = bool(sample.defect)
    return mask


def validated(work: Path, valid: NDArray[np.bool_] | None = None) -> dict[str, float]:
    """The metrics of a validation in batches of 4, 4 and 2 images."""
    recorder, logged = MetricRecorder(), dict[str, float]()
    metrics = ValidationMetrics(SAMPLES, truth, work, recorder, lambda: None, valid=valid)
    module: Any = SimpleNamespace(log=logged.__setitem__)
    for rows in (slice(4), slice(4, 8), slice(8, 10)):
        found = SimpleNamespace(
            pred_score=torch.from_numpy(SCORES[rows]), anomaly_map=torch.from_numpy(MAPS[rows])[:, None]
        )
        metrics.on_validation_batch_end(MODULE, module, found)
    metrics.on_validation_epoch_end(trainer_after(2), module)
    assert metrics.last_step == 6
    assert recorder.history == {name: [(6, value)] for name, value in logged.items()}
    return logged


def test_metrics_of_a_validation_equal_scikit_learn(tmp_path: Path) -> None:
    found = validated(tmp_path)
    labels = [bool(sample.defect) for sample in SAMPLES]
    pixels = np.stack([truth(sample) for sample in SAMPLES])
    precision, recall, _ = precision_recall_curve(labels, SCORES)
    assert found == {
        "imageAUROC": pytest.approx(roc_auc_score(labels, SCORES), abs=1e-9),
        "imageF1Max": pytest.approx(float(np.max(2 * precision * recall / (precision + recall))), abs=1e-9),
        "pixelAUROC": pytest.approx(roc_auc_score(pixels.ravel(), MAPS.ravel()), abs=1e-9),
    }


def test_pixels_outside_of_the_valid_area_do_not_count_in_a_validation(tmp_path: Path) -> None:
    pixels = np.stack([truth(sample) for sample in SAMPLES])
    expected = roc_auc_score(pixels[:, VALID].ravel(), MAPS[:, VALID].ravel())
    assert expected != pytest.approx(roc_auc_score(pixels.ravel(), MAPS.ravel()), abs=1e-3)
    assert validated(tmp_path, VALID)["pixelAUROC"] == pytest.approx(expected, abs=1e-9)


def test_what_was_logged_before_the_checkpoint_is_not_logged_again() -> None:
    recorder, logged = MetricRecorder(), list[tuple[int, dict[str, float]]]()
    reporter = MetricsReporter(lambda step, values: logged.append((step, dict(values))), recorder)
    recorder.record("trainLoss", 3, 0.5)
    reporter.on_train_start(trainer_after(1), MODULE)
    recorder.record("trainLoss", 6, 0.25)
    recorder.record("imageAUROC", 6, 0.75)
    for _ in range(2):
        reporter.on_train_epoch_end(trainer_after(2), MODULE)
    assert logged == [(6, {"trainLoss": 0.25}), (6, {"imageAUROC": 0.75})]


class SavingTrainer:
    """Writes checkpoints of the same size, each of which takes 2 s of a clock of its own."""

    def __init__(self) -> None:
        self.now, self.saved, self.current_epoch = 0.0, list[float](), 0

    def monotonic(self) -> float:
        return self.now

    def save_checkpoint(self, file: Path) -> None:
        self.saved.append(self.now)
        file.write_text(f"saved at {self.now:g}")
        self.now += 2


class Uploads(FolderStore):
    """Remembers what was uploaded."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.content: list[str] = []

    def upload(self, source: Path, key: str) -> None:
        assert key == CHECKPOINT_KEY
        self.content.append(source.read_text())


@pytest.fixture
def saving(monkeypatch: pytest.MonkeyPatch) -> SavingTrainer:
    trainer = SavingTrainer()
    monkeypatch.setattr(checkpoints, "time", trainer)
    return trainer


def checkpointed(trainer: Any, work: Path, ends: list[float], **asked: Any) -> list[str]:
    """What is uploaded in a training whose epochs end at these seconds; saving is expected to take 1 s."""
    store = Uploads(work / "store")
    checkpointer = Checkpointer(store, work, Checkpointing.model_validate(asked), "fingerprint")
    module: Any = SimpleNamespace(parameters=lambda: [SimpleNamespace(nbytes=100_000_000)])
    for epoch, end in enumerate(ends):
        trainer.now, trainer.current_epoch = end, epoch
        checkpointer.on_train_epoch_end(trainer, module)
    checkpointer.on_train_end(trainer, module)
    return store.content


def test_saving_takes_a_twentieth_of_the_time_and_the_newest_is_uploaded_every_few_minutes(
    saving: SavingTrainer, tmp_path: Path
) -> None:
    """After the first one it is known that saving takes 2 s, so that another one is due 40 s after it."""
    uploaded = checkpointed(saving, tmp_path, [19.5, 20, 61.5, 62, 110, 160, 170], everyNMinutes=1)
    assert saving.saved == [20, 62, 110, 160, 170]  # the last is that of the end
    assert uploaded == ["saved at 62", "saved at 160"]


def test_checkpoints_are_saved_after_as_many_epochs_as_asked_for(saving: SavingTrainer, tmp_path: Path) -> None:
    checkpointed(saving, tmp_path, [100, 200, 300, 400, 500, 600, 650], everyNEpochs=3)
    assert saving.saved == [300, 600, 650]


def test_a_training_without_checkpoints_saves_none(saving: SavingTrainer, tmp_path: Path) -> None:
    assert checkpointed(saving, tmp_path, [1000, 2000], enabled=False, everyNMinutes=1) == []
    assert saving.saved == []


@pytest.fixture
def context(tmp_path: Path) -> FitContext:
    return FitContext(device=torch.device("cpu"), work=tmp_path, advance=lambda _: None, log_metrics=lambda *_: None)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave torch as other tests expect it: a trainer makes it deterministic."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("precision", "lightning"),
    [("float32", "32-true"), ("tf32", "32-true"), ("float16", "16-mixed"), ("bfloat16", "bf16-mixed")],
)
def test_lightning_computes_as_the_plan_says(context: FitContext, precision: Any, lightning: str) -> None:
    if precision == "float16":
        assert fit._PRECISIONS[precision] == lightning
        return
    made = build_trainer(replace(plan(), precision=precision), context, [], validates=True)
    assert made.precision == lightning


def test_lightning_trains_as_the_plan_says(context: FitContext) -> None:
    asked = replace(
        plan(maxEpochs=7, maxSteps=11, checkValEveryNEpoch=3, accumulateGradientBatches=2),
        gradient_clipping=GradientClipping(value=0.5, algorithm="value"),
    )
    made = build_trainer(asked, context, [], validates=True)
    assert (made.max_epochs, made.max_steps, made.check_val_every_n_epoch) == (7, 11, 3)
    assert (made.accumulate_grad_batches, made.gradient_clip_val, made.gradient_clip_algorithm) == (2, 0.5, "value")
    assert made.limit_val_batches == 1.0
    assert torch.are_deterministic_algorithms_enabled(), "on CPUs always"
    assert build_trainer(asked, context, [], validates=False).limit_val_batches == 0


def test_a_training_without_a_limit_of_steps_or_clipping_has_none(context: FitContext) -> None:
    made = build_trainer(replace(plan(maxEpochs=7), gradient_clipping=None), context, [], validates=True)
    assert (made.max_steps, made.gradient_clip_val) == (-1, None)


def test_the_random_numbers_of_a_training_are_those_of_its_seed(context: FitContext) -> None:
    drawn = []
    for seed in (3, 4, 3):
        build_trainer(replace(plan(), seed=seed), context, [], validates=True)
        drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[2] != drawn[1]


@pytest.mark.parametrize(
    ("best", "monitor", "last_validation", "calibrated"),
    [
        (None, "imageAUROC", 30, True),
        (None, "imageAUROC", 20, False),
        (4, "imageAUROC", 30, True),
        (4, "trainLoss", 30, False),
        ("none yet", "imageAUROC", 20, False),
    ],
    ids=["the last state", "steps after it", "the best state", "the best by loss", "no best state"],
)
def test_what_the_last_validation_has_calibrated(
    best: Any, monitor: Any, last_validation: int, calibrated: bool
) -> None:
    kept = None if best is None else BestState(monitor)
    if kept is not None and best != "none yet":
        kept.epoch = best
    training: Any = SimpleNamespace(
        plan=replace(plan(), monitor=monitor), validation_metrics=SimpleNamespace(last_step=last_validation)
    )
    trainer: Any = SimpleNamespace(global_step=30)
    assert fit._is_calibrated(trainer, training, kept) is calibrated
    training.validation_metrics = None
    assert fit._is_calibrated(trainer, training, kept) is False


def inputs(work: Path, asked: ExperimentSpec | None = None, **dataset: Any) -> ExperimentInputs:
    context = make_context(work)
    return ExperimentInputs(
        spec=asked or spec(),
        dataset=DatasetIndex(**dataset),
        prefetcher=Prefetcher(work, lambda: None),
        preprocessor=Preprocessor(height=64, width=64, normalization="none"),
        integrity=IntegrityLog(DatasetLimits()),
        threads=TorchThreads(torch.device("cpu")),
        weights=work,
        artifacts=FolderStore(work),
        context=context,
    )


def test_a_training_is_watched_on_the_validation_images_and_on_the_test_images_where_there_are_none(
    tmp_path: Path,
) -> None:
    validation, test = SAMPLES[:4], SAMPLES[4:]
    assert inputs(tmp_path, validation=validation, test=test).validation_or_test == validation
    assert inputs(tmp_path, test=test).validation_or_test == test


def fingerprint(work: Path, asked: ExperimentSpec, keys: tuple[str, ...] = ("a.png", "b.png"), batch: int = 8) -> str:
    samples = tuple(Sample(key, "good") for key in keys)
    data: Any = SimpleNamespace(training_samples=samples, train_batch_size=batch)
    return with_anomalib._fingerprint(inputs(work, asked), data)


def test_a_checkpoint_belongs_to_all_that_a_training_depends_on(tmp_path: Path) -> None:
    def changed(**parts: Any) -> ExperimentSpec:
        written = spec().to_json_object()
        return ExperimentSpec.model_validate(
            {name: written.get(name, {}) | parts.get(name, {}) for name in {*written, *parts}}
        )

    found = [
        fingerprint(tmp_path, spec()),
        fingerprint(tmp_path, changed(dataset={"seed": 8})),
        fingerprint(tmp_path, changed(transforms={"inputSize": {"height": 64, "width": 96}})),
        fingerprint(tmp_path, changed(model={"fastflow": {"flowSteps": 3}})),
        fingerprint(tmp_path, changed(training={"maxEpochs": 8})),
        fingerprint(tmp_path, spec(), keys=("a.png", "c.png")),
        fingerprint(tmp_path, spec(), batch=9),
    ]
    assert len(set(found)) == 7
    same = changed(output={"keepCheckpoint": True}, evaluation={"normalization": "none"})
    assert fingerprint(tmp_path, same) == found[0], "what comes after the training may change"


@pytest.mark.parametrize(
    ("category", "asked", "told"),
    [
        (None, None, "object"),
        ("metal_nut", None, "metal nut"),
        ("mvtec/metal_nut", None, "metal nut"),
        ("metal_nut", "screw", "screw"),
    ],
)
def test_winclip_is_told_what_is_on_the_images(
    tmp_path: Path, category: str | None, asked: str | None, told: str
) -> None:
    written = spec("winclip", {"category": category} if category else None).to_json_object()
    if asked:
        written["model"]["winclip"] = {"className": asked}
    assert with_anomalib._subject(inputs(tmp_path, ExperimentSpec.model_validate(written))) == told


class _Gpu:
    type = "cuda"


@pytest.mark.parametrize(("capability", "has"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_have_tf32_since_compute_capability_8(
    capability: tuple[int, int], has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    device: Any = _Gpu()
    assert with_anomalib._has_tf32(device) is has
    assert not with_anomalib._has_tf32(torch.device("cpu"))


@pytest.mark.parametrize(("model", "clip"), [("fastflow", None), ("dinomaly", 0.1)])
def test_gradients_are_clipped_as_the_authors_do_unless_the_spec_says_how(model: str, clip: float | None) -> None:
    usual = plan(model).gradient_clipping
    assert (usual and (usual.value, usual.algorithm)) == (clip and (clip, "norm"))
    asked = {"value": 0.5, "algorithm": "value"}
    assert plan(model, gradientClipping=asked).gradient_clipping == GradientClipping.model_validate(asked)


def test_what_the_spec_asks_for_is_planned() -> None:
    asked = {
        "trainBatchSize": 6,
        "maxEpochs": 7,
        "maxSteps": 11,
        "accumulateGradientBatches": 2,
        "precision": "bfloat16",
        "checkValEveryNEpoch": 5,
        "devices": 3,
        "deterministic": True,
        "earlyStopping": {"metric": "trainLoss", "patience": 9},
        "checkpointing": {"keep": "best", "everyNEpochs": 4},
    }
    found = make_plan(spec("fastflow", {"seed": 17}, **asked), has_gpu=False)
    assert (found.seed, found.batch_size, found.max_epochs, found.max_steps) == (17, 6, 7, 11)
    assert (found.accumulate_grad_batches, found.precision, found.check_val_every_n_epoch) == (2, "bfloat16", 5)
    assert (found.devices, found.deterministic, found.keeps_best, found.monitor) == (3, True, True, "trainLoss")
    assert not_none(found.early_stopping).patience == 9
    assert found.checkpointing.every_n_epochs == 4
    assert found.total_batches(20) == 22, "4 batches an epoch: 28 in 7 epochs, 22 for 11 steps"


@pytest.mark.parametrize(
    ("training", "every"),
    [
        ({}, 1),
        ({"earlyStopping": {"enabled": False}}, None),
        ({"earlyStopping": {"metric": "trainLoss"}}, None),
        ({"earlyStopping": {"enabled": False}, "checkpointing": {"keep": "best"}}, 1),
    ],
    ids=["early stopping by default", "nothing to decide", "by the loss", "the best state"],
)
def test_there_are_validations_where_something_depends_on_them(training: dict[str, Any], every: int | None) -> None:
    assert plan("draem", **training).check_val_every_n_epoch == every


class PlayedModel(nn.Module):
    """Takes down the random number that a fit would begin with."""

    drawn: float | None = None

    def adapt_to_memory(self, images: int, free: int) -> str:
        return ""

    def learn(self, *_: Any) -> None:
        self.drawn = torch.rand(1).item()


@pytest.mark.parametrize(("asked", "batch"), [({}, 32), ({"trainBatchSize": 5}, 5)])
def test_a_model_that_is_fitted_in_one_pass_gets_the_seed_and_the_batches_of_the_spec(
    asked: dict[str, Any], batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Any] = []
    built: list[Any] = []

    def build(*given: Any, **more: Any) -> PlayedModel:
        torch.rand(5)  # as a backbone does
        built.append((given[1:], more["seed"], torch.initial_seed()))
        return PlayedModel()

    def reading(_: ExperimentInputs, *given: Any, **more: Any) -> Iterator[Any]:
        read.append((given, more))
        return iter(())

    monkeypatch.setattr(train, "build_memory_model", build)
    monkeypatch.setattr(train, "free_for_fit", lambda *_: 0)
    monkeypatch.setattr(train, "check_memory", lambda *_: None)
    monkeypatch.setattr(ExperimentInputs, "read", reading)
    given = inputs(tmp_path, spec("padim", {"seed": 17}, **asked), train=SAMPLES)
    trained = train.train(given)
    assert built == [(((256, 256), given.threads, None), 17, 17)]
    model: Any = trained.model
    assert model.drawn == torch.rand(1, generator=torch.Generator().manual_seed(17)).item()
    assert read == [((SAMPLES, batch), {"epoch": 0})]
