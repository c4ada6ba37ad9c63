"""Training by gradient under Lightning's Trainer: from the beginning or a checkpoint to the trained module."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.memory import garbage_collection_cuda
from numpy.typing import NDArray

from anomaly_api.run import TrainingReport
from anomaly_runner.data.masks import MaskReader
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import InvalidConfig, OutOfMemory, Stopped
from anomaly_runner.models.catalog import CATALOG
from anomaly_runner.models.threads import gpu_arithmetic
from anomaly_runner.system.machine import cpu_limit
from anomaly_runner.system.out_of_memory import is_out_of_memory
from anomaly_runner.training.gradient.auxiliary_images import make_auxiliary_images_reproducible
from anomaly_runner.training.gradient.callbacks import (
    BestState,
    LogMetrics,
    LossMonitor,
    MetricRecorder,
    MetricsReporter,
    StopAfter,
    ValidationMetrics,
    build_early_stopping,
)
from anomaly_runner.training.gradient.checkpoints import Checkpointer, RngState
from anomaly_runner.training.gradient.data_module import ImageDataModule
from anomaly_runner.training.gradient.ddp import GradientSync
from anomaly_runner.training.gradient.live_curve import AskedToEnd, LiveCurve, ShowCurve
from anomaly_runner.training.gradient.training_plan import TRAIN_LOSS, TrainingPlan
from anomaly_runner.training.gradient.worker_spec import WorkerSpec
from anomaly_runner.training.gradient.workers import running_workers

_PRECISIONS = {"float32": "32-true", "tf32": "32-true", "float16": "16-mixed", "bfloat16": "bf16-mixed"}
"""Lightning's names of the spec's precisions."""
_STEPS_PER_READING = 32
"""Steps on a GPU after which their losses are read together."""
_NOT_DETERMINISTIC = "does not have a deterministic implementation"
"""torch's words where ``use_deterministic_algorithms`` refuses an operator."""


@dataclass(frozen=True, kw_only=True)
class FitContext:
    """Device, folder, progress and metric log of a training."""

    device: torch.device
    work: Path
    """Folder on this machine's disk."""
    advance: Callable[[int], None]
    """Reports the number of batches done since the last call; raises Stopped if the run was asked to stop."""
    log_metrics: LogMetrics
    show_curve: ShowCurve = lambda _: None
    """Takes the course of the training so far, after each epoch."""
    asked_to_end: AskedToEnd = lambda: None
    """Why the training is to end after the epoch at work; None to go on."""

    def check(self) -> None:
        """Check whether the run was asked to stop.

        Raises:
            Stopped: the run was asked to stop.
        """
        self.advance(0)


@dataclass(frozen=True, kw_only=True)
class Training:
    """Everything that takes part in a training."""

    module: Any
    """anomalib's Lightning module, trained in place."""
    data: ImageDataModule
    plan: TrainingPlan
    checkpointer: Checkpointer
    context: FitContext
    validation_metrics: ValidationMetrics | None
    """None where the plan has no validations."""
    recorder: MetricRecorder
    """Filled during the training."""
    worker_spec: WorkerSpec | None = None
    """For the processes of the other devices; None where there is one device."""


def fit(training: Training, on_step: Callable[[], None] = lambda: None) -> TrainingReport:
    """Train the module in place, from the beginning or from the checkpoint of an earlier pod.

    Args:
        training: everything that takes part.
        on_step: called after each batch.

    Raises:
        Diverged: the loss, or a score, became NaN or infinite.
        DataInvalid: a training image that had been readable could not be read again.
        InvalidConfig: training.deterministic, and the GPU has no deterministic algorithm for an operator.
        OutOfMemory: the process of another device had too little memory.
        InternalError: the process of another device failed for another reason.
        Stopped: the run was asked to stop; the newest checkpoint has been stored.
    """
    plan, module, context = training.plan, training.module, training.context
    best = BestState(plan.monitor) if plan.keeps_best else None
    live = LiveCurve(plan.monitor, training.recorder, context.show_curve, context.asked_to_end)
    with training.checkpointer.preserved(), training_threads(plan.devices), quiet_libraries():
        # train, on all devices
        with _workers(training) as gradient_sync, training_arithmetic(plan):
            callbacks = _callbacks(training, on_step, best, live, gradient_sync)
            trainer = build_trainer(plan, context, callbacks, validates=training.validation_metrics is not None)
            _run(trainer, training)
            live.show()  # a training that an earlier pod has finished shows nothing by itself
        # restore the best state if the spec asks for it, and make the module ready to score on its device
        if best is not None:
            best.restore(module)
        module.to(context.device).eval()
        # EfficientAD calibrates its maps in every validation: repeat that unless the last one saw the kept state
        if CATALOG[plan.model].loop.calibrates_after_training and not _is_calibrated(trainer, training, best):
            with torch.no_grad():
                module.on_validation_start()
    return _report(trainer, training, best, live)


