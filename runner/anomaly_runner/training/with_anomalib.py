"""Stage train for anomalib's models: by gradient under Lightning, or in one pass over the images.

Turns an experiment's inputs into the arguments of ``training.gradient``. Knows nothing of the stages after training.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch

from anomaly_api.parameters import WinclipParameters
from anomaly_api.status import Stage
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import InvalidConfig
from anomaly_runner.models.anomalib_model import AnomalibModel, BuildOptions, build_module, scoring_model
from anomaly_runner.models.catalog import CATALOG
from anomaly_runner.system.machine import cpu_limit, give_back_freed_memory
from anomaly_runner.training.gradient.callbacks import MetricRecorder
from anomaly_runner.training.gradient.checkpoints import Checkpointer
from anomaly_runner.training.gradient.data_module import DecodedImages, ImageDataModule, ReadAugmented, decode_all
from anomaly_runner.training.gradient.fit import (
    FitContext,
    Training,
    build_validation_metrics,
    find_batch_size,
    fit,
    training_threads,
)
from anomaly_runner.training.gradient.training_plan import (
    TrainingPlan,
    check_calibration,
    make_plan,
    why_metric_unavailable,
    without_early_stopping,
)
from anomaly_runner.training.gradient.worker_spec import AugmentedReader, WorkerSpec
from anomaly_runner.training.inputs import ExperimentInputs
from anomaly_runner.training.principal_components import check_enough_images, check_features
from anomaly_runner.training.profile import counted
from anomaly_runner.training.result import CountedBatches, TrainedModel, check_image_count

_DECODING_BATCH_SIZE = 32
_TF32_CAPABILITY = (8, 0)
"""Compute capability of the first GPUs that multiply in TF32 (Ampere)."""
_CALIBRATION_IMAGES = 32
"""Largest number of training images that relative scores are calibrated on."""


def train_by_gradient(inputs: ExperimentInputs) -> TrainedModel:
    """Train by gradient; a run that was stopped continues from its checkpoint.

    Raises:
        DataInvalid: fewer than two training images are readable, or no good validation image to calibrate the model.
        InvalidConfig: the model, the machine or the images cannot do what was asked for.
        WeightsNotFound: pre-trained weights could not be loaded.
        OutOfMemory: not even one image a step fits into memory.
        StorageUnavailable: the storage does not answer, or this machine's disk has no room for the decoded images.
        Diverged: the loss, or a score, became NaN or infinite.
        InternalError: the process of another device failed.
        Stopped: the run was asked to stop; the newest checkpoint has been stored.
    """
    # make the plan from what is known before any image is read
    plan = make_plan(inputs.spec, inputs.threads.device.type == "cuda", has_tf32=_has_tf32(inputs.threads.device))
    plan = _with_available_metric(inputs, plan, inputs.validation_or_test)
    check_calibration(plan, inputs.validation_or_test)

    # build the module and decode the images; without the unreadable ones, a metric may turn out to be unavailable
    torch.manual_seed(inputs.spec.dataset.seed)
    with inputs.context.stage(Stage.DATASET, len(inputs.dataset.train) + len(inputs.validation_or_test)):
        module = _module(inputs, plan.batch_size)
        data = _data_module(inputs, plan)
    plan = _with_available_metric(inputs, plan, data.validation_samples)
    check_calibration(plan, data.validation_samples)

    # look for a checkpoint, which also holds the batch size that an earlier pod has found
    fingerprint = _fingerprint(inputs, data)
    checkpointer = Checkpointer(inputs.artifacts, inputs.context.work, plan.checkpointing, fingerprint)
    plan = _with_batch_size_found(inputs, data, plan, checkpointer)

    # train
    with inputs.context.stage(Stage.TRAIN, plan.total_batches(data.training_count), unit="steps"):
        model = scoring_model(inputs.spec.model, module, inputs.preprocessor.size)
        validate_with_calibrated_scores(module, model, data)
        with inputs.recorded_steps() as step:
            report = fit(_training(inputs, module, data, plan, checkpointer), step)
        give_back_freed_memory()

    # calibrate models whose scores are relative to those of training images
    model = model.to(inputs.threads.device).eval()
    model.calibrate(torch.from_numpy(data.first_training_images(_CALIBRATION_IMAGES)).to(inputs.threads.device))
    return TrainedModel(model, data.training_count, report, state=checkpointer)


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _TF32_CAPABILITY


def _with_available_metric(inputs: ExperimentInputs, plan: TrainingPlan, validation: Sequence[Sample]) -> TrainingPlan:
    """The plan, without the model's default early stopping if its metric cannot be computed from these images.

    Raises:
        InvalidConfig: the metric cannot be computed, and the spec asks for early stopping or for the best state.
    """
    why, training = why_metric_unavailable(plan, validation), inputs.spec.training
    if why is None:
        return plan
    if training.early_stopping and training.early_stopping.enabled:
        raise InvalidConfig(f"training.earlyStopping.metric: {why}; watch trainLoss instead")
    if plan.keeps_best:
        raise InvalidConfig(
            f"training.checkpointing.keep: the best state goes by a metric, and {why}; keep the last, "
            "or set training.earlyStopping.metric: trainLoss"
        )
    inputs.context.record.warn(f"no early stopping, which {plan.model} has by default: {why}")
    return without_early_stopping(plan, training.check_val_every_n_epoch)


def validate_with_calibrated_scores(module: Any, model: AnomalibModel, data: ImageDataModule) -> None:
    """Let validations compute calibrated scores, for models whose scores are relative to those of training images.

    Replaces the module's ``validation_step`` by one that calibrates the model at the beginning of each validation.
    """
    if not model.needs_calibration:
        return
    images = torch.from_numpy(data.first_training_images(_CALIBRATION_IMAGES))

    def validation_step(batch: Any, batch_idx: int) -> Any:
        if batch_idx == 0:
            model.to(batch.image.device).calibrate(images.to(batch.image.device))
        return model.network(batch.image)

    module.validation_step = validation_step


def _training(
    inputs: ExperimentInputs, module: Any, data: ImageDataModule, plan: TrainingPlan, checkpointer: Checkpointer
) -> Training:
    samples, context, recorder = data.validation_samples, _fit_context(inputs), MetricRecorder()
    masks = inputs.masks(samples) if plan.monitor == "pixelAUROC" else None
    return Training(
        module=module,
        data=data,
        plan=plan,
        checkpointer=checkpointer,
        context=context,
        validation_metrics=build_validation_metrics(
            plan, samples, masks, context, recorder, valid=inputs.preprocessor.valid
        ),
        recorder=recorder,
        worker_spec=_worker_spec(inputs, data, plan) if plan.devices > 1 else None,
    )


def _worker_spec(inputs: ExperimentInputs, data: ImageDataModule, plan: TrainingPlan) -> WorkerSpec:
    return WorkerSpec(
        model=inputs.spec.model,
        options=_build_options(inputs, plan.batch_size),
        plan=plan,
        samples=data.training_samples,
        read_augmented=_worker_reader(inputs, plan),
        device_type=inputs.threads.device.type,
        work=inputs.context.work,
    )


def _fit_context(inputs: ExperimentInputs) -> FitContext:
    context = inputs.context
    return FitContext(
        device=inputs.threads.device,
        work=context.work,
        advance=context.advance,
        log_metrics=context.tracker.log_metrics,
        show_curve=context.record.show_curve,
        asked_to_end=lambda: context.record.pruned,
    )


def _with_batch_size_found(
    inputs: ExperimentInputs, data: ImageDataModule, plan: TrainingPlan, checkpointer: Checkpointer
) -> TrainingPlan:
    """The plan with the batch size that fits into memory, where the spec asks for it to be found."""
    if plan.batch_size_finder is None:
        return plan
    if checkpointer.resume_point is not None:
        data.train_batch_size = checkpointer.resume_point.batch_size
    else:
        build = partial(_module, inputs, plan.batch_size)
        data.train_batch_size = find_batch_size(build, data, plan, _fit_context(inputs))
    return replace(plan, batch_size=data.train_batch_size)


def fit_in_one_pass(inputs: ExperimentInputs) -> TrainedModel:
    """Fit one of anomalib's memory-bank models, or set up one that needs no training.

    Raises:
        DataInvalid: fewer than two training images are readable.
        InvalidConfig: parameters that anomalib refuses.
        WeightsNotFound: pre-trained weights could not be loaded.
        Stopped: the run was asked to stop.
    """
    torch.manual_seed(inputs.spec.dataset.seed)
    with inputs.context.stage(Stage.TRAIN, len(inputs.dataset.train) * CATALOG[inputs.spec.model.name].loop.passes):
        batch_size = inputs.spec.training.train_batch_size or _DECODING_BATCH_SIZE
        module = _module(inputs, batch_size)
        module.model.to(inputs.threads.device)
        with training_threads(), torch.no_grad():
            image_count = _fit_module(inputs, module, batch_size)
    model = scoring_model(inputs.spec.model, module, inputs.preprocessor.size).to(inputs.threads.device).eval()
    return TrainedModel(model, image_count)


def _fit_module(inputs: ExperimentInputs, module: Any, batch_size: int) -> int:
    """Fit the module in the way of its model, and return the number of images that it has seen."""
    parameters = inputs.spec.model.parameters
    if isinstance(parameters, WinclipParameters):
        return _set_up_few_shot(inputs, module, parameters.k_shot)
    fits_in_passes = CATALOG[inputs.spec.model.name].learning == "onePass"
    if not fits_in_passes:
        return 0
    with inputs.recorded_steps() as step:
        return _fit_memory_bank(inputs, module, batch_size, step)


class _ImageOnlyBatch(NamedTuple):
    """The part of anomalib's ImageBatch that training steps of memory-bank models read: images (B, 3, H, W)."""

    image: torch.Tensor


