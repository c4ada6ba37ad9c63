"""What is known of a search and of its trials, as files: all that a later call of the same command goes on from.

``sweep.json`` lies where the results of the sweep's own name lie, ``trial.json`` beside each trial's report, with the
trial's experiment as ``trial.yaml``. A trial whose folder is deleted runs again, under its own number.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError

from anomaly_api.base import Contract
from anomaly_api.experiment import AnomalyExperiment, ExperimentSpec
from anomaly_api.reasons import Reason
from anomaly_api.run import FAILURE, REPORT, RunConfig, RunIdentity, RunReport, RunSummary
from anomaly_api.scheduling import RunPolicy
from anomaly_api.status import Stage, Timestamp
from anomaly_api.sweep import Point, TrialLimits
from anomaly_api.sweep_exchange import InvalidTrial, NewTrial, RunOfPoint, TrialRecord, TrialState
from anomaly_api.sweep_status import Trial
from anomaly_runner.errors import MESSAGE_LIMIT, InvalidConfig
from anomaly_runner.locations import local_path
from anomaly_runner.tracking.mlflow_tracker import LOCAL_UID

C = TypeVar("C", bound=Contract)

SWEEP_FILE = "sweep.json"
TRIAL_FILE = "trial.json"
TRIAL_MANIFEST = "trial.yaml"
TRIAL_LOG = "trial.log"
EARLIER_POINTS = 5
"""Best points of a sweep's last search that the next one begins with, where its space has them."""
_NAME_KEPT = 200
"""Characters of a sweep's name with which the names of its trials begin."""


class SearchFile(Contract):
    """One search of a sweep: its trials belong together."""

    number: int
    """Counted from 1; trials of later ones have it in their names."""
    search: str
    """Digest of all in the spec that a trial or a point depends on."""
    spec: dict[str, Any]
    """The experiment with the sweep, as it was last."""
    began: Timestamp
    """When its first trial could start."""
    seconds: float = 0.0
    """Seconds that it was at work, over all calls."""
    earlier: tuple[Point, ...] = ()
    """The best points of an earlier sweep and of this one's last search, as they were when this one began."""


class SweepFile(Contract):
    """sweep.json: the searches of a sweep, by the time of their beginning."""

    searches: tuple[SearchFile, ...] = ()
    """One for each spec that differs in more than its limits."""


