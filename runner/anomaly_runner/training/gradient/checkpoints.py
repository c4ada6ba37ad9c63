"""The state of a training, kept where the run's artifacts go, so that another pod can go on from it.

State is saved at the end of an epoch: then the data's order, the augmentations and every source of chance are known
by the epoch's number, and a training that was stopped and taken up again ends with the same weights, bit for bit.
That at the training's end is kept too, for a run that is stopped in a later stage.
Saving to the pod's own disk is bounded to a twentieth of the time, but for the last one; the storage is written to
every some minutes, and when the cluster wants the node back. A state that does not fit on the disk, or was damaged,
costs a stopped run the time that it stands for, and no run its end.
"""

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from anomaly_api.training import Checkpointing
from anomaly_runner.errors import RunFailed, Stopped
from anomaly_runner.models.damage import is_damage
from anomaly_runner.storage import Store

logger = logging.getLogger(__name__)

KEY = "checkpoint/last.ckpt"
"""Below the run's artifacts; removed once the run is published."""
_MARKS = "anomaly_run"
"""What a state says beside Lightning's own: see ``Keeper``."""
_SHARE = 20
_BYTES_A_SECOND = 300e6
"""Guess of the disk's speed, until a state has been saved."""
_COPIES = 3
"""A parameter and what Adam keeps of it."""


class Keeper(Callback):  # type: ignore[misc]
    """Saves the state after epochs, and at the end.

    A state is marked with the fingerprint, the batches that it has seen and their size, and whether its training is
    over.

    Args:
        store: the run's artifacts.
        work: folder on this machine.
        spec: how often.
        fingerprint: of the configuration; a state of another one is not taken up.
    """

    def __init__(self, store: Store, work: Path, spec: Checkpointing, fingerprint: str) -> None:
        self._store, self._spec, self._fingerprint = store, spec, fingerprint
        self._file = work / "last.ckpt"
        self._dirty = False
        self._saved_at = self._stored_at = time.monotonic()
        self._cost: float | None = None
        self.resumed_from: int | None = None
        self.resumed_batches = 0
        self.batch_size: int | None = None
        """Of the state that was found."""
        self.over = False
        """Whether nothing is left to train."""

    @cached_property
    def found(self) -> Path | None:
        """A state that an earlier pod of this run has left, on this machine's disk."""
        if not self._spec.enabled:
            return None
        found = [info for info in self._store.list(KEY) if info.key == KEY]
        if not found:
            return None
        self._store.download(found[0], self._file)
        state = self._loaded()
        if state is None:
            logger.warning("the checkpoint at %s is damaged: training begins anew", self._store.uri)
            return None
        marks = state.get(_MARKS, {})
        if marks.get("fingerprint") != self._fingerprint:
            logger.warning("the checkpoint at %s is of another configuration: training begins anew", self._store.uri)
            return None
        self.resumed_from, self.resumed_batches, self.over = int(state["global_step"]), marks["batches"], marks["over"]
        self.batch_size = marks["batch_size"]
        return self._file

    def _loaded(self) -> dict[str, Any] | None:
        """What the file holds; None if it is damaged."""
        try:
            state: dict[str, Any] = torch.load(self._file, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:
            if not is_damage(error):
                raise
            return None
        return state

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Mark it."""
        checkpoint[_MARKS] = {
            "fingerprint": self._fingerprint,
            "batches": trainer.fit_loop.total_batch_idx + 1,
            "batch_size": trainer.datamodule.train_batch_size,
            "over": self.over,
        }

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train no further where a training is over: early stopping may have ended it."""
        trainer.should_stop = self.over

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if it is time."""
        if not self._spec.enabled or (trainer.current_epoch + 1) % self._spec.every_n_epochs:
            return
        if time.monotonic() - self._saved_at < _SHARE * (self._cost or _guess(pl_module)):
            return
        self._save(trainer)
        if self._saved_at - self._stored_at >= 60 * self._spec.every_n_minutes:
            self.store()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save for a stop in a later stage."""
        self.over = True
        if self._spec.enabled:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        began = time.monotonic()
        try:
            trainer.save_checkpoint(self._file)
            self._dirty = True
        except OSError as error:
            logger.warning("the state of the training could not be saved: %s", error)
            self._dirty = False  # an earlier state may be cut off now; that in the storage is whole
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - began

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Bring the newest state to the storage if the run is stopped within this block."""
        try:
            yield
        except Stopped:
            self._store_if_possible()
            raise

    def _store_if_possible(self) -> None:
        try:
            self.store()
        except RunFailed as error:
            logger.warning("the newest state of the training could not be stored: %s", error)

    def store(self) -> None:
        """Bring the newest state to the storage."""
        if self._dirty:
            self._store.upload(self._file, KEY)
            self._dirty, self._stored_at = False, time.monotonic()

    def forget(self) -> None:
        """The training is over and published."""
        if self._spec.enabled:
            self._store.delete(KEY)


def _guess(module: LightningModule) -> float:
    """Seconds that saving a state may take."""
    size: int = sum(parameter.nbytes for parameter in module.parameters())
    return _COPIES * size / _BYTES_A_SECOND


class Chance(Callback):  # type: ignore[misc]
    """Every source of chance, carried through checkpoints."""

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The generators' states, as plain data and tensors."""
        version, numbers, gauss = random.getstate()
        name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
        state = {
            "torch": torch.get_rng_state(),
            "python": [version, list(numbers), gauss],
            "numpy": [name, torch.from_numpy(np.array(keys, np.int64)), position, has_gauss, cached],
        }
        return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Note them; they are put back when training begins."""
        self._restored = state_dict

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put them back, once."""
        if self._restored is None:
            return
        state, self._restored = self._restored, None
        torch.set_rng_state(state["torch"].cpu())
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers), gauss))
        name, keys, position, has_gauss, cached = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"].cpu())
