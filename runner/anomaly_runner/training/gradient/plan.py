"""What a training by gradient will do, settled from the manifest and the model's own defaults. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.model import ModelName
from anomaly_api.training import BatchSizeFinder, Checkpointing, EarlyStopping, GradientClipping
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import DataInvalid, InvalidConfig
from anomaly_runner.models.catalog import CATALOG, ModelEntry

LOSS = "trainLoss"


@dataclass(frozen=True)
class Plan:
    """The course of a training.

    ``epochs`` or ``steps`` bound it, whichever comes first; None is no bound. ``watched``: metric that early stopping
    and the best state go by. ``validate_every``: epochs between validations, None for none but the model's own
    calibration. ``batch_size``: images of a step on all ``devices``.
    """

    model: ModelName
    seed: int
    batch_size: int
    epochs: int | None
    steps: int | None
    accumulate: int
    precision: str
    clipping: GradientClipping | None
    early_stopping: EarlyStopping | None
    watched: str
    validate_every: int | None
    checkpointing: Checkpointing
    finder: BatchSizeFinder | None
    devices: int = 1

    @property
    def keeps_best(self) -> bool:
        """Whether the best state is kept instead of the last."""
        return self.checkpointing.keep == "best"

    def total_batches(self, images: int) -> int:
        """Batches at most, for this many images; a model that steps its optimisers itself ends earlier by its steps."""
        batches = -(-images // self.batch_size)
        bounds = (self.epochs and self.epochs * batches, self.steps and self.steps * self.accumulate)
        return min(bound for bound in bounds if bound)


def make_plan(spec: ExperimentSpec, has_gpu: bool) -> Plan:
    """The plan of an experiment.

    Raises:
        InvalidConfig: something that this model or this machine cannot do.
    """
    entry, training = CATALOG[spec.model.name], spec.training
    _check(spec, entry, has_gpu)
    early_stopping = _early_stopping(training.early_stopping, entry)
    bounded = training.max_epochs or training.max_steps
    plan = Plan(
        model=spec.model.name,
        seed=spec.dataset.seed,
        batch_size=training.train_batch_size or entry.training.batch_size,
        epochs=training.max_epochs if bounded else entry.training.epochs,
        steps=training.max_steps if bounded else entry.training.steps,
        accumulate=training.accumulate_gradient_batches,
        precision=training.precision,
        clipping=training.gradient_clipping or _default_clipping(entry),
        early_stopping=early_stopping,
        watched=(training.early_stopping or EarlyStopping()).metric,
        validate_every=None,
        checkpointing=training.checkpointing,
        finder=training.batch_size_finder,
        devices=training.devices or 1,
    )
    needs = plan.keeps_best or early_stopping is not None
    every = training.check_val_every_n_epoch or (1 if needs and plan.watched != LOSS else None)
    return replace(plan, validate_every=every)


def _early_stopping(asked: EarlyStopping | None, entry: ModelEntry) -> EarlyStopping | None:
    if asked is not None:
        return asked if asked.enabled else None
    return EarlyStopping(patience=entry.training.patience) if entry.training.patience else None


def _default_clipping(entry: ModelEntry) -> GradientClipping | None:
    return GradientClipping(value=entry.training.clip) if entry.training.clip else None


def _check(spec: ExperimentSpec, entry: ModelEntry, has_gpu: bool) -> None:
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
    if training.precision == "float16" and not has_gpu:
        raise InvalidConfig("training.precision float16 needs a GPU; use bfloat16 or float32")
    watched = training.early_stopping.metric if training.early_stopping else None
    if watched == "pixelAUROC" and not entry.localises:
        raise InvalidConfig(f"training.earlyStopping.metric pixelAUROC: {name} has no pixel scores")


def untold(plan: Plan, judged: Sequence[Sample]) -> str | None:
    """Why the metric that something goes by cannot be computed from these validation images at all, if so."""
    if plan.watched == LOSS or not (plan.keeps_best or plan.early_stopping):
        return None
    if not {sample.defect for sample in judged} >= {True, False}:
        return f"{plan.watched} needs good and defective images in val/ or test/"
    if plan.watched == "pixelAUROC" and not any(sample.mask for sample in judged):
        return "pixelAUROC needs masks"
    return None


def without_stopping(plan: Plan, validate_every: int | None) -> Plan:
    """The plan without early stopping and the validations that were there for it alone."""
    return replace(plan, early_stopping=None, validate_every=validate_every)


def check_calibration(plan: Plan, judged: Sequence[Sample]) -> None:
    """Whether a model that calibrates itself on good validation images will find one.

    Raises:
        DataInvalid: it will not.
    """
    if CATALOG[plan.model].loop.calibrates_after_training and not any(sample.defect is False for sample in judged):
        raise DataInvalid(
            f"{plan.model} calibrates itself on good images of val/, or of test/ where there is no val/: "
            "none of them is known to be good; add some"
        )
