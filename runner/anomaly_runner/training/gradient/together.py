"""One training on several devices, a process each: every step's gradients are averaged before the optimiser sees them.

Each process runs a Trainer of its own that knows of one device; torch's DistributedDataParallel lies around the
training step alone. So what only the first process does (validations, early stopping, checkpoints, telling) meets no
barrier that the others would have to meet too. What has to be agreed on beside the gradients is one number an epoch:
whether to stop. Images are shared out so that the average of the devices is the mean over the batch, and a training
ends with the same weights on any number of devices, but for rounding.

Weights and buffers are the first process's: the others are sent them before the first step.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch import distributed as dist
from torch._C._distributed_c10d import Store

from anomaly_runner.errors import DataInvalid
from anomaly_runner.training.gradient.images import Share

_LOOPBACK = "lo"
_FOR_EVER = timedelta(days=365)
"""Nobody waits for a dead process (see ``followers``), and validations may take any time."""


def join(store: Store, share: Share, device: torch.device) -> None:
    """Meet the other processes; returns when all are there.

    CPU tensors go by gloo also between GPUs, so that waiting for a validation keeps no GPU busy. All of them are in one
    pod: they meet in a file and listen on the loopback interface alone.
    """
    os.environ |= {"GLOO_SOCKET_IFNAME": _LOOPBACK, "NCCL_SOCKET_IFNAME": _LOOPBACK}
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=share.rank, world_size=share.devices, timeout=_FOR_EVER)


class Together(Callback):  # type: ignore[misc]
    """Keeps this process's training in step with the others'; the last of its callbacks.

    Args:
        batch_size: images of a step on all devices.
        images: of an epoch.
        check: called between batches; raises when another process is gone.
    """

    def __init__(self, share: Share, batch_size: int, images: int, check: Callable[[], None]) -> None:
        self._share, self._batch_size, self._images, self._check = share, batch_size, images, check
        self._joined = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take a share of the images, and wrap the training step: the module is on its device and has its state."""
        if not self._joined:
            self._joined = True
            trainer.datamodule.share = self._share
            for buffer in pl_module.buffers():
                dist.broadcast(buffer, 0)
            pl_module.training_step = self._averaged(pl_module)

    def _averaged(self, module: LightningModule) -> Callable[..., dict[str, Tensor]]:
        """A training step whose loss is shown as the mean over all devices, and whose gradients become it."""
        # a static graph: the first step finds which parameters take part, frozen backbones are not always marked so
        step = nn.parallel.DistributedDataParallel(_Step(module), broadcast_buffers=False, static_graph=True)

        def training_step(batch: Any, batch_idx: int) -> dict[str, Tensor]:
            own: Tensor = step(batch, batch_idx) * self._weight(batch, batch_idx)
            shown = own.detach().clone()
            dist.all_reduce(shown)
            return {"loss": own + (shown / self._share.devices - own.detach())}

        return training_step

    def _weight(self, batch: Any, batch_idx: int) -> float:
        images = min(self._batch_size, self._images - batch_idx * self._batch_size)
        expected = max(1, len(range(self._share.rank, images, self._share.devices)))
        if len(batch.image) != expected:
            raise DataInvalid(
                f"{expected - len(batch.image)} training images of step {batch_idx} could not be read "
                "again; they had been readable before"
            )
        return self._share.weight(images)

    def on_train_batch_end(self, *place: Any) -> None:
        """Look after the others."""
        self._check()

    def on_validation_batch_end(self, *place: Any) -> None:
        """Look after the others."""
        self._check()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The first process says whether the training is over."""
        stop = torch.tensor(int(trainer.should_stop))
        dist.broadcast(stop, 0)
        trainer.should_stop = bool(stop)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the module its own step back."""
        del pl_module.training_step


class _Step(nn.Module):
    """A module's own training step as a forward pass, which DistributedDataParallel can be laid around."""

    def __init__(self, module: LightningModule) -> None:
        super().__init__()
        self.module = module
        self._step = module.training_step

    def forward(self, batch: Any, batch_idx: int) -> Tensor:
        found = self._step(batch, batch_idx)
        loss: Tensor = found["loss"]
        return loss
