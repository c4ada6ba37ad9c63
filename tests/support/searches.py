"""Searches that are over: a sweep, its status, and the reports that its trials left in a folder."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.run import FAILURE, REPORT, RunConfig, RunIdentity, RunReport, RunSummary, SweepResult
from anomaly_api.status import Device, MetricValues, Stage
from anomaly_api.sweep_status import SweepStatus, Trial
from anomaly_api.sweep_trial import replicate_points, rung_point, trial_spec
from anomaly_runner.reporting.sweep.trials import FoundTrials, find_trials, read_trials
from anomaly_runner.storage import FolderStore
from support.optional import not_none
from support.sweep_specs import sweep_spec

BEGIN = datetime(2026, 7, 1, 8, tzinfo=UTC)
RUN = RunIdentity(kind="AnomalyExperiment", namespace="factory", name="screws", uid="sweep-uid")
SEARCH = "digest-of-the-search"

LEARNING = {"path": "model.padim.nFeatures", "int": {"low": 50, "high": 200}}
SIZE = {
    "path": "transforms.inputSize",
    "choices": [{"height": 64, "width": 64}, {"height": 96, "width": 96}],
}
MODEL = {"path": "model.name", "choices": ["padim", "patchcore"]}
RATIO = {
    "path": "model.patchcore.coresetSamplingRatio",
    "float": {"low": 0.01, "high": 0.2, "log": True},
    "when": {"path": "model.name", "in": ["patchcore"]},
}
CATEGORIES = {"paths": [{"path": "dataset.category", "values": ["bolt", "nut", "screw"]}]}


@dataclass(frozen=True)
class Ran:
    """A trial that ran: which one, with which values, and what came of it."""

    number: int
    values: Mapping[str, Any]
    metrics: Mapping[str, float]
    rung: int = 0
    replicate: int = 0
    reason: str = "Complete"
    message: str = ""
    uid: str = "trial-uid"
    gpus: int = 0


def search_of(spec: ExperimentSpec, **status: Any) -> SweepResult:
    """Return what the last pod of a sweep is told of its search."""
    return SweepResult(spec=not_none(spec.sweep), status=SweepStatus.model_validate({"search": SEARCH, **status}))


def report_of(spec: ExperimentSpec, ran: Ran, **identity: Any) -> RunReport:
    """Return a trial's report."""
    sweep = not_none(spec.sweep)
    which = {"sweep": RUN.name, "sweep_uid": RUN.uid, "search": SEARCH, "number": ran.number, "rung": ran.rung}
    trial = Trial.model_validate({**which, "replicate": ran.replicate, "values": dict(ran.values), **identity})
    point = {**ran.values, **replicate_points(sweep)[ran.replicate], **rung_point(sweep, ran.rung)}
    experiment = ExperimentSpec.model_validate(trial_spec(spec, point)).model_copy(update={"trial": trial})
    suffix = "".join(f"-{letter}{value}" for letter, value in (("g", ran.rung), ("r", ran.replicate)) if value)
    run = RunIdentity(
        kind="AnomalyExperiment",
        namespace=RUN.namespace,
        name=f"{RUN.name}-t{ran.number:04d}{suffix}",
        uid=ran.uid,
    )
    groups: dict[str, dict[str, float]] = {}
    for path, value in ran.metrics.items():
        groups.setdefault(path.split(".")[0], {})[path.split(".")[1]] = value
    device = Device(name="NVIDIA L4", count=ran.gpus, provider="torch cuda") if ran.gpus else None
    summary = {"reason": ran.reason, "message": ran.message, "stage": Stage.DONE}
    return RunReport(
        run=run,
        summary=RunSummary.model_validate(
            {**summary, "metrics": MetricValues.model_validate(groups), "device": device}
        ),
        config=RunConfig(run=run, experiment=experiment),
        started=(BEGIN + timedelta(minutes=ran.number)).isoformat().replace("+00:00", "Z"),
        seconds={"train": 20.0, "predict": 10.0},
    )


def write_reports(root: Path, reports: Iterable[RunReport]) -> None:
    """Write reports below the root of an output location, as the runs of these trials do."""
    for report in reports:
        folder = root / report.run.folder
        folder.mkdir(parents=True, exist_ok=True)
        name = REPORT if report.summary.reason in ("Complete", "Pruned", "ExportMismatch") else FAILURE
        (folder / name).write_text(report.model_dump_json(by_alias=True, exclude_none=True))


def read_all(root: Path, search: SweepResult, run: RunIdentity = RUN) -> FoundTrials:
    """Read the trials of a search below a folder."""
    store = FolderStore(root)
    return read_trials(store, run, search, find_trials(store, run, search), lambda _: None)


def ordinary(trials: int, score: Callable[[int], float]) -> tuple[ExperimentSpec, list[Ran]]:
    """Return a sweep over PaDiM and PatchCore, and trials of it."""
    spec = sweep_spec(MODEL, RATIO, SIZE, change={"model": {"padim": None}})
    ran = []
    for number in range(trials):
        values: dict[str, Any] = {
            "model.name": "patchcore" if number % 2 else "padim",
            "transforms.inputSize": SIZE["choices"][number // 2 % 2],
        }
        if number % 2:
            values["model.patchcore.coresetSamplingRatio"] = 0.01 + 0.19 * (number % 11) / 10
        ran.append(Ran(number, values, {"image.AUROC": score(number), "image.F1Max": 0.5}, gpus=2))
    return spec, ran
