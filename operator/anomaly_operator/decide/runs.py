"""Which run of the resource this is: a spec that is changed once its run is over runs again, with the next number.

While a run is at work the API server keeps its spec as it is. It may change before the first pod, which changes the
run; while the run is suspended, which begins another one; and once it is over, which begins another one too.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.inference import InferenceSpec
from anomaly_api.reasons import Reason
from anomaly_api.scheduling import RunPolicy
from anomaly_api.status import Condition, ConditionType, PastRun, Phase, RunStatus
from anomaly_api.sweep import Sweep, TrialLimits
from anomaly_api.sweep_status import SweepStatus
from anomaly_operator import names
from anomaly_operator.decide.conditions import find_true
from anomaly_operator.decide.specs import KEPT, experiment_spec
from anomaly_operator.keys import Kind
from anomaly_operator.views import RunView

KEPT_RUNS = 5
"""Runs in the history."""
MESSAGE_LIMIT = 256
"""Longest message of a run in the history, characters."""


def is_finished(status: RunStatus) -> bool:
    """Whether a status records the end of its run."""
    return status.phase in (Phase.COMPLETE, Phase.FAILED)


def is_search_over(status: RunStatus) -> bool:
    """Whether a status records the end of its run's search."""
    return is_finished(status) or any(step.name == "search" for step in status.steps or ())


def kept_of_run(status: RunStatus) -> dict[str, Any]:
    """Return the fields that stay the same until the run is over."""
    kept = ("run", "spec_digest", "rerun", "steps", "history", "sweep", "node_time")
    return {name: getattr(status, name) for name in kept}


def current_run(run: RunView, recorded: RunStatus) -> RunStatus:
    """Return the status that this reconcile goes on from: the recorded one, or that of a run which begins.

    Args:
        run: the resource.
        recorded: its recorded status.
    """
    # Nothing was recorded, or by a release that ran every resource once: this is the first run.
    if recorded.spec_digest is None:
        return recorded.model_copy(update={"run": 1, "spec_digest": spec_digest(run), "rerun": run.rerun})
    # Another text asks for another run, also one that was written while the run was at work.
    asked_again = run.rerun is not None and run.rerun != recorded.rerun
    # Limits may have changed while the last step was at work, and been observed then.
    goes_on = is_finished(recorded) and _has_other_limits(run, recorded)
    if run.generation == recorded.observed_generation and not asked_again and not goes_on:
        return recorded
    digest = spec_digest(run)
    if digest == recorded.spec_digest and not asked_again and not goes_on:
        return recorded
    if recorded.start_time is None:
        corrected = {"spec_digest": digest, "rerun": run.rerun, "steps": None, "job_name": None}
        return recorded.model_copy(update=corrected)
    if is_finished(recorded) or recorded.phase is Phase.SUSPENDED:
        return _next_run(run, recorded, digest)
    return recorded


def spec_digest(run: RunView) -> str:
    """Return a digest of everything in the spec that a result depends on: all but the run policy and a sweep's limits.

    Values that are the defaults do not count, so that a release that adds a field runs nothing again.
    """
    return _digest(run.key.kind, run.spec)


@lru_cache(maxsize=KEPT)
def _digest(kind: Kind, written: bytes) -> str:
    parse = experiment_spec if kind == "AnomalyExperiment" else InferenceSpec.model_validate_json
    try:
        spec = parse(written)
    except ValidationError:
        return names.digest(written.decode())
    changes: dict[str, Any] = {"run_policy": RunPolicy()}
    if isinstance(spec, ExperimentSpec) and spec.sweep:
        changes["sweep"] = _without_limits(spec.sweep)
    return names.digest(spec.model_copy(update=changes).model_dump_json(by_alias=True, exclude_defaults=True))


