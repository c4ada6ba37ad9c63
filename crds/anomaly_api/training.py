"""How the model is trained. PaDiM and PatchCore see every training image once and have no epochs."""

from typing import Annotated, Literal

from pydantic import Field

from anomaly_api.base import Contract
from anomaly_api.primitives import BatchSize
from anomaly_api.rules import not_yet, only_yet

Precision = Literal["float32", "float16", "bfloat16"]


class EarlyStopping(Contract):
    """Stop when a metric has not improved for a while."""

    metric: Literal["imageAUROC", "imageF1Score", "pixelAUROC", "trainLoss"] = "imageAUROC"
    """What is watched."""
    patience: Annotated[int, Field(ge=1, le=10_000)] = 3
    """Validations without improvement before stopping."""


class BatchSizeFinder(Contract):
    """Find the largest training batch that fits in memory."""

    mode: Literal["power", "binarySearch"] = "power"
    """How the size grows."""
    steps: Annotated[int, Field(ge=1, le=100)] = 3
    """Training steps tried at each size."""
    initial: BatchSize = 8
    """First size tried."""
    maximum: BatchSize = 256
    """Largest size tried."""


class Checkpointing(Contract):
    """Save the state of training so that a stopped run can go on."""

    every_n_epochs: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Epochs between checkpoints."""


class GradientClipping(Contract):
    """Bound the gradients."""

    value: Annotated[float, Field(gt=0)]
    """Largest norm or value."""
    algorithm: Literal["norm", "value"] = "norm"
    """What is bounded."""


class Training(Contract):
    """Batch sizes and the course of training."""

    rules = (
        not_yet("max_epochs"),
        not_yet("check_val_every_n_epoch"),
        not_yet("early_stopping"),
        not_yet("batch_size_finder"),
        not_yet("checkpointing"),
        not_yet("gradient_clipping"),
        not_yet("devices"),
        only_yet("precision", "float32"),
    )

    max_epochs: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Passes over the training images, for models that train by gradient."""
    train_batch_size: BatchSize = 32
    """Images a training step."""
    eval_batch_size: BatchSize = 32
    """Images a prediction step."""
    num_workers: Annotated[int, Field(ge=0, le=128)] | None = None
    """Threads that read and decode images; unset means one a CPU of the pod."""
    precision: Precision = "float32"
    """Floating-point type of the model."""
    devices: Annotated[int, Field(ge=1, le=64)] | None = None
    """GPUs used; unset means what scheduling.gpus asks for."""
    check_val_every_n_epoch: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Epochs between validations."""
    early_stopping: EarlyStopping | None = None
    """When to stop early."""
    batch_size_finder: BatchSizeFinder | None = None
    """Find the batch size."""
    checkpointing: Checkpointing | None = None
    """Save the state of training."""
    gradient_clipping: GradientClipping | None = None
    """Bound the gradients."""