def _fit_memory_bank(inputs: ExperimentInputs, module: Any, batch_size: int, step: Callable[[], None]) -> int:
    parameters = inputs.spec.model.parameters
    check_enough_images(parameters, len(inputs.dataset.train))
    module.to(inputs.threads.device).train()
    for _ in range(CATALOG[inputs.spec.model.name].loop.passes):
        batches = CountedBatches(inputs.read(inputs.dataset.train, batch_size, epoch=0), inputs.context)
        for images in counted(batches.images(), step):
            module.training_step(_ImageOnlyBatch(inputs.threads.to_device(images)))
        check_enough_images(parameters, batches.image_count)
        check_features(parameters, module.model)
        module.fit()
    return batches.image_count


def _set_up_few_shot(inputs: ExperimentInputs, module: Any, shots: int) -> int:
    """Set up WinCLIP with the name of the object on the images and with the first ``shots`` training images.

    Returns:
        Number of images that could be read.
    """
    batches = list(inputs.read(inputs.dataset.train[:shots], max(shots, 1))) if shots else []
    images = [torch.from_numpy(batch.images).to(inputs.threads.device) for batch in batches]
    module.model.setup(_subject(inputs), torch.cat(images) if images else None)
    return sum(len(batch.samples) for batch in batches)


def _module(inputs: ExperimentInputs, batch_size: int) -> Any:
    return build_module(inputs.spec.model, _build_options(inputs, batch_size))