def _without_limits(sweep: Sweep) -> Sweep:
    """Return the sweep without what may change while it is at work: how many trials, how much, how good."""
    objectives = tuple(objective.model_copy(update={"target": None}) for objective in sweep.objectives)
    return sweep.model_copy(update={"trials": TrialLimits(), "budget": None, "objectives": objectives})


def search_of(run: RunView, status: RunStatus) -> str:
    """Return which search a sweep is: another one begins where anything but its limits changes, or with a rerun.

    Args:
        run: the sweep.
        status: what is recorded of this run; a rerun that was asked for while it is at work is that of the next one.
    """
    return names.digest(spec_digest(run) + (status.rerun or ""))


def recorded_search(status: RunStatus, search: str) -> SweepStatus | None:
    """Return what is recorded of a search; None if nothing is, or another one."""
    return status.sweep if status.sweep and status.sweep.search == search else None


def limits_digest(sweep: Sweep) -> str:
    """Return a digest of what ends a sweep: one that ended goes on if that changes.

    Values that are the defaults do not count, so that a release that adds a limit has no sweep go on.
    """
    trials = sweep.trials.model_copy(update={"parallel": 1})
    limits = [trials, *sweep.objectives, *([sweep.budget] if sweep.budget else [])]
    return names.digest("".join(limit.model_dump_json(exclude_defaults=True) for limit in limits))


def _has_other_limits(run: RunView, recorded: RunStatus) -> bool:
    """Whether the sweep of a run that is over may go on: it was ended by limits that have changed."""
    if recorded.sweep is None or not recorded.sweep.limits:
        return False
    try:
        sweep = experiment_spec(run.spec).sweep
    except ValidationError:
        return False
    return sweep is not None and limits_digest(sweep) != recorded.sweep.limits


def _next_run(run: RunView, recorded: RunStatus, digest: str) -> RunStatus:
    """Return the status in which a run begins: nothing but what came before it."""
    history = (_past_run(recorded), *(recorded.history or ()))[:KEPT_RUNS]
    return RunStatus(
        observed_generation=recorded.observed_generation,
        run=(recorded.run or 1) + 1,
        spec_digest=digest,
        rerun=run.rerun,
        conditions=tuple(found for found in recorded.conditions if found.type is not ConditionType.DATA_READY),
        history=history,
        sweep=_search_so_far(recorded.sweep),
    )


def _search_so_far(sweep: SweepStatus | None) -> SweepStatus | None:
    """Return which search the trials that exist belong to: a run that only has other limits goes on with them.

    What the search has used by now is kept, as trials may be gone that used some of it.
    """
    if sweep is None:
        return None
    return SweepStatus(search=sweep.search, search_run=sweep.search_run, gpu_hours=sweep.gpu_hours)


def _past_run(status: RunStatus) -> PastRun:
    end = _end(status)
    return PastRun(
        run=status.run or 1,
        phase=status.phase,
        reason=end.reason if end else Reason.SUPERSEDED,
        message=(end.message if end else "its spec was changed while it was suspended")[:MESSAGE_LIMIT],
        start_time=status.start_time,
        completion_time=status.completion_time,
        artifacts=status.artifacts,
        display=status.display,
    )


def _end(status: RunStatus) -> Condition | None:
    conditions = status.conditions
    return find_true(conditions, ConditionType.COMPLETE) or find_true(conditions, ConditionType.FAILED)


def last_complete(status: RunStatus) -> PastRun | None:
    """Return the newest run that is Complete and has artifacts: the present one, or one of the history."""
    return next(_complete_runs(status), None)


def complete_run(status: RunStatus, number: int) -> PastRun | None:
    """Return the run of this number, if it is Complete, has artifacts, and is still known."""
    return next((past for past in _complete_runs(status) if past.run == number), None)


def _complete_runs(status: RunStatus) -> Iterator[PastRun]:
    """Yield the runs that are Complete and have artifacts, newest first."""
    for past in (_past_run(status), *(status.history or ())):
        if past.phase is Phase.COMPLETE and past.artifacts and past.artifacts.root:
            yield past
