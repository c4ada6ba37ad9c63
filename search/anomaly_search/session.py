"""A whole sweep from plain values: the spec of its experiment and what is known of its trials.

Both programs call these functions: the operator in a process of its own, with what the resources of the trials say; a
run without a cluster with what lies in its folder. Nothing is kept between two calls but a memo, which saves time
alone: whoever gives the same one again gives the same objects, too, for what has not changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.resource import describe_invalid
from anomaly_api.sweep import Sweep as SweepSpec
from anomaly_api.sweep_end import winners_spec
from anomaly_api.sweep_exchange import (
    InvalidTrial,
    Json,
    NewTrial,
    Plan,
    RunOfPoint,
    SweepEnd,
    TrialRecord,
    Winner,
    trial_name,
)
from anomaly_api.sweep_status import MAX_PROBLEM, StopReason, SweepStatus
from anomaly_api.sweep_trial import replicate_points, rung_point, trial_spec
from anomaly_search.evaluations import Evaluation, fold
from anomaly_search.leaders import ranked
from anomaly_search.memo import Memo
from anomaly_search.prune import prune
from anomaly_search.schedule import Start, schedule
from anomaly_search.spec import pruning_of, status_of, sweep_of
from anomaly_search.suggest import Exhausted, Suggestion, suggest
from anomaly_search.summary import summary
from anomaly_search.sweep import Sweep
from anomaly_search.trials import State, Trial

Point = Mapping[str, Any]

MOST_INVALID = 100
"""Points that cannot be after which an answer is given with what there is: they are kept before others are asked."""


def decide(
    experiment: Json,
    records: Iterable[TrialRecord],
    now: datetime,
    began: datetime | None = None,
    *,
    name: str,
    search_run: int = 1,
    uid: str | None = None,
    search: str | None = None,
    earlier: Sequence[Point] = (),
    removed_hours: float = 0.0,
    memo: Memo | None = None,
) -> Plan:
    """Decide what happens next.

    Args:
        experiment: the spec of the experiment with the sweep, as in its manifest.
        records: all trials that there are, of this run of the sweep.
        now: the time.
        began: when the sweep began; by default when the first of its trials did.
        name: of the experiment.
        search_run: which run of the sweep, from 1.
        uid: of the experiment, for spec.trial of its trials.
        search: which search it is, for the same.
        earlier: the best points of an earlier sweep, which are tried after the spec's own start points. The same ones
            in every call.
        removed_hours: GPU-hours of trials that are no longer there.
        memo: what earlier calls for this sweep computed.

    Raises:
        SpaceError: the space contradicts itself in a way that ``check_sweep`` had found.
    """
    memo = memo or Memo()
    owner = {"sweep": name, "sweepUid": uid, "search": search}
    known = {key: value for key, value in owner.items() if value is not None}
    task = _Task(experiment, known, search_run, earlier, memo)
    trials = _trials_of(task.sweep, records, memo)
    starts: list[NewTrial] = []
    invalid: list[InvalidTrial] = []
    while True:
        decisions = schedule(task.sweep, trials, now, began, memo, removed_hours=removed_hours)
        found = list(_asked(task, trials, decisions.start, now))
        refused = [one for one in found if isinstance(one, InvalidTrial)]
        starts += [one for one in found if isinstance(one, NewTrial)]
        invalid += refused
        if not refused or len(invalid) >= MOST_INVALID:  # else their places are free for others
            break
    end = decisions.end
    if decisions.start and not found and not any(trial.state is State.RUNNING for trial in trials):
        end = SweepEnd(StopReason.EXHAUSTED, "no point of the space is left")
    return Plan(
        starts=tuple(starts),
        stops=decisions.stop,
        end=end,
        waits=decisions.waits,
        invalid=tuple(invalid),
    )


def overview(
    experiment: Json,
    records: Iterable[TrialRecord],
    stop: StopReason | None = None,
    *,
    earlier: Sequence[Point] = (),
    removed_hours: float = 0.0,
    memo: Memo | None = None,
) -> SweepStatus:
    """Return what a status says of the sweep, within its size.

    Args:
        experiment: the spec of the experiment with the sweep, as in its manifest.
        records: all trials that there are, of this run of the sweep.
        stop: why no further points are tried; None while the search goes on.
        earlier: as in ``decide``.
        removed_hours: as in ``decide``.
        memo: what earlier calls for this sweep computed.
    """
    memo = memo or Memo()
    sweep = memo.get("task", (experiment, earlier), _sweep_with)
    known = summary(sweep, _trials_of(sweep, records, memo), memo)
    return status_of(sweep, known, stop, removed_hours=removed_hours)


def winner(experiment: Json, records: Iterable[TrialRecord]) -> Winner | None:
    """Return the best point at the highest fidelity; None if no point is measured and within all constraints."""
    spec = _parsed(experiment)
    best = next(iter(_ranked(sweep_of(_sweep_of(spec)), records)), None)
    return None if best is None else Winner(best.number, dict(best.parameters), winners_spec(spec, best.parameters))


def best_points(experiment: Json, records: Iterable[TrialRecord], top: int) -> tuple[dict[str, Any], ...]:
    """Return the values of the best points, best first: what ``start.fromExperiment`` of a later sweep begins with."""
    sweep = sweep_of(_sweep_of(_parsed(experiment)))
    return tuple(dict(one.parameters) for one in _ranked(sweep, records)[:top])


def falling_behind(experiment: Json, records: Iterable[TrialRecord]) -> tuple[RunOfPoint, ...]:
    """Return the running trials whose curve says that they are to be stopped; none without spec.sweep.pruning."""
    settings = pruning_of(_sweep_of(_parsed(experiment)))
    if settings is None:
        return ()
    known = tuple(records)
    return tuple(
        one.which for one in known if one.state == "Running" and prune(one.curve, _peers(one, known), settings)
    )


def load() -> None:
    """Import what only some answers need, so that none of them waits for it: a second where much is installed."""
    import optuna.importance  # noqa: F401
    import scipy.stats  # noqa: F401


def trial_of(sweep: Sweep, record: TrialRecord) -> Trial:
    """Return what is known of a run in the terms of the search."""
    return Trial(
        number=record.number,
        parameters=record.values,
        state=State(record.state),
        objectives=tuple(record.metrics.get(objective.metric) for objective in sweep.objectives),
        constraints=tuple(record.metrics.get(constraint.metric) for constraint in sweep.constraints),
        rung=record.rung,
        replicate=record.replicate,
        curve=record.curve,
        gpu_hours=record.gpu_hours,
        started=record.started,
        ended=record.ended,
        reason=record.reason,
    )


class _Task:
    """What a sweep's trials are made of."""

    def __init__(self, experiment: Json, owner: Json, search_run: int, earlier: Sequence[Point], memo: Memo) -> None:
        self.memo = memo
        self.spec = memo.get("spec", (experiment,), _parsed)
        self.sweep = memo.get("task", (experiment, earlier), _sweep_with)
        self._owner = owner
        self._search_run = search_run

    def trial(self, which: RunOfPoint, suggestion: Suggestion) -> NewTrial | InvalidTrial:
        """Make the trial of a point; InvalidTrial if its values are not valid together."""
        values = dict(suggestion.parameters)
        name = trial_name(self._owner["sweep"], which, self._search_run)
        written = self._written(which, values)
        try:
            ExperimentSpec.model_validate_json(json.dumps(written), strict=True)
        except ValidationError as error:
            problem = describe_invalid(error)[:MAX_PROBLEM]
            return InvalidTrial(which, name, values, problem, self._standing(which, values, problem))
        return NewTrial(which, name, values, written, suggestion.known)

    def _written(self, which: RunOfPoint, values: Point) -> Json:
        sweep = _sweep_of(self.spec)
        point = {**values, **replicate_points(sweep)[which.replicate], **rung_point(sweep, which.rung)}
        return {**trial_spec(self.spec, point), "trial": self._which(which, values)}

    def _standing(self, which: RunOfPoint, values: Point, problem: str) -> Json:
        """Return a valid spec that stands for a point which has none."""
        return {**trial_spec(self.spec, {}), "trial": {**self._which(which, values), "problem": problem}}

    def _which(self, which: RunOfPoint, values: Point) -> Json:
        return {**self._owner, **which._asdict(), "values": dict(values)}