def _build_options(inputs: ExperimentInputs, batch_size: int) -> BuildOptions:
    return BuildOptions(inputs.preprocessor.size, batch_size, inputs.weights, _subject(inputs))


def _subject(inputs: ExperimentInputs) -> str:
    """Name of the object on the images, in English: as configured, or the dataset's category."""
    parameters = inputs.spec.model.parameters
    class_name = parameters.class_name if isinstance(parameters, WinclipParameters) else None
    return class_name or (inputs.spec.dataset.category or "object").rpartition("/")[2].replace("_", " ")


def _data_module(inputs: ExperimentInputs, plan: TrainingPlan) -> ImageDataModule:
    training = _decoded(inputs, inputs.dataset.train)
    check_image_count(len(training.samples))
    read_augmented = _read_augmented(inputs) if inputs.spec.transforms.augmentations else None
    validates = plan.check_val_every_n_epoch or CATALOG[plan.model].loop.calibrates_after_training
    return ImageDataModule(
        training,
        _decoded(inputs, inputs.validation_or_test if validates else ()),
        seed=plan.seed,
        train_batch_size=plan.batch_size,
        eval_batch_size=inputs.threads.batch_size_for(inputs.spec.training.eval_batch_size),
        read_augmented=read_augmented,
        for_gpu=inputs.threads.device.type == "cuda",
    )


def _decoded(inputs: ExperimentInputs, samples: tuple[Sample, ...]) -> DecodedImages:
    counted = CountedBatches(inputs.read(samples, _DECODING_BATCH_SIZE), inputs.context)
    return decode_all(counted.batches(), len(samples), inputs.preprocessor.size, inputs.context.work)


def _read_augmented(inputs: ExperimentInputs) -> ReadAugmented:
    return lambda samples, epoch, batch_size: inputs.read(samples, batch_size, epoch)


def _worker_reader(inputs: ExperimentInputs, plan: TrainingPlan) -> AugmentedReader | None:
    """Reader of augmented images for the process of another device, with its share of the CPUs."""
    augmentations = inputs.spec.transforms.augmentations
    if augmentations is None:
        return None
    return AugmentedReader(
        root=inputs.prefetcher.root,
        file_of=inputs.prefetcher.file_of,
        preprocessor=inputs.preprocessor,
        limits=inputs.integrity.limits,
        augmentations=augmentations,
        seed=plan.seed,
        threads=max(1, (inputs.spec.training.num_workers or cpu_limit()) // plan.devices),
    )


def _fingerprint(inputs: ExperimentInputs, data: ImageDataModule) -> str:
    """SHA-256 of everything that the training's result depends on: the spec, the images' keys and the batch size."""
    spec = inputs.spec.model_dump(mode="json", include={"dataset", "transforms", "model", "training"})
    keys = [sample.key for sample in data.training_samples]
    return hashlib.sha256(json.dumps([spec, keys, data.train_batch_size], sort_keys=True).encode()).hexdigest()
