"""What every stage of a run is handed: who the run is, where its folders are, how to tell, when to stop."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from anomaly_api.run import RunIdentity
from anomaly_api.status import Stage
from anomaly_api.storage import LocationRole
from anomaly_runner.progress import ProgressMeter
from anomaly_runner.storage import Store
from anomaly_runner.system.stop import StopSignal
from anomaly_runner.tracking.tracker import Tracker

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunRecord:
    """What the report tells beside results: when the run began, seconds a stage, and warnings."""

    started: datetime = field(default_factory=partial(datetime.now, UTC))
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def warn(self, *texts: str) -> None:
        """Note what the user should know but what does not stop the run."""
        for text in texts:
            logger.warning(text)
            self.warnings.append(text[:256])


@dataclass(frozen=True)
class Context:
    """The surroundings of one run."""

    run: RunIdentity
    stores: Mapping[LocationRole, Store]
    work: Path
    progress: ProgressMeter
    stop: StopSignal
    tracker: Tracker
    record: RunRecord

    @contextmanager
    def stage(self, stage: Stage, total: int = 0, unit: str = "images") -> Iterator[None]:
        """Enter a stage: shown to the user, timed, and left at once if the run was asked to stop."""
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
