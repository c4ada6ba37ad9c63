"""The search as a study of Optuna's, in the format of its journal files, for its dashboard and its plots.

``optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend("optuna-journal.log")))`` reads it. A
point is one trial of the study, under its own number. Its runs, standard errors and GPU hours are its user attributes.
"""

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly_api.sweep_space import canonical
from anomaly_runner.reporting.sweep.findings import Findings
from anomaly_search.evaluations import Evaluation
from anomaly_search.samplers.rows import constraints_of, distribution_of, optuna_value
from anomaly_search.space import Choices, Parameter
from anomaly_search.trials import State

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

JOURNAL = "optuna-journal.log"
_SCALARS = (str, int, float, bool)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def write_journal(findings: Findings, file: Path) -> None:
    """Write the study, with a trial for each point that was begun."""
    import optuna
    from optuna.storages import JournalStorage

    shown = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with file.open("w", encoding="utf-8") as log:
            study = optuna.create_study(
                study_name=f"{findings.run.namespace}/{findings.run.name}",
                storage=JournalStorage(_journal(log)),
                directions=[objective.goal for objective in findings.sweep.objectives],
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # its names are for people
                study.set_metric_names([objective.metric for objective in findings.sweep.objectives])
            study.add_trials(_rows(findings))
    finally:
        optuna.logging.set_verbosity(shown)


def _journal(log: Any) -> Any:
    """A backend that writes what Optuna's own for files does, without a lock and a sync for each line: nobody else
    knows the file yet, and they take seconds for a thousand trials."""
    from optuna.storages.journal import BaseJournalBackend

    class Journal(BaseJournalBackend):
        def __init__(self) -> None:
            self._logs: list[dict[str, Any]] = []

        def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
            yield from self._logs[log_number_from:]

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            self._logs += logs
            log.writelines(json.dumps(entry, separators=(",", ":")) + "\n" for entry in logs)

    return Journal()


def _rows(findings: Findings) -> Iterator["FrozenTrial"]:
    """Yield a trial for each number from 0 on: Optuna counts them by their place."""
    groups: dict[int, list[Evaluation]] = {}
    for one in findings.evaluations:
        groups.setdefault(one.number, []).append(one)
    distributions = {parameter.path: _distribution(parameter) for parameter in findings.sweep.space.parameters}
    for number in range(findings.asked):
        yield _row(findings, groups.get(number, []), distributions)


def _row(findings: Findings, group: list[Evaluation], distributions: Mapping[str, "BaseDistribution"]) -> "FrozenTrial":
    from optuna.trial import TrialState, create_trial

    last = group[-1] if group else None
    if last is None:
        row = create_trial(state=TrialState.FAIL, user_attrs={"reason": "it left no report"})
        return _at(row, None, None)
    point = findings.sweep.space.restrict(last.parameters) or {}
    parameters = [parameter for parameter in findings.sweep.space.parameters if parameter.path in point]
    is_whole = last.state is State.COMPLETE and last.rung == findings.sweep.rungs - 1
    row = create_trial(
        state=TrialState.COMPLETE if is_whole else _state(last),
        values=last.objectives if is_whole else None,
        params={parameter.path: _told(parameter, point[parameter.path]) for parameter in parameters},
        distributions={parameter.path: distributions[parameter.path] for parameter in parameters},
        user_attrs=_attributes(findings, last),
        intermediate_values=dict(_intermediate(findings, group)) if findings.sweep.single else {},
        constraints=constraints_of(findings.sweep, last) or None,
    )
    started = min((trial.started for trial in last.trials if trial.started), default=None)
    return _at(row, started, last.ended)


def _state(one: Evaluation) -> Any:
    """Optuna's state of a point without a final value: measured at a lower fidelity only, given up, or failed."""
    from optuna.trial import TrialState

    return TrialState.PRUNED if one.state in (State.COMPLETE, State.PRUNED) else TrialState.FAIL


def _at(row: "FrozenTrial", started: datetime | None, ended: datetime | None) -> "FrozenTrial":
    """Set the times, which Optuna has without a zone."""
    row.datetime_start = (started or ended or _EPOCH).astimezone().replace(tzinfo=None)
    row.datetime_complete = (ended or started or _EPOCH).astimezone().replace(tzinfo=None)
    return row


def _attributes(findings: Findings, one: Evaluation) -> dict[str, Any]:
    errors = {
        f"standardError {objective.metric}": error
        for objective, error in zip(findings.sweep.objectives, one.errors, strict=False)
        if error is not None
    }
    runs = [findings.run_of(one, trial.replicate) for trial in one.trials]
    reason = one.reason or ("not all of its runs left a report" if one.state is State.RUNNING else "")
    known = {"rung": one.rung, "gpuHours": one.gpu_hours, "runs": [run.folder for run in runs]}
    return known | ({"reason": reason} if reason else {}) | errors


def _intermediate(findings: Findings, group: Iterable[Evaluation]) -> Iterator[tuple[int, float]]:
    """Values by rung; without fidelity, the curve of the training by epoch."""
    if findings.sweep.rungs == 1:
        for one in group:
            yield from one.curve.items()
        return
    for one in group:
        if one.objectives:
            yield one.rung, one.objectives[0]


def _distribution(parameter: Parameter) -> "BaseDistribution":
    """Optuna's distribution of a parameter, as the search has it, but with choices that people can read."""
    from optuna.distributions import CategoricalDistribution

    if isinstance(parameter.domain, Choices):
        return CategoricalDistribution(tuple(_told(parameter, value) for value in parameter.domain.values))
    return distribution_of(parameter.domain)


def _told(parameter: Parameter, value: Any) -> Any:
    """The value as Optuna has it: choices of one scalar type as they are, others as JSON text."""
    if isinstance(parameter.domain, Choices):
        kinds = {type(choice) for choice in parameter.domain.values}
        return value if len(kinds) == 1 and kinds <= set(_SCALARS) else canonical(value)
    return optuna_value(parameter, value)
