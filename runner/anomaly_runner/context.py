"""The handles that every stage of a run gets: identity, stores, scratch folder, progress, stop signal and tracker.

The context carries no settings and no results: those are arguments and return values of the stages.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from functools import partial
from operator import itemgetter
from pathlib import Path

from anomaly_api.run import RunIdentity
from anomaly_api.status import Curve, Device, Stage
from anomaly_api.storage import LocationRole
from anomaly_runner.progress import ProgressMeter
from anomaly_runner.storage import Store
from anomaly_runner.system.stop import StopSignal
from anomaly_runner.tracking.tracker import Tracker

logger = logging.getLogger(__name__)

_MAX_WARNING_CHARACTERS = 256


class About(IntEnum):
    """What a warning is about, the most important first: where not all are shown, the last ones are left out."""

    RESULTS = 0
    """Numbers and decisions that mean something else than they seem to, or are left out."""
    RUN = 1
    """The images, the model and what computes."""
    EXTRAS = 2
    """Nothing that a number or a decision depends on: pictures, names, caches, measured times."""


@dataclass
class RunRecord:
    """What a run records about itself for its report.

    Attributes:
        started: when the run began, UTC.
        seconds: wall time by name of the stage; the sum for a stage that was entered more than once.
        device: what computes; None until that is known.
        curve: the course of a training by gradient; None before its first epoch.
        pruned: why the operator wants the training ended; None as long as it does not.
    """

    started: datetime = field(default_factory=partial(datetime.now, UTC))
    seconds: dict[str, float] = field(default_factory=dict)
    device: Device | None = None
    curve: Curve | None = None
    pruned: str | None = None
    _warnings: list[tuple[About, str]] = field(default_factory=list)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Messages for the user, the most important first, at most 256 characters each; the log has them whole."""
        return tuple(message for _, message in sorted(self._warnings, key=itemgetter(0)))

    def warn(self, *messages: str, about: About = About.RUN) -> None:
        """Log messages for the user that do not stop the run, and keep them for the report."""
        for message in messages:
            logger.warning(message)
            self._warnings.append((about, _shortened(message)))

    def show_curve(self, curve: Curve) -> None:
        """Replace the course of the training by a longer one."""
        self.curve = curve

    def prune(self, why: str) -> None:
        """Ask the training to end after the epoch at work, for the first reason; may be called from any thread."""
        if self.pruned is None:
            logger.info("the training is to end after the epoch at work", extra={"detail": why})
            self.pruned = why


def _shortened(message: str) -> str:
    if len(message) <= _MAX_WARNING_CHARACTERS:
        return message
    return f"{message[: _MAX_WARNING_CHARACTERS - 3]}..."


@dataclass(frozen=True, kw_only=True)
class Context:
    """Handles that the stages of one run share.

    Attributes:
        run: which resource the run belongs to.
        stores: the run's locations, by role.
        work: scratch folder on this machine.
        progress: counts the units that are done.
        stop: set by SIGTERM, when the cluster wants the node back.
        tracker: the experiment tracker.
        record: takes warnings and the duration of stages.
    """

    run: RunIdentity
    stores: Mapping[LocationRole, Store]
    work: Path
    progress: ProgressMeter
    stop: StopSignal
    tracker: Tracker
    record: RunRecord

    @contextmanager
    def stage(self, stage: Stage, total: int = 0, unit: str = "images") -> Iterator[None]:
        """Enter a stage of ``total`` units (0: unknown) and measure its wall time.

        Raises:
            Stopped: the run was asked to stop.
        """
        self.stop.check()
        self.progress.enter(stage, total, unit)
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = self.record.seconds.get(stage.value, 0.0)
            self.record.seconds[stage.value] = round(spent + time.perf_counter() - began, 3)

    def advance(self, count: int) -> None:
        """Report that ``count`` more units of the current stage are done.

        Raises:
            Stopped: the run was asked to stop.
        """
        self.stop.check()
        self.progress.advance(count)
