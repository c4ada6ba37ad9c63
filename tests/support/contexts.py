"""Contexts of runs that show no progress, are not tracked and are not asked to stop."""

from collections.abc import Mapping
from pathlib import Path

from anomaly_api.run import RunIdentity
from anomaly_api.storage import LocationRole
from anomaly_runner.context import Context, RunRecord
from anomaly_runner.progress import ProgressMeter
from anomaly_runner.storage import Store
from anomaly_runner.system.stop import StopSignal
from anomaly_runner.tracking.tracker import NoTracker, Tracker

RUN = RunIdentity(kind="AnomalyExperiment", namespace="vision", name="screws", uid="u")


def make_context(
    work: Path = Path("/nowhere"),
    *,
    run: RunIdentity = RUN,
    stores: Mapping[LocationRole, Store] | None = None,
    tracker: Tracker | None = None,
    stop: StopSignal | None = None,
) -> Context:
    """Make the context of a run; ``work`` is its scratch folder."""
    return Context(
        run=run,
        stores=stores or {},
        work=work,
        progress=ProgressMeter(),
        stop=stop or StopSignal(),
        tracker=tracker or NoTracker(),
        record=RunRecord(),
    )
