"""What this runner does between Lightning's steps: watches the loss, judges validations, keeps the best state.

Metrics are those of all validation images' raw scores, gathered once and judged by the runner's own exact curves:
metrics logged by batch, or of scores squashed into 0..1, have picked wrong epochs (anomalib issues #2337, #3407).
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from anomaly_runner.data.masks import MaskReader
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import Diverged
from anomaly_runner.evaluation.curves import auroc, best_f1_threshold, confusion_at
from anomaly_runner.evaluation.labelled import sort_labelled_scores
from anomaly_runner.scoring.predict import Predictions
from anomaly_runner.training.gradient.plan import LOSS, Plan

History = dict[str, list[tuple[int, float]]]
Measure = Callable[[int, Mapping[str, float]], None]


class Watch(Callback):  # type: ignore[misc]
    """Counts steps, gathers the loss, and stops what has diverged.

    Args:
        step: called after each training step; may raise to stop.
        history: filled with (step, value) by name.
    """

    def __init__(self, step: Callable[[], None], history: History) -> None:
        self._step = step
        self._history = history
        self._losses: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the step's loss."""
        loss = _loss_of(outputs)
        if not math.isfinite(loss):
            raise Diverged(
                f"the training loss became {loss} in epoch {trainer.current_epoch}, step "
                f"{trainer.global_step}: lower the learning rate, or look at the images"
            )
        self._losses.append(loss)
        self._step()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The epoch's mean loss."""
        mean = float(np.mean(self._losses))
        self._losses.clear()
        self._history.setdefault("trainLoss", []).append((trainer.global_step, mean))
        pl_module.log("trainLoss", mean)

    def state_dict(self) -> dict[str, Any]:
        """The history goes on where a checkpoint is taken up."""
        return {name: [list(entry) for entry in values] for name, values in self._history.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._history.update({name: [(step, value) for step, value in values] for name, values in state_dict.items()})


def _loss_of(outputs: Any) -> float:
    """The step's loss; of several (GANomaly), their sum."""
    found = outputs if isinstance(outputs, Mapping) else {"loss": outputs}
    parts = [found["loss"]] if "loss" in found else list(found.values())
    return float(sum(float(torch.as_tensor(part).detach().sum()) for part in parts))


class Trial(Callback):  # type: ignore[misc]
    """Ends a training after some batches.

    Args:
        batches: how many.
        check: called after each; may raise to stop.
    """

    def __init__(self, batches: int, check: Callable[[], None]) -> None:
        self._batches, self._check = batches, check

    def on_train_batch_end(self, trainer: Trainer, *place: Any) -> None:
        """Look whether it is enough."""
        self._check()
        trainer.should_stop = trainer.fit_loop.total_batch_idx + 1 >= self._batches


class Judge(Callback):  # type: ignore[misc]
    """Metrics of each validation, from the raw scores of all its images.

    Args:
        samples: validation images in their order.
        masks: their ground truth, where pixel scores are wanted.
        history: filled with (step, value) by name.
        check: called after each batch; may raise to stop.
    """

    def __init__(
        self,
        samples: tuple[Sample, ...],
        masks: MaskReader | None,
        work: Path,
        history: History,
        check: Callable[[], None],
    ) -> None:
        self._samples, self._masks, self._work, self._history = samples, masks, work, history
        self._check = check
        self.step: int | None = None
        """Of training, when the validation images were last looked at."""
        self._scores: list[np.ndarray[Any, Any]] = []
        self._maps: list[np.ndarray[Any, Any]] = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *place: Any, **where: Any
    ) -> None:
        """Keep the raw outputs."""
        self._scores.append(outputs.pred_score.detach().float().reshape(-1).cpu().numpy().copy())
        if self._masks is not None:
            maps = outputs.anomaly_map.detach().float().cpu().numpy()
            self._maps.append(maps.reshape(-1, *maps.shape[-2:]).copy())
        self._check()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge them all together."""
        self.step = trainer.global_step
        scores, maps = np.concatenate(self._scores), np.concatenate(self._maps) if self._maps else None
        self._scores.clear()
        self._maps.clear()
        if not np.isfinite(scores).all():
            raise Diverged(f"scores of validation images are not numbers after epoch {trainer.current_epoch}")
        for name, value in self._metrics(scores, maps).items():
            pl_module.log(name, value)
            if not trainer.sanity_checking:
                self._history.setdefault(name, []).append((trainer.global_step, value))

    def _metrics(self, scores: Any, maps: Any) -> dict[str, float]:
        span = (0.0, 0.0) if maps is None else (float(maps.min()), float(maps.max()))
        predictions = Predictions(self._samples, scores, maps, span)
        truth = sort_labelled_scores(predictions, self._masks, self._work)
        found: dict[str, float] = {}
        if truth.image.has_both_classes:
            found["imageAUROC"] = auroc(truth.image)
            found["imageF1Max"] = confusion_at(truth.image, best_f1_threshold(truth.image)).f1
        if truth.pixel is not None and truth.pixel.has_both_classes:
            found["pixelAUROC"] = auroc(truth.pixel)
        return found


class Best(Callback):  # type: ignore[misc]
    """The best state by the watched metric, kept on the CPU, and carried through checkpoints."""

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self._sign = -1.0 if metric == LOSS else 1.0
        self._value = -math.inf
        self.epoch: int | None = None
        self._state: dict[str, torch.Tensor] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at a validation."""
        if not trainer.sanity_checking and self._metric != LOSS:
            self._consider(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at an epoch's loss."""
        if self._metric == LOSS:
            self._consider(trainer, pl_module)

    def _consider(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = trainer.callback_metrics.get(self._metric)
        if found is not None and self._sign * float(found) > self._value:
            self._value, self.epoch = self._sign * float(found), trainer.current_epoch
            self._state = {name: value.detach().cpu().clone() for name, value in pl_module.state_dict().items()}

    def restore(self, module: LightningModule) -> None:
        """Bring the best state back, if there was one."""
        if self._state:
            module.load_state_dict(self._state)

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"value": self._value, "epoch": self.epoch, "state": self._state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._value, self.epoch, self._state = state_dict["value"], state_dict["epoch"], state_dict["state"]


class Tell(Callback):  # type: ignore[misc]
    """Tells somebody after each epoch what is new in the history.

    Args:
        measure: takes a step and values by name, and returns at once.
    """

    def __init__(self, measure: Measure, history: History) -> None:
        self._measure, self._history = measure, history
        self._told = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What lies before a checkpoint has been told by the pod that was there."""
        self._told = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell; Lightning's validations come before."""
        for name, points in self._history.items():
            for step, value in points:
                if step > self._told:
                    self._measure(step, {name: value})
        self._told = trainer.global_step


def early_stopping(plan: Plan) -> EarlyStopping | None:
    """Lightning's own, on the metrics above."""
    spec = plan.early_stopping
    if spec is None:
        return None
    loss = spec.metric == LOSS
    return EarlyStopping(
        monitor=spec.metric,
        patience=spec.patience,
        min_delta=spec.min_delta,
        mode="min" if loss else "max",
        strict=False,
        check_on_train_epoch_end=loss,
    )