def _workers(training: Training) -> AbstractContextManager[GradientSync | None]:
    """Run the processes of the other devices; does nothing if there is one device or the training is finished."""
    resume = training.checkpointer.resume_point
    if training.worker_spec is None or (resume is not None and resume.finished):
        return nullcontext()
    spec = replace(training.worker_spec, checkpoint=resume.path if resume else None)
    return running_workers(spec, training.data)


def _callbacks(
    training: Training,
    on_step: Callable[[], None],
    best: BestState | None,
    live: LiveCurve,
    gradient_sync: GradientSync | None,
) -> list[Callback]:
    """Callbacks in the order in which Lightning calls them.

    Metrics come before what reads them. Checkpoints come after everything that has a state. GradientSync is the last,
    because it broadcasts what early stopping, or who watches the curve, has decided.
    """
    context, recorder = training.context, training.recorder

    def advance() -> None:
        on_step()
        context.advance(1)

    callbacks = [
        LossMonitor(advance, recorder, 1 if context.device.type == "cpu" else _STEPS_PER_READING),
        training.validation_metrics,
        best,
        build_early_stopping(training.plan),
        live,
        MetricsReporter(context.log_metrics, recorder),
        RngState(),
        training.checkpointer,
        gradient_sync,
    ]
    return [callback for callback in callbacks if callback is not None]


def _run(trainer: Trainer, training: Training) -> None:
    resume = training.checkpointer.resume_point
    make_auxiliary_images_reproducible(training.module, training.plan.seed)
    if resume:
        skip_preparation(training.module, training.plan)
    # progress counts batches: a module with manual optimisation may take several optimiser steps a batch
    training.context.advance(resume.batches if resume else 0)
    with sigterm_as_stopped():
        checkpoint = resume.path if resume else None
        trainer.fit(training.module, datamodule=training.data, ckpt_path=checkpoint, weights_only=True)


@contextmanager
def sigterm_as_stopped() -> Iterator[None]:
    """Raise Stopped where Lightning notices SIGTERM first.

    Lightning's own exception is a SystemExit with exit code 0, which would report success.
    """
    try:
        yield
    except SIGTERMException as error:
        raise Stopped from error


@contextmanager
def training_arithmetic(plan: TrainingPlan) -> Iterator[None]:
    """Let GPUs compute with the plan's precision and determinism inside the block.

    Raises:
        InvalidConfig: the plan is deterministic, and torch has no deterministic algorithm for an operator.
    """
    try:
        with gpu_arithmetic(tf32=plan.precision == "tf32", deterministic=plan.deterministic):
            yield
    except RuntimeError as error:
        if not plan.deterministic or _NOT_DETERMINISTIC not in str(error):
            raise
        raise InvalidConfig(f"training.deterministic: {str(error).partition('.')[0]}: set it to false") from error


def skip_preparation(module: Any, plan: TrainingPlan) -> None:
    """Keep a module from preparing itself on all training images again: the checkpoint restores the result."""
    if CATALOG[plan.model].loop.prepares_before_training:
        module.on_train_start = lambda: None


def find_batch_size(build: Callable[[], Any], data: ImageDataModule, plan: TrainingPlan, context: FitContext) -> int:
    """Find the largest training batch that fits into memory, up to the size of the training set.

    The returned size was tried, whereas Lightning's own finder may return its maximum without trying it.

    Args:
        build: makes a new module for each trial. Copies could share what a trial changes, such as DRAEM's hooks.

    Raises:
        OutOfMemory: not even one image fits.
        Stopped: the run was asked to stop.
    """
    finder, configured = plan.batch_size_finder, data.train_batch_size
    assert finder is not None
    batches = finder.steps * plan.accumulate_grad_batches  # optimisers allocate memory in their first step

    def fits(size: int) -> bool:
        data.train_batch_size = size
        try:
            trainer = build_trainer(plan, context, [StopAfter(batches, context.check)], validates=False)
            trainer.fit(build(), datamodule=data)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):  # Lightning's own judge knows neither cuBLAS nor cuDNN
                raise
            return False
        finally:
            garbage_collection_cuda()
        return True

    maximum = min(finder.maximum, data.training_count)
    with training_threads(), quiet_libraries(), sigterm_as_stopped(), training_arithmetic(plan):
        size = largest_fitting(fits, finder.initial, maximum, finer=finder.mode != "power")
    data.train_batch_size = configured
    if not size:
        raise OutOfMemory(
            "training.batchSizeFinder: not even one image a step fits in memory: lower inputSize, or "
            "take a smaller model"
        )
    return size


