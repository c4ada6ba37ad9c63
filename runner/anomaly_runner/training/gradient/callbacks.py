"""Lightning callbacks that monitor the loss, compute validation metrics, keep the best state and report metrics.

Metrics are computed from the raw scores of all validation images together, by the runner's own exact curves: metrics
averaged over batches, or of scores squashed into 0..1, have picked wrong epochs (anomalib issues #2337, #3407).

Callbacks with a state define their own ``state_key``: Lightning's default contains the class's name, so that renaming a
class would silently drop its part of every checkpoint. A changed key, or changed contents under it, needs a new
``checkpoints.FORMAT_VERSION``.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from numpy.typing import NDArray

from anomaly_runner.data.masks import MaskReader
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import Diverged
from anomaly_runner.evaluation.curves import auroc, best_f1_threshold, confusion_at
from anomaly_runner.evaluation.labelled import sort_labelled_scores
from anomaly_runner.scoring.predict import Predictions
from anomaly_runner.tracking.tracker import MetricHistory
from anomaly_runner.training.gradient.training_plan import TRAIN_LOSS, TrainingPlan

LogMetrics = Callable[[int, Mapping[str, float]], None]
"""Logs metrics by name for a training step; returns without waiting for the tracker."""


def recorded_name(metric: str, synthetic: bool) -> str:
    """The name under which a metric of validations is recorded: with synthetic defects, imageAUROC is another one."""
    return f"synthetic{metric[0].upper()}{metric[1:]}" if synthetic else metric


class MetricRecorder:
    """The metrics of a running training: written by some callbacks, read by others and by the report."""

    def __init__(self) -> None:
        self._points: dict[str, list[tuple[int, float]]] = {}

    @property
    def history(self) -> MetricHistory:
        """All metrics recorded so far."""
        return self._points

    def record(self, name: str, step: int, value: float) -> None:
        """Add the value of a metric after a training step."""
        self._points.setdefault(name, []).append((step, value))

    def after(self, step: int) -> Iterator[tuple[str, int, float]]:
        """Iterate over the (name, step, value) of all records with a higher step."""
        for name, points in self._points.items():
            for at, value in points:
                if at > step:
                    yield name, at, value

    def restore(self, history: MetricHistory) -> None:
        """Replace the records of the metrics in ``history``."""
        self._points.update({name: [(step, value) for step, value in points] for name, points in history.items()})


class LossMonitor(Callback):  # type: ignore[misc]
    """Record the mean loss of each epoch, and end a training that has diverged.

    Saves all recorded metrics in checkpoints, and restores them.

    Args:
        on_step: called after each training step; may raise to stop the training.
        read_every: steps after which losses are read; 1 finds one that is not a number at once, but reading a loss
            makes the CPU wait for the GPU. All are read before a validation and at the end of an epoch, and so before
            any state is kept as the best or saved.
    """

    state_key = "metrics"

    def __init__(self, on_step: Callable[[], None], recorder: MetricRecorder, read_every: int = 1) -> None:
        self._on_step, self._read_every = on_step, read_every
        self._recorder = recorder
        self._unread: list[tuple[int, torch.Tensor]] = []
        self._losses: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss of the batch, and check those that are not read yet if it is time to.

        Raises:
            Diverged: a loss is NaN or infinite.
        """
        self._unread.append((trainer.global_step, _loss_of(outputs)))
        if len(self._unread) >= self._read_every:
            self._read(trainer)
        self._on_step()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the losses that are not read yet; raises as ``on_train_batch_end``."""
        self._read(trainer)

    def _read(self, trainer: Trainer) -> None:
        if not self._unread:
            return
        steps, losses = zip(*self._unread, strict=True)
        self._unread.clear()
        for step, loss in zip(steps, torch.stack(losses).tolist(), strict=True):
            if not math.isfinite(loss):
                raise Diverged(
                    f"the training loss became {loss} in epoch {trainer.current_epoch}, step "
                    f"{step}: lower the learning rate, or look at the images"
                )
            self._losses.append(loss)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the epoch's mean loss, also for Lightning's EarlyStopping; raises as ``on_train_batch_end``."""
        self._read(trainer)
        mean = float(np.mean(self._losses))
        self._losses.clear()
        self._recorder.record(TRAIN_LOSS, trainer.global_step, mean)
        pl_module.log(TRAIN_LOSS, mean)

    def state_dict(self) -> dict[str, Any]:
        """The recorded metrics as plain data."""
        return {name: [list(point) for point in points] for name, points in self._recorder.history.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the metrics that were recorded before the checkpoint."""
        self._recorder.restore(state_dict)


def _loss_of(outputs: Any) -> torch.Tensor:
    """The loss of a step, float64 on its device; where a module has several (GANomaly), their sum."""
    losses = outputs if isinstance(outputs, Mapping) else {"loss": outputs}
    parts = [losses["loss"]] if "loss" in losses else list(losses.values())
    total: torch.Tensor = sum(torch.as_tensor(part).detach().sum().double() for part in parts)  # type: ignore[assignment]
    return total


class StopAfter(Callback):  # type: ignore[misc]
    """End a training after a number of batches.

    Args:
        batches: that number.
        check: called after each batch; may raise to stop the training.
    """

    def __init__(self, batches: int, check: Callable[[], None]) -> None:
        self._batches, self._check = batches, check

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop the training after the last of the batches."""
        self._check()
        trainer.should_stop = trainer.fit_loop.total_batch_idx + 1 >= self._batches


class ValidationMetrics(Callback):  # type: ignore[misc]
    """Compute the metrics of each validation from the raw scores of all its images together.

    Args:
        samples: validation images in the order of the data module.
        masks: their ground truth; None where pixel metrics are not needed.
        work: folder for files of pixel scores, which may not fit into memory.
        recorder: takes imageAUROC, imageF1Max and pixelAUROC, each where it is defined, by ``recorded_name``.
        check: called after each batch; may raise to stop the training.
        valid: mask (H, W) of the pixels that count; None for all pixels.
    """

    def __init__(
        self,
        samples: tuple[Sample, ...],
        masks: MaskReader | None,
        work: Path,
        recorder: MetricRecorder,
        check: Callable[[], None],
        *,
        valid: NDArray[np.bool_] | None = None,
    ) -> None:
        self._samples, self._masks, self._work, self._recorder = samples, masks, work, recorder
        self._valid = valid
        self._synthetic = any(sample.source is not None for sample in samples)
        self._check = check
        self.last_step: int | None = None
        """Training step of the last validation; None before the first."""
        self._scores: list[NDArray[np.float32]] = []
        self._maps: list[NDArray[np.float32]] = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any, **__: Any
    ) -> None:
        """Collect raw scores (B,) and, for pixel metrics, raw anomaly maps (B, H, W)."""
        self._scores.append(outputs.pred_score.detach().float().reshape(-1).cpu().numpy().copy())
        if self._masks is not None:
            maps = outputs.anomaly_map.detach().float().cpu().numpy()
            self._maps.append(maps.reshape(-1, *maps.shape[-2:]).copy())
        self._check()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the metrics and log them, also for Lightning's EarlyStopping.

        Raises:
            Diverged: scores are NaN or infinite.
        """
        self.last_step = trainer.global_step
        scores, maps = np.concatenate(self._scores), np.concatenate(self._maps) if self._maps else None
        self._scores.clear()
        self._maps.clear()
        if not np.isfinite(scores).all():
            raise Diverged(f"scores of validation images are not numbers after epoch {trainer.current_epoch}")
        for name, value in self._metrics(scores, maps).items():
            pl_module.log(name, value)
            if not trainer.sanity_checking:
                self._recorder.record(recorded_name(name, self._synthetic), trainer.global_step, value)

    def _metrics(self, scores: NDArray[np.float32], maps: NDArray[np.float32] | None) -> dict[str, float]:
        pixel_range = (0.0, 0.0) if maps is None else (float(maps.min()), float(maps.max()))
        predictions = Predictions(samples=self._samples, scores=scores, maps=maps, pixel_range=pixel_range)
        labelled = sort_labelled_scores(predictions, self._masks, self._work, self._valid)
        metrics: dict[str, float] = {}
        if labelled.image.has_both_classes:
            metrics["imageAUROC"] = auroc(labelled.image)
            metrics["imageF1Max"] = confusion_at(labelled.image, best_f1_threshold(labelled.image)).f1
        if labelled.pixel is not None and labelled.pixel.has_both_classes:
            metrics["pixelAUROC"] = auroc(labelled.pixel)
        return metrics


class BestState(Callback):  # type: ignore[misc]
    """Keep a copy of the module's best state on the CPU, and save it in checkpoints.

    Args:
        monitor: metric by which states are compared: the lowest loss is best, the highest value of any other metric.
    """

    state_key = "bestState"

    def __init__(self, monitor: str) -> None:
        self._monitor = monitor
        self._sign = -1.0 if monitor == TRAIN_LOSS else 1.0
        self._best = -math.inf
        self.epoch: int | None = None
        """Epoch of the best state, counted from 0; None while there is none."""
        self._state: dict[str, torch.Tensor] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the state if the validation's metric is the best so far."""
        if not trainer.sanity_checking and self._monitor != TRAIN_LOSS:
            self._keep_if_better(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the state if the epoch's loss is the lowest so far."""
        if self._monitor == TRAIN_LOSS:
            self._keep_if_better(trainer, pl_module)

    def _keep_if_better(self, trainer: Trainer, pl_module: LightningModule) -> None:
        value = trainer.callback_metrics.get(self._monitor)
        if value is not None and self._sign * float(value) > self._best:
            self._best, self.epoch = self._sign * float(value), trainer.current_epoch
            self._state = {name: value.detach().cpu().clone() for name, value in pl_module.state_dict().items()}

    def restore(self, module: LightningModule) -> None:
        """Load the best state into the module; leave it as it is if there was none."""
        if self._state:
            module.load_state_dict(self._state)

    def state_dict(self) -> dict[str, Any]:
        """The best state with its epoch and its value, which is negated for the loss."""
        return {"value": self._best, "epoch": self.epoch, "state": self._state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best state before the checkpoint."""
        self._best, self.epoch, self._state = state_dict["value"], state_dict["epoch"], state_dict["state"]


class MetricsReporter(Callback):  # type: ignore[misc]
    """Report to the experiment tracker, after each epoch, what was recorded since the last report."""

    def __init__(self, log_metrics: LogMetrics, recorder: MetricRecorder) -> None:
        self._log_metrics, self._recorder = log_metrics, recorder
        self._reported_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Skip metrics from before the checkpoint: the pod that wrote the checkpoint has reported them."""
        self._reported_step = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the epoch's metrics, including its validation: Lightning validates before it calls this hook."""
        for name, step, value in self._recorder.after(self._reported_step):
            self._log_metrics(step, {name: value})
        self._reported_step = trainer.global_step


def build_early_stopping(plan: TrainingPlan) -> EarlyStopping | None:
    """Lightning's EarlyStopping on the metrics above; None where the plan has none."""
    spec = plan.early_stopping
    if spec is None:
        return None
    by_loss = spec.metric == TRAIN_LOSS
    return EarlyStopping(
        monitor=spec.metric,
        patience=spec.patience,
        min_delta=spec.min_delta,
        mode="min" if by_loss else "max",
        strict=False,
        check_on_train_epoch_end=by_loss,
    )
