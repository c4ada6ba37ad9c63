"""How the model is trained. Memory-bank models (PaDiM, PatchCore, DFM ...) see every training image once and have no
epochs; for the others, unset fields default to the values of the model's paper (see the table of models in docs/)."""

from operator import attrgetter
from typing import Annotated, Literal

from pydantic import Field

from anomaly_api.base import Contract
from anomaly_api.primitives import BatchSize, Steps

Precision = Literal["float32", "tf32", "float16", "bfloat16"]


WatchedMetric = Literal["imageAUROC", "imageF1Max", "pixelAUROC", "trainLoss"]
"""A metric of a running training: of its validations, or its loss."""


class EarlyStopping(Contract):
    """Stop when a metric has not improved for a while."""

    enabled: bool = True
    """false: train all epochs, even if the model's default would stop early."""
    metric: WatchedMetric = "imageAUROC"
    """Metric that is watched: one of the validation images' raw scores (the test images' if there is no
    validation set), or the mean training loss of an epoch."""
    patience: Annotated[int, Field(ge=1, le=10_000)] = 3
    """Validations without improvement before stopping."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """Smallest change that counts as improvement."""


class BatchSizeFinder(Contract):
    """Find the largest training batch that fits in memory."""

    mode: Literal["power", "binarySearch"] = "power"
    """power: sizes double while they fit, or halve until one does. binarySearch: then those between are tried too."""
    steps: Annotated[int, Field(ge=1, le=100)] = 3
    """Training steps tried at each size."""
    initial: BatchSize = 8
    """First size tried."""
    maximum: BatchSize = 256
    """Largest size tried; it is never more than the training images."""


class Checkpointing(Contract):
    """Save the state of training, so that a stopped run can resume, and choose which state is kept at the end."""

    enabled: bool = True
    """Upload the newest checkpoint to the output location on SIGTERM and at the interval below; false: a stopped run
    starts over."""
    every_n_epochs: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Fewest epochs between two checkpoints in the pod; more where saving one takes longer than a twentieth of them."""
    every_n_minutes: Annotated[float, Field(gt=0)] = 10.0
    """Least time between two uploads of the newest checkpoint to the output location, minutes."""
    keep: Literal["last", "best"] = "last"
    """Which state the run tests and exports: that after the last epoch, or the best by earlyStopping.metric."""


class GradientClipping(Contract):
    """Bound the gradients."""

    value: Annotated[float, Field(gt=0)]
    """Largest norm or value."""
    algorithm: Literal["norm", "value"] = "norm"
    """What is bounded."""


class TrainingProfile(Contract):
    """Record some steps of the training with torch's profiler; a step is a batch, the fields are those of
    torch.profiler.schedule."""

    wait: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Steps that pass before anything happens."""
    warmup: Annotated[int, Field(ge=0, le=100)] = 1
    """Steps after them that are recorded and thrown away: the first ones take longer."""
    active: Annotated[int, Field(ge=1, le=50)] = 3
    """Steps after them that are recorded: a trace has every operator of each, so a few steps fill megabytes."""


class Training(Contract):
    """Batch sizes and the course of training."""

    max_epochs: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Passes over the training images, for models that train by gradient; with neither it nor maxSteps, the model's
    default."""
    max_steps: Steps | None = None
    """Most optimiser steps; training ends at the first of the two limits. A step takes accumulateGradientBatches
    batches; but GANomaly takes two steps per batch, and CFLOW one per fiberBatchSize positions of each layer."""
    train_batch_size: BatchSize | None = None
    """Images per training step, on all devices together; unset means the model's default."""
    accumulate_gradient_batches: Annotated[int, Field(ge=1, le=1024)] = 1
    """Batches whose gradients are added up before the weights change."""
    eval_batch_size: BatchSize = 32
    """Images per prediction batch."""
    num_workers: Annotated[int, Field(ge=0, le=128)] | None = None
    """Threads that read and decode images; unset means one per CPU of the pod."""
    precision: Precision = "float32"
    """Floating-point type of training. float16 and bfloat16 are mixed precision, weights stay float32; float16 needs a
    GPU. tf32 rounds the factors of products to 10 bits of mantissa, on GPUs of compute capability 8.0 or higher. Scores
    and exports are exact float32 in any case. Backbones use the channels-last layout by themselves."""
    deterministic: bool = False
    """Train on GPUs to the same weights each time, bit for bit, with algorithms that may be slower; a model that has an
    operator without such an algorithm is refused. Trainings on CPUs always are deterministic."""
    devices: Annotated[int, Field(ge=1, le=64)] | None = None
    """GPUs of the pod that train together, each on an equal share of trainBatchSize, where the model allows it; unset
    means one."""
    check_val_every_n_epoch: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Epochs between validations; unset means none, or every epoch where earlyStopping or checkpointing.keep best need
    them."""
    early_stopping: EarlyStopping | None = None
    """When to stop early; unset means the model's default."""
    batch_size_finder: BatchSizeFinder | None = None
    """Find the batch size instead of taking trainBatchSize; unset means off."""
    checkpointing: Checkpointing = Checkpointing()
    """Save the state of training."""
    gradient_clipping: GradientClipping | None = None
    """Bound the gradients; unset means the model's default."""
    profile: TrainingProfile | None = None
    """Record what some steps spend their time and memory on; {} takes the defaults, unset means off."""


EPOCH_FIELDS = (
    "max_epochs",
    "max_steps",
    "check_val_every_n_epoch",
    "early_stopping",
    "batch_size_finder",
    "gradient_clipping",
)
"""Fields that only gradient training can act on."""
EPOCH_DEFAULTS = {
    field: attrgetter(field)(Training())
    for field in (
        "precision",
        "deterministic",
        "accumulate_gradient_batches",
        "checkpointing.enabled",
        "checkpointing.every_n_epochs",
        "checkpointing.every_n_minutes",
        "checkpointing.keep",
    )
}
"""Further such fields with their defaults, which models without gradient training must not change."""