def _asked(
    task: _Task, trials: list[Trial], starts: Iterable[Start], now: datetime
) -> Iterable[NewTrial | InvalidTrial]:
    """Yield a trial for each start, and add it to those that the next suggestion knows of."""
    for start in starts:
        suggestion = _suggestion(task, trials, start)
        if suggestion is None:
            continue
        made = task.trial(start.identity, suggestion)
        trials.append(_as_trial(made, now))
        yield made


def _as_trial(made: NewTrial | InvalidTrial, now: datetime) -> Trial:
    """Return what the search has to know of a trial that is about to be made."""
    running = isinstance(made, NewTrial)
    return Trial(
        number=made.which.number,
        parameters=made.values,
        state=State.RUNNING if running else State.INFEASIBLE,
        rung=made.which.rung,
        replicate=made.which.replicate,
        ended=None if running else now,
    )


def _suggestion(task: _Task, trials: Sequence[Trial], start: Start) -> Suggestion | None:
    """Return the point of a start; None if there is none left."""
    if start.parameters is not None:
        return Suggestion(start.parameters)
    suggestion = suggest(task.sweep, trials, start.identity.number, task.memo)
    return None if isinstance(suggestion, Exhausted) else suggestion


def _ranked(sweep: Sweep, records: Iterable[TrialRecord]) -> list[Evaluation]:
    return ranked(sweep, fold(sweep, [trial_of(sweep, record) for record in records]))


def _peers(one: TrialRecord, known: Iterable[TrialRecord]) -> list[Mapping[int, float]]:
    """Return the curves of complete trials at the same fidelity, on the same data and seed."""
    return [
        other.curve
        for other in known
        if other.state == "Complete" and (other.rung, other.replicate) == (one.rung, one.replicate)
    ]


def _trials_of(sweep: Sweep, records: Iterable[TrialRecord], memo: Memo) -> list[Trial]:
    return memo.each("trials", (sweep,), records, trial_of)


def _sweep_with(experiment: Json, earlier: Sequence[Point]) -> Sweep:
    return sweep_of(_sweep_of(_parsed(experiment)), start=earlier)


def _parsed(experiment: Json) -> ExperimentSpec:
    return ExperimentSpec.model_validate_json(json.dumps(experiment))


def _sweep_of(spec: ExperimentSpec) -> SweepSpec:
    assert spec.sweep is not None, "the spec of a sweep"
    return spec.sweep