def largest_fitting(fits: Callable[[int], bool], initial: int, maximum: int, finer: bool) -> int:
    """Find the largest size up to ``maximum`` that fits; 0 if none does.

    Tries doubled sizes from ``initial`` on, or halved ones until one fits.

    Args:
        finer: bisect afterwards between the largest size that fits and the smallest that does not.
    """
    good, size, bad = 0, min(initial, maximum), maximum + 1
    while good < size < bad:
        good, bad = (size, bad) if fits(size) else (good, size)
        size = min(2 * good, maximum) if bad > maximum else (good + bad) // 2 if finer and good else bad // 2
    return good


def build_validation_metrics(
    plan: TrainingPlan,
    samples: tuple[Sample, ...],
    masks: MaskReader | None,
    context: FitContext,
    recorder: MetricRecorder,
    *,
    valid: NDArray[np.bool_] | None = None,
) -> ValidationMetrics | None:
    """The callback that computes this plan's validation metrics; None if the plan has no validations."""
    if plan.check_val_every_n_epoch is None:
        return None
    return ValidationMetrics(samples, masks, context.work, recorder, context.check, valid=valid)


def build_trainer(plan: TrainingPlan, context: FitContext, callbacks: list[Callback], validates: bool) -> Trainer:
    """Lightning's Trainer on this process's device: seeded, without loggers, checkpoints and bars.

    Deterministic on CPUs, and on GPUs where the plan asks for it.
    """
    seed_everything(plan.seed, workers=False, verbose=False)
    on_gpu = context.device.type == "cuda"
    return Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=[context.device.index or 0] if on_gpu else 1,
        precision=_PRECISIONS[plan.precision],
        max_epochs=plan.max_epochs or -1,
        max_steps=plan.max_steps or -1,
        accumulate_grad_batches=plan.accumulate_grad_batches,
        gradient_clip_val=plan.gradient_clipping.value if plan.gradient_clipping else None,
        gradient_clip_algorithm=plan.gradient_clipping.algorithm if plan.gradient_clipping else None,
        limit_val_batches=None if validates else 0,
        check_val_every_n_epoch=plan.check_val_every_n_epoch or 1,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        deterministic=plan.deterministic or not on_gpu,
        default_root_dir=context.work,
    )


def _is_calibrated(trainer: Trainer, training: Training, best: BestState | None) -> bool:
    """Whether the last validation, which calibrated the module, used the state that is kept."""
    if training.validation_metrics is None:
        return False
    if best is not None and best.epoch is not None:
        # a best state by a validation metric was copied right after that validation
        return training.plan.monitor != TRAIN_LOSS
    return bool(training.validation_metrics.last_step == trainer.global_step)


def _report(trainer: Trainer, training: Training, best: BestState | None, live: LiveCurve) -> TrainingReport:
    resume = training.checkpointer.resume_point
    return TrainingReport(
        epochs=trainer.current_epoch,
        steps=trainer.global_step,
        batch_size=training.data.train_batch_size,
        devices=training.plan.devices,
        stopped_early=_stopped_early(trainer),
        pruned=live.pruned,
        kept_epoch=best.epoch if best else max(trainer.current_epoch - 1, 0),
        resumed_from_step=resume.step if resume else None,
        history={name: tuple(points) for name, points in training.recorder.history.items()},
    )


def _stopped_early(trainer: Trainer) -> bool:
    return any(callback.stopped_epoch > 0 for callback in trainer.early_stopping_callbacks)


@contextmanager
def training_threads(processes: int = 1) -> Iterator[None]:
    """Let torch's operators use this process's share of the CPUs, and restore the number of threads afterwards.

    Scoring on CPUs spreads batches over them instead; training steps depend on each other, so only operators can.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, cpu_limit() // processes))
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(False)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Suppress warnings, and the advice of Lightning and anomalib about loggers, workers and devices.

    These are set on purpose here, so the advice does not apply.
    """
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