class TrialFile(Contract):
    """trial.json: one run of one point, whether it has a report or not."""

    name: str
    """Of its experiment."""
    trial: Trial
    """Which run of which point, and its values."""
    state: Literal["Running", "Complete", "Pruned", "Infeasible", "Failed"] = "Running"
    """How it is; Running also if it was interrupted: it starts again."""
    reason: str = ""
    """Why it is over, in one word; empty if it is complete."""
    message: str = ""
    """The same for people."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """By the paths that objectives have."""
    curve: dict[int, float] = Field(default_factory=dict)
    """The first objective on validation images by epoch, from 0, of a training by gradient."""
    gpu_hours: float = 0.0
    """GPU-hours that it used."""
    started: Timestamp | None = None
    """When its process was started."""
    ended: Timestamp | None = None
    """When it was over."""

    @property
    def which(self) -> RunOfPoint:
        """Which run it is."""
        return RunOfPoint(self.trial.number, self.trial.rung, self.trial.replicate)

    @property
    def seconds(self) -> float:
        """From its start to its end; 0 if either is unknown."""
        started, ended = _time(self.started), _time(self.ended)
        return (ended - started).total_seconds() if started and ended else 0.0

    def over(self, state: TrialState, reason: str, now: datetime, **more: Any) -> "TrialFile":
        """Return the trial as it is once it is over."""
        known = {"state": state, "reason": "" if state == "Complete" else reason, "ended": now.isoformat()}
        return self.model_copy(update=known | more)

    def record(self) -> TrialRecord:
        """Return what the search needs to know."""
        return TrialRecord(
            *self.which,
            values=self.trial.values,
            state=self.state,
            metrics=self.metrics,
            gpu_hours=self.gpu_hours,
            started=_time(self.started),
            ended=_time(self.ended),
            reason=self.reason,
            curve=self.curve,
        )


class SweepFolder:
    """The files of a sweep.

    Args:
        folder: stands for all storage.
        run: the sweep's resource.
        spec: its spec.
    """

    def __init__(self, folder: Path, run: RunIdentity, spec: ExperimentSpec) -> None:
        self._run = run
        self._spec = spec
        self._output = folder / local_path(spec.output)
        self.home = self._output / run.folder
        """Where the results of the sweep's own name lie."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from working on the same sweep.

        Raises:
            InvalidConfig: another one does.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.home, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise InvalidConfig(f"another process is at work on the sweep {self._run.name} in {self.home}") from error
        try:
            yield
        finally:
            os.close(handle)

    def search(self, now: datetime) -> SearchFile:
        """Return the search of this spec: one that has begun, or a new one.

        Raises:
            InvalidConfig: the earlier sweep that it starts from has no trials here.
        """
        known = self._sweep_file(self.home).searches
        digest = search_digest(self._spec)
        document = self._spec.to_json_object()
        for one in known:
            if one.search == digest:
                return one.model_copy(update={"spec": document})
        earlier = (*self._earlier_points(), *self._best_of(self._run.name, known[-1:], EARLIER_POINTS))
        began = now.isoformat()
        return SearchFile(number=len(known) + 1, search=digest, spec=document, began=began, earlier=earlier)

    def keep_search(self, search: SearchFile) -> None:
        """Write what is known of a search."""
        others = [one for one in self._sweep_file(self.home).searches if one.number != search.number]
        searches = sorted((*others, search), key=lambda one: one.number)
        _write(self.home / SWEEP_FILE, SweepFile(searches=tuple(searches)))

    def trials(self, search: SearchFile) -> dict[RunOfPoint, TrialFile]:
        """Return the trials of a search."""
        found = self._trials_of(self._run.name, search.search)
        return {one.which: one for one in sorted(found, key=lambda one: one.which)}

    def begin(self, new: NewTrial | InvalidTrial, search: SearchFile) -> TrialFile:
        """Make the file of a trial, without writing it."""
        which = new.which._asdict() | {"values": dict(new.values)}
        trial = Trial(sweep=self._run.name, sweep_uid=LOCAL_UID, search=search.search, **which)
        return TrialFile(name=new.name, trial=trial)

    def keep(self, trial: TrialFile) -> None:
        """Write what is known of a trial."""
        self.place(trial).mkdir(parents=True, exist_ok=True)
        _write(self.place(trial) / TRIAL_FILE, trial)

    def keep_manifest(self, new: NewTrial, trial: TrialFile) -> None:
        """Write the experiment of a trial, as a person would have."""
        self.place(trial).mkdir(parents=True, exist_ok=True)
        metadata = {"name": new.name, "namespace": self._run.namespace}
        head = {"apiVersion": "anomalyops.io/v1alpha1", "kind": AnomalyExperiment.kind_name, "metadata": metadata}
        text = yaml.safe_dump({**head, "spec": new.spec}, sort_keys=False)
        (self.place(trial) / TRIAL_MANIFEST).write_text(text, encoding="utf-8")

    def clear(self, trial: TrialFile) -> None:
        """Remove what an earlier run of a trial told of itself."""
        for name in (REPORT, FAILURE):
            (self.place(trial) / name).unlink(missing_ok=True)

    def leave_failure(self, trial: TrialFile) -> None:
        """Tell for the sweep's page why a trial ended that has not told it: it was killed, or could not begin."""
        place = self.place(trial)
        if trial.state not in ("Infeasible", "Failed") or any((place / name).exists() for name in (REPORT, FAILURE)):
            return
        run = self._run.model_copy(update={"name": trial.name})
        summary = RunSummary(reason=Reason(trial.reason), message=trial.message[:MESSAGE_LIMIT], stage=Stage.STARTING)
        config = RunConfig(run=run, experiment=self._experiment(trial))
        _write(place / FAILURE, RunReport(run=run, summary=summary, config=config, started=trial.started))

    def _experiment(self, trial: TrialFile) -> ExperimentSpec:
        """Return a trial's spec; the sweep's own one where the trial's values were not valid together."""
        manifest = self.place(trial) / TRIAL_MANIFEST
        if not manifest.is_file():
            return self._spec.model_copy(update={"sweep": None, "trial": trial.trial})
        document = yaml.safe_load(manifest.read_text(encoding="utf-8"))
        return ExperimentSpec.model_validate_json(json.dumps(document["spec"]))

    def forget(self, trial: TrialFile) -> None:
        """Drop a trial: its number may be asked again."""
        (self.place(trial) / TRIAL_FILE).unlink(missing_ok=True)

    def place(self, trial: TrialFile) -> Path:
        """Return the folder of a trial's artifacts."""
        return self._output / self._run.model_copy(update={"name": trial.name}).folder

    def _trials_of(self, sweep: str, search: str) -> list[TrialFile]:
        namespace = self._output / self._run.namespace
        files = sorted(namespace.glob(f"*/{LOCAL_UID}/{TRIAL_FILE}"))
        likely = [file for file in files if file.parent.parent.name.startswith(sweep[:_NAME_KEPT])]
        found = [_read(file, TrialFile) for file in likely]
        return [one for one in found if (one.trial.sweep, one.trial.search) == (sweep, search)]

    def _earlier_points(self) -> tuple[Mapping[str, Any], ...]:
        """Return the best points of the sweep that ``start.fromExperiment`` names."""
        source = self._spec.sweep and self._spec.sweep.start and self._spec.sweep.start.from_experiment
        if not source:
            return ()
        home = self._output / self._run.model_copy(update={"name": source.name}).folder
        searches = self._sweep_file(home).searches
        if not searches:
            raise InvalidConfig(f"the experiment {source.name} has no sweep below {self._output}: run it first")
        return self._best_of(source.name, searches[-1:], source.top)

    def _best_of(self, sweep: str, last: Sequence[SearchFile], top: int) -> tuple[Mapping[str, Any], ...]:
        """Return the best points of a sweep's last search, if there is one."""
        from anomaly_search.session import best_points

        points: list[Mapping[str, Any]] = []
        for one in last:
            records = [trial.record() for trial in self._trials_of(sweep, one.search)]
            points += best_points(one.spec, records, top)
        return tuple(points)

    def _sweep_file(self, home: Path) -> SweepFile:
        file = home / SWEEP_FILE
        return _read(file, SweepFile) if file.is_file() else SweepFile()


def search_digest(spec: ExperimentSpec) -> str:
    """Return a digest of all in the spec that a trial or a point depends on: not its limits, nor what its end is."""
    sweep = spec.sweep
    assert sweep is not None, "the spec of a sweep"
    objectives = tuple(objective.model_copy(update={"target": None}) for objective in sweep.objectives)
    limits = {"trials": TrialLimits(), "budget": None, "objectives": objectives, "final": "train"}
    changes = {"run_policy": RunPolicy(), "sweep": sweep.model_copy(update=limits)}
    text = spec.model_copy(update=changes).model_dump_json(by_alias=True, exclude_defaults=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _write(file: Path, content: Contract) -> None:
    """Write a file such that a reader, or a kill, sees the old one or the new one whole."""
    partial = file.with_suffix(".partial")
    text = json.dumps(content.to_json_object(), indent=2)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(file)


def _read(file: Path, kind: type[C]) -> C:
    try:
        return kind.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise InvalidConfig(f"{file} is not of this version; remove it and its folder: {error}") from error
