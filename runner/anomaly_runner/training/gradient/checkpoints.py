"""Checkpoints of a training, stored with the run's artifacts, so that another pod can continue it.

A checkpoint is saved at the end of an epoch. The order of the images, the augmentations and every random number of the
next epoch then follow from the epoch's number and the saved generators, so that a training that was stopped and resumed
ends with the same weights, bit for bit, as one that was not. Another checkpoint is saved at the end of the training,
for a run that is stopped in a later stage.

Checkpoints are saved to the pod's own disk, which takes at most a twentieth of the training time, not counting the last
one. The newest is uploaded every few minutes, and when the run is stopped. A checkpoint that does not fit on the disk
or is damaged never fails a run: a resumed run then only repeats more epochs.
"""

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from anomaly_api.training import Checkpointing
from anomaly_runner.errors import RunFailed, Stopped
from anomaly_runner.models.damaged_weights import is_damaged_file
from anomaly_runner.storage import Store

logger = logging.getLogger(__name__)

CHECKPOINT_KEY = "checkpoint/last.ckpt"
"""Key below the run's artifacts; deleted once the run is published."""
FORMAT_VERSION = 3
"""Version of the runner's own parts of a checkpoint: ``Checkpointer``'s metadata and the states of the callbacks.

A release that changes any of these increments it; a checkpoint of another version is not resumed. Version 1 had no
number, and its metadata under another key; version 2 had no curve.
"""
_METADATA_KEY = "anomaly_runner"
_SAVE_INTERVAL_FACTOR = 20
"""Shortest time between two checkpoints, as a multiple of the time that saving one takes."""
_BYTES_PER_SECOND = 300e6
"""Assumed speed of the disk, until a checkpoint has been saved."""
_COPIES_PER_PARAMETER = 3
"""The parameter itself and Adam's two moments."""


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """A checkpoint that an earlier pod of this run has left."""

    path: Path
    """The checkpoint on this machine's disk."""
    step: int
    """Number of steps that the optimisers have taken."""
    batches: int
    """Number of batches that the module has seen."""
    batch_size: int
    """Images in a batch, on all devices together."""
    finished: bool
    """Whether nothing is left to train."""


class Checkpointer(Callback):  # type: ignore[misc]
    """Save checkpoints after epochs and at the end; implements ``ResumableState``.

    Args:
        store: the run's artifacts.
        work: folder on this machine's disk.
        spec: whether and how often checkpoints are saved.
        fingerprint: of the configuration and the images; a checkpoint with another fingerprint is not resumed.
    """

    def __init__(self, store: Store, work: Path, spec: Checkpointing, fingerprint: str) -> None:
        self._store, self._spec, self._fingerprint = store, spec, fingerprint
        self._file = work / "last.ckpt"
        self._needs_upload = False
        self._saved_at = self._uploaded_at = time.monotonic()
        self._save_seconds: float | None = None
        self._finished = False

    @cached_property
    def resume_point(self) -> ResumePoint | None:
        """The checkpoint to resume from, downloaded on first access; None to start from the beginning.

        Raises:
            StorageUnavailable: the storage does not answer.
            StorageDenied: the credentials may not read it.
        """
        if not self._spec.enabled:
            return None
        stored = [info for info in self._store.list(CHECKPOINT_KEY) if info.key == CHECKPOINT_KEY]
        if not stored:
            return None
        self._store.download(stored[0], self._file)
        checkpoint = self._load()
        if checkpoint is None:
            logger.warning("the checkpoint at %s is damaged: training begins anew", self._store.uri)
            return None
        metadata = checkpoint.get(_METADATA_KEY, {})
        if metadata.get("format") != FORMAT_VERSION:
            logger.warning("the checkpoint at %s is of another release: training begins anew", self._store.uri)
            return None
        if metadata["fingerprint"] != self._fingerprint:
            logger.warning("the checkpoint at %s is of another configuration: training begins anew", self._store.uri)
            return None
        return ResumePoint(
            path=self._file,
            step=int(checkpoint["global_step"]),
            batches=metadata["batches"],
            batch_size=metadata["batch_size"],
            finished=metadata["finished"],
        )

    def _load(self) -> dict[str, Any] | None:
        """The downloaded checkpoint; None if it is damaged."""
        try:
            checkpoint: dict[str, Any] = torch.load(self._file, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:
            if not is_damaged_file(error):
                raise
            return None
        return checkpoint

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the metadata that ``resume_point`` reads."""
        checkpoint[_METADATA_KEY] = {
            "format": FORMAT_VERSION,
            "fingerprint": self._fingerprint,
            "batches": trainer.fit_loop.total_batch_idx + 1,
            "batch_size": trainer.datamodule.train_batch_size,
            "finished": self._finished,
        }

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Skip a training that is finished: early stopping may have ended it before its last epoch."""
        trainer.should_stop = self.resume_point is not None and self.resume_point.finished

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a checkpoint if one is due, and upload it if an upload is due."""
        if not self._spec.enabled or (trainer.current_epoch + 1) % self._spec.every_n_epochs:
            return
        save_seconds = self._save_seconds or _expected_save_seconds(pl_module)
        if time.monotonic() - self._saved_at < _SAVE_INTERVAL_FACTOR * save_seconds:
            return
        self._save(trainer)
        if self._saved_at - self._uploaded_at >= 60 * self._spec.every_n_minutes:
            self._upload()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state, for a run that is stopped in a later stage."""
        self._finished = True
        if self._spec.enabled:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        began = time.monotonic()
        try:
            trainer.save_checkpoint(self._file)
            self._needs_upload = True
        except OSError as error:
            logger.warning("the state of the training could not be saved: %s", error)
            self._needs_upload = False  # the file may be truncated; the one in the storage is complete
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - began

    @contextmanager
    def preserved(self) -> Iterator[None]:
        """Upload the newest checkpoint if the run is stopped inside this block."""
        try:
            yield
        except Stopped:
            self._upload_if_possible()
            raise

    def _upload_if_possible(self) -> None:
        try:
            self._upload()
        except RunFailed as error:
            logger.warning("the newest state of the training could not be stored: %s", error)

    def _upload(self) -> None:
        if self._needs_upload:
            self._store.upload(self._file, CHECKPOINT_KEY)
            self._needs_upload, self._uploaded_at = False, time.monotonic()

    def discard(self) -> None:
        """Delete the stored checkpoint, once the run is published."""
        if self._spec.enabled:
            self._store.delete(CHECKPOINT_KEY)


def _expected_save_seconds(module: LightningModule) -> float:
    size: int = sum(parameter.nbytes for parameter in module.parameters())
    return _COPIES_PER_PARAMETER * size / _BYTES_PER_SECOND


class RngState(Callback):  # type: ignore[misc]
    """Save the states of all random number generators in checkpoints: torch's, CUDA's, numpy's and Python's."""

    state_key = "rngState"

    def __init__(self) -> None:
        self._to_restore: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The generators' states, as plain data and tensors: checkpoints are loaded with ``weights_only``."""
        version, numbers, gauss = random.getstate()
        name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
        state = {
            "torch": torch.get_rng_state(),
            "python": [version, list(numbers), gauss],
            "numpy": [name, torch.from_numpy(np.array(keys, np.int64)), position, has_gauss, cached],
        }
        return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until the first epoch begins: Lightning's setup before it may draw random numbers."""
        self._to_restore = state_dict

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the generators, once."""
        if self._to_restore is None:
            return
        state, self._to_restore = self._to_restore, None
        torch.set_rng_state(state["torch"].cpu())
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers), gauss))
        name, keys, position, has_gauss, cached = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"].cpu())
