"""The course of a training while it runs: shown after each epoch, and the training ended if that is asked for.

The operator of a sweep looks at the curves of its trials, and gives up those that fall behind. It can only ask: the
training goes on unless it hears of it, and ends after a whole epoch.
"""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from anomaly_api.status import Curve
from anomaly_api.training import WatchedMetric
from anomaly_runner.training.curve import make_curve
from anomaly_runner.training.gradient.callbacks import MetricRecorder, recorded_name
from anomaly_runner.training.gradient.training_plan import TRAIN_LOSS

ShowCurve = Callable[[Curve], None]
"""Takes the curve so far; returns at once."""
AskedToEnd = Callable[[], str | None]
"""Returns why the training is to end after this epoch; None to go on."""


class LiveCurve(Callback):  # type: ignore[misc]
    """Show the curve after each epoch, and end the training after it if asked to. Must come after all metrics.

    Args:
        watched: metric of the curve, where it is recorded; the training loss where it is not.
        recorder: has the metrics.
        show: takes the curve.
        asked: whether the training is to end.
    """

    state_key = "liveCurve"

    def __init__(self, watched: WatchedMetric, recorder: MetricRecorder, show: ShowCurve, asked: AskedToEnd) -> None:
        self._watched, self._recorder = watched, recorder
        self._show, self._asked = show, asked
        self._epochs: dict[int, int] = {}
        self.pruned: str | None = None
        """Why the training was ended; None if it was not."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the curve; then end the training if that was asked for and it would go on."""
        self._epochs[trainer.global_step] = trainer.current_epoch + 1
        self.show()
        why = self._asked()
        if why is not None and not _is_last_epoch(trainer):
            self.pruned = why
            trainer.should_stop = True

    def show(self) -> None:
        """Show the curve so far, if it has begun."""
        history = self._recorder.history
        synthetic = bool(history.get(recorded_name(self._watched, synthetic=True)))
        name = recorded_name(self._watched, synthetic)
        metric: WatchedMetric = self._watched if history.get(name) else TRAIN_LOSS
        recorded = history.get(recorded_name(metric, synthetic), ())
        points = [(self._epochs[step], value) for step, value in recorded if step in self._epochs]
        if points:
            self._show(make_curve(metric, points, synthetic=synthetic))

    def state_dict(self) -> dict[str, Any]:
        """Pairs of step and epochs, and why the training was ended."""
        return {"epochs": [list(pair) for pair in self._epochs.items()], "pruned": self.pruned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state before the checkpoint: a training that was ended stays so."""
        self._epochs = dict(state_dict["epochs"])
        self.pruned = state_dict["pruned"]


def _is_last_epoch(trainer: Trainer) -> bool:
    """Whether the training ends after this epoch anyway; -1 is Lightning's number for no limit.

    Not by ``fit_loop.done``, which changes the count of epochs when it is read here.
    """
    epochs, steps = trainer.max_epochs or -1, trainer.max_steps
    return bool(
        trainer.should_stop
        or (epochs != -1 and trainer.current_epoch + 1 >= epochs)
        or (steps != -1 and trainer.global_step >= steps)
    )
