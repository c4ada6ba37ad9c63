"""A training by gradient from beginning to end."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error

from anomaly_api.run import TrainingReport
from anomaly_runner.data.masks import MaskReader
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import OutOfMemory, Stopped
from anomaly_runner.models.catalog import CATALOG
from anomaly_runner.system.machine import cpu_limit
from anomaly_runner.training.gradient.auxiliary import draw_in_turn
from anomaly_runner.training.gradient.callbacks import Best, History, Judge, Measure, Tell, Trial, Watch, early_stopping
from anomaly_runner.training.gradient.checkpoints import Chance, Keeper
from anomaly_runner.training.gradient.followers import followers
from anomaly_runner.training.gradient.images import ImageData
from anomaly_runner.training.gradient.order import Order
from anomaly_runner.training.gradient.plan import LOSS, Plan

_PRECISIONS = {"float32": "32-true", "float16": "16-mixed", "bfloat16": "bf16-mixed"}


@dataclass(frozen=True)
class Surroundings:
    """What a training works in: a device, a folder, somebody to tell of steps done and of values measured."""

    device: torch.device
    work: Path
    step: Callable[[int], None]
    measure: Measure

    def check(self) -> None:
        """Raise if the run was asked to stop."""
        self.step(0)


@dataclass(frozen=True)
class Training:
    """Everything that takes part in a training.

    ``module``: anomalib's Lightning module, trained in place. ``judge``: of validations, where the plan has some.
    ``history``: (step, value) by name, filled as it goes. ``order``: for the processes of the other devices, where the
    plan has several.
    """

    module: Any
    data: ImageData
    plan: Plan
    keeper: Keeper
    around: Surroundings
    judge: Judge | None
    history: History
    order: Order | None = None


def fit(training: Training) -> TrainingReport:
    """Train the module in place.

    Raises:
        Diverged: the loss, or a score, is not a number.
        Stopped: the cluster wants the node back; the newest state has been stored.
    """
    plan, keeper, around = training.plan, training.keeper, training.around
    best = Best(plan.watched) if plan.keeps_best else None
    watch = Watch(lambda: around.step(1), training.history)
    tell = Tell(around.measure, training.history)
    callbacks = [watch, training.judge, best, early_stopping(plan), tell, Chance(), keeper]
    with keeper.kept(), training_threads(around.device, plan.devices), quiet():
        state = keeper.found
        order = replace(training.order, state=state) if training.order and not keeper.over else None
        with followers(order, training.data) if order else nullcontext() as together:
            callbacks = [found for found in (*callbacks, together) if found]
            trainer = make_trainer(plan, around, callbacks, validates=training.judge is not None)
            _fit(trainer, training, state)
        if best is not None:
            best.restore(training.module)
        training.module.to(around.device).eval()
        if CATALOG[plan.model].loop.calibrates_after_training and not _is_calibrated(trainer, training, best):
            with torch.no_grad():
                training.module.on_validation_start()
    return _report(trainer, training, best)


def _fit(trainer: Trainer, training: Training, state: Path | None) -> None:
    draw_in_turn(training.module, training.plan.seed)
    if state:
        skip_preparing(training.module, training.plan)
    # in batches: a module that steps its optimisers itself counts several steps in each
    training.around.step(training.keeper.resumed_batches)
    with stopped_by_lightning():
        trainer.fit(training.module, datamodule=training.data, ckpt_path=state, weights_only=True)


@contextmanager
def stopped_by_lightning() -> Iterator[None]:
    """Raise Stopped where Lightning sees SIGTERM first: its own exception would end the process as if all were done."""
    try:
        yield
    except SIGTERMException as error:
        raise Stopped from error


def skip_preparing(module: Any, plan: Plan) -> None:
    """Keep what a checkpoint has brought, instead of looking at all training images again."""
    if CATALOG[plan.model].loop.prepares_before_training:
        module.on_train_start = lambda: None


def find_batch_size(build: Callable[[], Any], data: ImageData, plan: Plan, around: Surroundings) -> int:
    """The largest training batch that was tried and fits in memory; none is larger than the training set.

    Lightning's own search answers its maximum without trying it.

    Args:
        build: makes a module for each trial: a copy may share what a trial changes, as DRAEM's would its hooks.

    Raises:
        OutOfMemory: not even one image fits.
        Stopped: the cluster wants the node back.
    """
    finder, before = plan.finder, data.train_batch_size
    assert finder is not None
    batches = finder.steps * plan.accumulate  # optimisers ask for memory in their first step

    def fits(size: int) -> bool:
        data.train_batch_size = size
        try:
            trainer = make_trainer(plan, around, [Trial(batches, around.check)], validates=False)
            trainer.fit(build(), datamodule=data)
        except RuntimeError as error:
            if not is_oom_error(error):
                raise
            return False
        finally:
            garbage_collection_cuda()
        return True

    with training_threads(around.device), quiet(), stopped_by_lightning():
        found = largest(fits, finder.initial, min(finder.maximum, data.training_count), finer=finder.mode != "power")
    data.train_batch_size = before
    if not found:
        raise OutOfMemory(
            "training.batchSizeFinder: not even one image a step fits in memory: lower inputSize, or "
            "take a smaller model"
        )
    return found


def largest(fits: Callable[[int], bool], initial: int, maximum: int, finer: bool) -> int:
    """The largest size up to ``maximum`` of which ``fits`` was seen to be true, 0 if there is none.

    Sizes double from ``initial``, or halve until one fits; ``finer`` looks between the last two as well.
    """
    good, size, bad = 0, min(initial, maximum), maximum + 1
    while good < size < bad:
        good, bad = (size, bad) if fits(size) else (good, size)
        size = min(2 * good, maximum) if bad > maximum else (good + bad) // 2 if finer and good else bad // 2
    return good


def judge_of(
    plan: Plan, samples: tuple[Sample, ...], masks: MaskReader | None, around: Surroundings, history: History
) -> Judge | None:
    """Who judges the validations of this plan; nobody if there are none."""
    return None if plan.validate_every is None else Judge(samples, masks, around.work, history, around.check)


def make_trainer(plan: Plan, around: Surroundings, callbacks: list[Callback], validates: bool) -> Trainer:
    """Lightning's Trainer on this process's own device."""
    seed_everything(plan.seed, workers=False, verbose=False)
    return Trainer(
        accelerator="gpu" if around.device.type == "cuda" else "cpu",
        devices=[around.device.index or 0] if around.device.type == "cuda" else 1,
        precision=_PRECISIONS[plan.precision],
        max_epochs=plan.epochs or -1,
        max_steps=plan.steps or -1,
        accumulate_grad_batches=plan.accumulate,
        gradient_clip_val=plan.clipping.value if plan.clipping else None,
        gradient_clip_algorithm=plan.clipping.algorithm if plan.clipping else None,
        limit_val_batches=None if validates else 0,
        check_val_every_n_epoch=plan.validate_every or 1,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        deterministic="warn" if around.device.type == "cuda" else True,
        default_root_dir=around.work,
    )


def _is_calibrated(trainer: Trainer, training: Training, best: Best | None) -> bool:
    """Whether the state that is kept was there when validation images were last looked at."""
    if training.judge is None:
        return False
    if best is not None and best.epoch is not None:
        return training.plan.watched != LOSS
    return bool(training.judge.step == trainer.global_step)


def _report(trainer: Trainer, training: Training, best: Best | None) -> TrainingReport:
    return TrainingReport(
        epochs=trainer.current_epoch,
        steps=trainer.global_step,
        batch_size=training.data.train_batch_size,
        devices=training.plan.devices,
        stopped_early=_stopped_early(trainer),
        kept_epoch=best.epoch if best else max(trainer.current_epoch - 1, 0),
        resumed_from_step=training.keeper.resumed_from,
        history={name: tuple(values) for name, values in training.history.items()},
    )


def _stopped_early(trainer: Trainer) -> bool:
    return any(callback.stopped_epoch > 0 for callback in trainer.early_stopping_callbacks)


@contextmanager
def training_threads(device: torch.device, processes: int = 1) -> Iterator[None]:
    """All CPUs of each process inside each operator: steps depend on each other, so there is nothing else to spread."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, cpu_limit() // processes) if device.type == "cpu" else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(False)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's advice about loggers, workers and devices, all of which are as they should be."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "anomalib")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)
