"""Stage train for anomalib's models: by gradient under Lightning, or in one pass over the images."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch

from anomaly_api.status import Stage
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import InvalidConfig
from anomaly_runner.models.anomalib_model import AnomalibModel, BuildOptions, build_module, scoring_model
from anomaly_runner.models.catalog import CATALOG
from anomaly_runner.system.machine import cpu_limit, give_back_freed_memory
from anomaly_runner.training.gradient.callbacks import History
from anomaly_runner.training.gradient.checkpoints import Keeper
from anomaly_runner.training.gradient.fit import Surroundings as TrainingSurroundings
from anomaly_runner.training.gradient.fit import Training, find_batch_size, fit, judge_of, training_threads
from anomaly_runner.training.gradient.images import Augmented, DecodedImages, ImageData, decode_all
from anomaly_runner.training.gradient.order import Order, ReadAgain
from anomaly_runner.training.gradient.plan import Plan, check_calibration, make_plan, untold, without_stopping
from anomaly_runner.training.inputs import ExperimentJob
from anomaly_runner.training.result import CountedBatches, Trained, check_count

_DECODED_BATCH = 32
_CALIBRATION = 32
"""Training images that likelihoods are related to."""


def by_gradient(job: ExperimentJob) -> Trained:
    """Train by gradient; a run that was stopped goes on from where it was.

    Raises:
        RunFailed: what stopped it.
    """
    plan = _with_told_metric(job, make_plan(job.spec, job.threads.device.type == "cuda"), job.judged)
    check_calibration(plan, job.judged)
    torch.manual_seed(job.spec.dataset.seed)
    with job.context.stage(Stage.DATASET, len(job.dataset.train) + len(job.judged)):
        module = _module(job, plan.batch_size)
        data = _image_data(job, plan)
    plan = _with_told_metric(job, plan, data.validation_samples)  # some may have been unreadable
    check_calibration(plan, data.validation_samples)
    keeper = Keeper(job.artifacts, job.context.work, plan.checkpointing, _fingerprint(job, data))
    plan = _with_found_batch(job, data, plan, keeper)
    with job.context.stage(Stage.TRAIN, plan.total_batches(data.training_count), unit="steps"):
        model = scoring_model(job.spec.model, module, job.preprocessor.size)
        validate_alike(module, model, data)
        training = _training(job, module, data, plan, keeper)
        report = fit(training)
        give_back_freed_memory()
    model = model.to(job.threads.device).eval()
    model.calibrate(torch.from_numpy(data.some_training_images(_CALIBRATION)).to(job.threads.device))
    return Trained(model, data.training_count, report, keeper.kept, keeper.forget)


def _with_told_metric(job: ExperimentJob, plan: Plan, judged: Sequence[Sample]) -> Plan:
    """The plan as far as the images can tell its metric: what was asked for is refused, a default given up."""
    why, training = untold(plan, judged), job.spec.training
    if why is None:
        return plan
    if training.early_stopping and training.early_stopping.enabled:
        raise InvalidConfig(f"training.earlyStopping.metric: {why}; watch trainLoss instead")
    if plan.keeps_best:
        raise InvalidConfig(
            f"training.checkpointing.keep: the best state goes by a metric, and {why}; keep the last, "
            "or set training.earlyStopping.metric: trainLoss"
        )
    job.context.record.warn(f"no early stopping, which {plan.model} has by default: {why}")
    return without_stopping(plan, training.check_val_every_n_epoch)


def validate_alike(module: Any, model: AnomalibModel, data: ImageData) -> None:
    """Let a model whose scores are related to training images be judged by those scores in validations too."""
    if not model.relates_scores:
        return
    images = torch.from_numpy(data.some_training_images(_CALIBRATION))

    def validation_step(batch: Any, batch_idx: int) -> Any:
        if batch_idx == 0:
            model.to(batch.image.device).calibrate(images.to(batch.image.device))
        return model.network(batch.image)

    module.validation_step = validation_step


def _training(job: ExperimentJob, module: Any, data: ImageData, plan: Plan, keeper: Keeper) -> Training:
    samples, around, history = data.validation_samples, _around(job), History()
    masks = job.masks(samples) if plan.watched == "pixelAUROC" else None
    order = _order(job, data, plan) if plan.devices > 1 else None
    judge = judge_of(plan, samples, masks, around, history)
    return Training(module, data, plan, keeper, around, judge, history, order)


def _order(job: ExperimentJob, data: ImageData, plan: Plan) -> Order:
    return Order(
        model=job.spec.model,
        built_for=_built_for(job, plan.batch_size),
        plan=plan,
        samples=data.training_samples,
        augmented=_augmented_elsewhere(job, plan),
        kind=job.threads.device.type,
        work=job.context.work,
    )


def _around(job: ExperimentJob) -> TrainingSurroundings:
    context = job.context
    return TrainingSurroundings(job.threads.device, context.work, context.advance, context.tracker.log_metrics)


def _with_found_batch(job: ExperimentJob, data: ImageData, plan: Plan, keeper: Keeper) -> Plan:
    if plan.finder is None:
        return plan
    known = keeper.batch_size if keeper.found else None
    build = partial(_module, job, plan.batch_size)
    data.train_batch_size = known or find_batch_size(build, data, plan, _around(job))
    return replace(plan, batch_size=data.train_batch_size)


def in_one_pass(job: ExperimentJob) -> Trained:
    """Fit a memory-bank model of anomalib, or set up one that needs no training.

    Raises:
        RunFailed: what stopped it.
    """
    torch.manual_seed(job.spec.dataset.seed)
    with job.context.stage(Stage.TRAIN, len(job.dataset.train) * CATALOG[job.spec.model.name].loop.passes):
        batch_size = job.spec.training.train_batch_size or _DECODED_BATCH
        module = _module(job, batch_size)
        module.model.to(job.threads.device)
        with training_threads(job.threads.device), torch.no_grad():
            seen = _see(job, module, batch_size)
    model = scoring_model(job.spec.model, module, job.preprocessor.size).to(job.threads.device).eval()
    return Trained(model, seen)


def _see(job: ExperimentJob, module: Any, batch_size: int) -> int:
    """Training images that the model was shown."""
    shots: int | None = getattr(job.spec.model.parameters, "k_shot", None)
    if shots is not None:
        return _show(job, module, shots)
    return _learn(job, module, batch_size) if CATALOG[job.spec.model.name].learning == "onePass" else 0


class _Images(NamedTuple):
    """What a training step of a model without gradients looks at."""

    image: torch.Tensor


def _learn(job: ExperimentJob, module: Any, batch_size: int) -> int:
    module.to(job.threads.device).train()
    for _ in range(CATALOG[job.spec.model.name].loop.passes):
        counted = CountedBatches(job.read(job.dataset.train, batch_size, epoch=0), job.context)
        for images in counted.images():
            module.training_step(_Images(images.to(job.threads.device)))
        module.fit()
    return counted.seen


def _show(job: ExperimentJob, module: Any, shots: int) -> int:
    """WinCLIP: words for the class, and the first training images, if any."""
    batches = list(job.read(job.dataset.train[:shots], max(shots, 1))) if shots else []
    images = [torch.from_numpy(batch.images).to(job.threads.device) for batch in batches]
    module.model.setup(_subject(job), torch.cat(images) if images else None)
    return sum(len(batch.samples) for batch in batches)


def _module(job: ExperimentJob, batch_size: int) -> Any:
    return build_module(job.spec.model, _built_for(job, batch_size))


def _built_for(job: ExperimentJob, batch_size: int) -> BuildOptions:
    return BuildOptions(job.preprocessor.size, batch_size, job.weights, _subject(job))


def _subject(job: ExperimentJob) -> str:
    named: str | None = getattr(job.spec.model.parameters, "class_name", None)
    return named or (job.spec.dataset.category or "object").rpartition("/")[2].replace("_", " ")


def _image_data(job: ExperimentJob, plan: Plan) -> ImageData:
    training = _decoded(job, job.dataset.train)
    check_count(len(training.samples))
    augmented = _augmented(job) if job.spec.transforms.augmentations else None
    judged = job.judged if plan.validate_every or CATALOG[plan.model].loop.calibrates_after_training else ()
    eval_batch_size = job.threads.batch_size_for(job.spec.training.eval_batch_size)
    return ImageData(
        training,
        _decoded(job, judged),
        seed=plan.seed,
        train_batch_size=plan.batch_size,
        eval_batch_size=eval_batch_size,
        augmented=augmented,
    )


def _decoded(job: ExperimentJob, samples: tuple[Sample, ...]) -> DecodedImages:
    counted = CountedBatches(job.read(samples, _DECODED_BATCH), job.context)
    return decode_all(counted.batches(), len(samples), job.preprocessor.size, job.context.work)


def _augmented(job: ExperimentJob) -> Augmented:
    return lambda samples, epoch, batch_size: job.read(samples, batch_size, epoch)


def _augmented_elsewhere(job: ExperimentJob, plan: Plan) -> ReadAgain | None:
    """The same for another process, on its share of the CPUs."""
    spec = job.spec.transforms.augmentations
    if spec is None:
        return None
    threads = max(1, (job.spec.training.num_workers or cpu_limit()) // plan.devices)
    return ReadAgain(job.prefetcher.root, job.preprocessor, job.integrity.limits, spec, plan.seed, threads)


def _fingerprint(job: ExperimentJob, data: ImageData) -> str:
    """Of everything that the course of training depends on; a state of another one is not taken up."""
    spec = job.spec.model_dump(mode="json", include={"dataset", "transforms", "model", "training"})
    keys = [sample.key for sample in data.training_samples]
    return hashlib.sha256(json.dumps([spec, keys, data.train_batch_size], sort_keys=True).encode()).hexdigest()
