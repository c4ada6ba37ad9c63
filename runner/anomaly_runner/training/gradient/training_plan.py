"""The plan of a training by gradient, made from the experiment's spec and the model's defaults. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.model import ModelName
from anomaly_api.training import (
    BatchSizeFinder,
    Checkpointing,
    EarlyStopping,
    GradientClipping,
    Precision,
    WatchedMetric,
)
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import DataInvalid, InvalidConfig
from anomaly_runner.models.catalog import CATALOG, ModelEntry

TRAIN_LOSS: Final = "trainLoss"
"""Name of the mean training loss of an epoch, the only metric that needs no validation."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The plan of a training; most fields are named after the arguments of Lightning's Trainer that they set."""

    model: ModelName
    seed: int
    batch_size: int
    """Images in a step, on all devices together."""
    max_epochs: int | None
    """None for no limit; the training ends at whichever limit is reached first."""
    max_steps: int | None
    """Limit of the optimiser's steps; None for no limit."""
    accumulate_grad_batches: int
    precision: Precision
    gradient_clipping: GradientClipping | None
    early_stopping: EarlyStopping | None
    monitor: WatchedMetric
    """Metric that decides early stopping and the best state."""
    check_val_every_n_epoch: int | None
    """None for no validation, except the model's own calibration."""
    checkpointing: Checkpointing
    batch_size_finder: BatchSizeFinder | None
    devices: int = 1
    deterministic: bool = False
    """Whether GPUs may use only algorithms that give the same result each time; CPUs always do."""

    @property
    def keeps_best(self) -> bool:
        """Whether the trained model is the best state, not the last."""
        return self.checkpointing.keep == "best"

    @property
    def needs_metric(self) -> bool:
        """Whether anything depends on the monitored metric."""
        return self.keeps_best or self.early_stopping is not None

    def total_batches(self, images: int) -> int:
        """Largest number of batches of a training on this many images.

        A model with manual optimisation may take several optimiser steps a batch, and so end earlier.
        """
        batches = -(-images // self.batch_size)
        bounds = (
            self.max_epochs and self.max_epochs * batches,
            self.max_steps and self.max_steps * self.accumulate_grad_batches,
        )
        return min(bound for bound in bounds if bound)


def make_plan(spec: ExperimentSpec, has_gpu: bool, *, has_tf32: bool = False) -> TrainingPlan:
    """Make the training plan of an experiment.

    Args:
        spec: the experiment.
        has_gpu: whether the training runs on GPUs.
        has_tf32: whether these GPUs multiply in TF32.

    Raises:
        InvalidConfig: the spec asks for something that this model or this machine cannot do.
    """
    entry, training = CATALOG[spec.model.name], spec.training
    _check_supported(spec, entry)
    _check_precision(training.precision, has_gpu, has_tf32)
    early_stopping = _early_stopping(training.early_stopping, entry)
    # a single limit replaces both defaults: maxSteps must not end at the default number of epochs
    bounded = training.max_epochs or training.max_steps
    plan = TrainingPlan(
        model=spec.model.name,
        seed=spec.dataset.seed,
        batch_size=training.train_batch_size or entry.training.batch_size,
        max_epochs=training.max_epochs if bounded else entry.training.epochs,
        max_steps=training.max_steps if bounded else entry.training.steps,
        accumulate_grad_batches=training.accumulate_gradient_batches,
        precision=training.precision,
        gradient_clipping=training.gradient_clipping or _default_clipping(entry),
        early_stopping=early_stopping,
        monitor=(training.early_stopping or EarlyStopping()).metric,
        check_val_every_n_epoch=None,
        checkpointing=training.checkpointing,
        batch_size_finder=training.batch_size_finder,
        devices=training.devices or 1,
        deterministic=training.deterministic,
    )
    needs_validation = plan.needs_metric and plan.monitor != TRAIN_LOSS
    every = training.check_val_every_n_epoch or (1 if needs_validation else None)
    return replace(plan, check_val_every_n_epoch=every)


def _early_stopping(asked: EarlyStopping | None, entry: ModelEntry) -> EarlyStopping | None:
    if asked is not None:
        return asked if asked.enabled else None
    return EarlyStopping(patience=entry.training.patience) if entry.training.patience else None


def _default_clipping(entry: ModelEntry) -> GradientClipping | None:
    return GradientClipping(value=entry.training.clip) if entry.training.clip else None


def _check_precision(precision: Precision, has_gpu: bool, has_tf32: bool) -> None:
    """Raise InvalidConfig if this machine cannot train with this precision."""
    if precision == "float16" and not has_gpu:
        raise InvalidConfig("training.precision float16 needs a GPU; use bfloat16 or float32")
    if precision == "tf32" and not has_tf32:
        raise InvalidConfig(
            "training.precision tf32 needs a GPU of compute capability 8.0 or higher; use bfloat16 or float32"
        )


def _check_supported(spec: ExperimentSpec, entry: ModelEntry) -> None:
    """Raise InvalidConfig if the spec asks for something that this model cannot do."""
    training, name, batch_size = spec.training, spec.model.name, entry.training.batch_size
    asks_for_another = training.batch_size_finder or training.train_batch_size not in (None, batch_size)
    if entry.loop.fixed_batch_size and asks_for_another:
        raise InvalidConfig(
            f"training.trainBatchSize: {name} trains with {batch_size} image a step alone; "
            "remove it and batchSizeFinder"
        )
    if entry.loop.manual_optimization and (training.gradient_clipping or training.accumulate_gradient_batches > 1):
        raise InvalidConfig(
            f"training: {name} takes its own optimiser steps, which gradientClipping and "
            "accumulateGradientBatches cannot change; remove them"
        )
    monitor = training.early_stopping.metric if training.early_stopping else None
    if monitor == "pixelAUROC" and not entry.localises:
        raise InvalidConfig(f"training.earlyStopping.metric pixelAUROC: {name} has no pixel scores")


def why_metric_unavailable(plan: TrainingPlan, validation: Sequence[Sample]) -> str | None:
    """Why the monitored metric cannot be computed from these validation images.

    None if it can be computed, or if nothing depends on it.
    """
    if plan.monitor == TRAIN_LOSS or not plan.needs_metric:
        return None
    if not {sample.defect for sample in validation} >= {True, False}:
        return f"{plan.monitor} needs good and defective images in val/ or test/"
    if plan.monitor == "pixelAUROC" and not any(sample.has_mask for sample in validation):
        return "pixelAUROC needs masks"
    return None


def without_early_stopping(plan: TrainingPlan, check_val_every_n_epoch: int | None) -> TrainingPlan:
    """The plan without early stopping, and without the validations that only early stopping needed.

    Args:
        check_val_every_n_epoch: as the spec has it; None where it does not ask for validations.
    """
    return replace(plan, early_stopping=None, check_val_every_n_epoch=check_val_every_n_epoch)


def check_calibration(plan: TrainingPlan, validation: Sequence[Sample]) -> None:
    """Check that a model which calibrates itself on good validation images will find one.

    Raises:
        DataInvalid: there is no good validation image.
    """
    if CATALOG[plan.model].loop.calibrates_after_training and not any(sample.defect is False for sample in validation):
        raise DataInvalid(
            f"{plan.model} calibrates itself on good images of val/, or of test/ where there is no val/: "
            "none of them is known to be good; add some"
        )
