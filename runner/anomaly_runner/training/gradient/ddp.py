"""Distributed data parallel training on the devices of one pod, with one process for each device.

Each process runs a Trainer of its own on one device; torch's DistributedDataParallel wraps only the training step, and
averages the gradients before the optimiser sees them. The work of rank 0 alone (validations, early stopping,
checkpoints, reports) therefore contains no collective operation that the other processes would have to join. Besides
gradients and losses, the processes exchange one number an epoch: whether to stop.

Batches are partitioned so that the average over the devices is the mean over the batch: except for rounding, a training
ends with the same weights on any number of devices. Rank 0 sends its weights and buffers to the others before the first
step.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch import distributed as dist
from torch._C._distributed_c10d import Store

from anomaly_runner.errors import DataInvalid
from anomaly_runner.training.gradient.data_module import BatchPartition

_LOOPBACK = "lo"
_NCCL_SETTINGS = {
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",  # by default the watchdog ends the process at an error of a communicator
    "TORCH_NCCL_RETHROW_CUDA_ERRORS": "0",  # in the watchdog's thread, where nobody can catch them
    "TORCH_NCCL_ENABLE_MONITORING": "0",  # aborts the process where the watchdog is stuck, as while an abort takes long
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "0",
    "TORCH_NCCL_PROPAGATE_ERROR": "0",
}
"""Leave it to ``workers`` to find out that a process has failed, to abort what waits for it, and to say so.

Otherwise NCCL's own watchdog may end rank 0 first, without last words. From torch's ``ProcessGroupNCCL.hpp``.
"""
_NO_TIMEOUT = timedelta(days=365)
"""``workers`` detects a dead process, and the others wait for rank 0's validation, which may take any time."""


def init_process_group(store: Store, partition: BatchPartition, device: torch.device) -> None:
    """Join the process group; returns once all processes have joined.

    CPU tensors go through gloo even where the devices are GPUs, so that waiting for a validation keeps no GPU busy. All
    processes are in one pod: they find each other through a file, and listen only on the loopback interface.
    """
    os.environ |= _NCCL_SETTINGS | {"GLOO_SOCKET_IFNAME": _LOOPBACK, "NCCL_SOCKET_IFNAME": _LOOPBACK}
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, store=store, rank=partition.rank, world_size=partition.world_size, timeout=_NO_TIMEOUT
    )


class EpochSeed(Callback):  # type: ignore[misc]
    """Seed all random number generators of a worker at the beginning of each epoch, by seed, epoch and rank.

    Checkpoints hold the generators of rank 0 alone. Workers so draw the same numbers in a resumed training, and other
    numbers than rank 0, without sending any.
    """

    def __init__(self, seed: int, rank: int) -> None:
        self._seed, self._rank = seed, rank

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed torch's, CUDA's, numpy's and Python's generators."""
        sequence = np.random.SeedSequence([self._seed, trainer.current_epoch, self._rank])
        seed_everything(int(sequence.generate_state(1)[0]), workers=False, verbose=False)


class GradientSync(Callback):  # type: ignore[misc]
    """Average gradients over all processes, and make all of them stop after the same epoch.

    Must be the last of a Trainer's callbacks: it broadcasts what early stopping has decided on rank 0.

    Args:
        partition: this process's part of each batch.
        batch_size: images in a step, on all devices together.
        images: number of training images.
        check: called between batches; raises if another process has ended.
    """

    def __init__(self, partition: BatchPartition, batch_size: int, images: int, check: Callable[[], None]) -> None:
        self._partition, self._batch_size, self._images, self._check = partition, batch_size, images, check
        self._wrapped = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Partition the batches, synchronise the buffers, and wrap the training step, once.

        Not earlier than in the first epoch: until then the module is not on its device, prepared and restored from its
        checkpoint.
        """
        if not self._wrapped:
            self._wrapped = True
            trainer.datamodule.partition = self._partition
            for buffer in pl_module.buffers():
                dist.broadcast(buffer, 0)
            pl_module.training_step = self._synchronised_step(pl_module)

    def _synchronised_step(self, module: LightningModule) -> Callable[..., dict[str, Tensor]]:
        """A training step with averaged gradients, and with the mean over all devices as the value of its loss."""
        # a static graph: the first step finds the trained parameters; frozen backbones do not always mark theirs frozen
        step = nn.parallel.DistributedDataParallel(_TrainingStep(module), broadcast_buffers=False, static_graph=True)

        def training_step(batch: Any, batch_idx: int) -> dict[str, Tensor]:
            own: Tensor = step(batch, batch_idx) * self._loss_weight(batch, batch_idx)
            total = own.detach().clone()
            dist.all_reduce(total)
            # the mean's value with the gradient of this process's own part: DDP averages the gradients itself
            return {"loss": own + (total / self._partition.world_size - own.detach())}

        return training_step

    def _loss_weight(self, batch: Any, batch_idx: int) -> float:
        images = min(self._batch_size, self._images - batch_idx * self._batch_size)
        expected = max(1, len(range(self._partition.rank, images, self._partition.world_size)))
        if len(batch.image) != expected:
            raise DataInvalid(
                f"{expected - len(batch.image)} training images of step {batch_idx} could not be read "
                "again; they had been readable before"
            )
        return self._partition.loss_weight(images)

    def on_train_batch_end(self, *_: Any) -> None:
        """Check that the other processes are still there."""
        self._check()

    def on_validation_batch_end(self, *_: Any) -> None:
        """Check that the other processes are still there."""
        self._check()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after this epoch if rank 0 does."""
        stop = torch.tensor(int(trainer.should_stop))
        dist.broadcast(stop, 0)
        trainer.should_stop = bool(stop)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the module's own training step."""
        del pl_module.training_step


class _TrainingStep(nn.Module):
    """A module's training step as the forward pass that DistributedDataParallel wraps."""

    def __init__(self, module: LightningModule) -> None:
        super().__init__()
        self.module = module
        self._step = module.training_step

    def forward(self, batch: Any, batch_idx: int) -> Tensor:
        outputs = self._step(batch, batch_idx)
        loss: Tensor = outputs["loss"]
        return loss
