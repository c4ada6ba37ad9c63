"""A read-only storage over a list of trials, with one trial on top that is being asked.

Optuna's in-memory storage copies and checks each trial that is added: seconds at 10,000 of them. This one hands the
list out as it is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Sequence
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

STUDY = 0
NAME = "sweep"


class Rows(BaseStorage):
    """The storage of one study that exists from the beginning."""

    def __init__(self, rows: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> None:
        """Take finished and running rows, sorted by number."""
        self._rows = list(rows)
        self._directions = list(directions)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Put the trial that is asked on top."""
        number = self._rows[-1].number + 1 if self._rows else 0
        self._rows.append(running(number, {}, {}))
        return number

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Note a parameter of the trial that is asked."""
        row = self.get_trial(trial_id)
        row.params[param_name] = distribution.to_external_repr(param_value_internal)
        row.distributions[param_name] = distribution

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Note what the sampler says of the trial that is asked."""
        self.get_trial(trial_id).system_attrs[key] = value

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial; its ID is its number."""
        return self._rows[bisect_left(self._rows, trial_id, key=lambda row: row.number)]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials, never copied: nobody changes them here."""
        return [row for row in self._rows if states is None or row.state in states]

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the one study."""
        return STUDY

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return the one study's name."""
        return NAME

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return what is better, by objective."""
        return self._directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return nothing: whoever needs such an attribute cannot be made anew."""
        return {}

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return nothing: whoever needs such an attribute cannot be made anew."""
        return {}

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise NotImplementedError("past trials are read only")

    create_new_study = _refuse
    delete_study = _refuse
    get_all_studies = _refuse
    set_study_system_attr = _refuse
    set_study_user_attr = _refuse
    set_trial_intermediate_value = _refuse
    set_trial_state_values = _refuse
    set_trial_user_attr = _refuse


def running(number: int, params: dict[str, Any], distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    """Return a trial without a result."""
    return frozen(TrialState.RUNNING, number, params, distributions)


def frozen(
    state: TrialState,
    number: int,
    params: dict[str, Any],
    distributions: dict[str, BaseDistribution],
    *,
    values: Sequence[float] | None = None,
    intermediate: dict[int, float] | None = None,
    constraints: dict[str, float] | None = None,
) -> FrozenTrial:
    """Return a trial of Optuna's, without times: no sampler looks at them."""
    trial = FrozenTrial(
        number=number,
        state=state,
        value=None,
        values=values,
        datetime_start=None,
        datetime_complete=None,
        params=params,
        distributions=distributions,
        user_attrs={},
        system_attrs={},
        intermediate_values=intermediate or {},
        trial_id=number,
    )
    for name, violation in (constraints or {}).items():
        trial.set_constraint(name, violation)
    return trial


def study_of(rows: Sequence[FrozenTrial], directions: Sequence[StudyDirection], sampler: Any = None) -> Study:
    """Return a study over rows."""
    return Study(NAME, Rows(rows, directions), sampler=sampler)
