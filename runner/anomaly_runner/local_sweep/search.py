"""The loop of a search: asks what comes next, starts it, waits until something is over.

Whatever it knows is in the files of the trials too, so that it may be killed at any time. A trial that was interrupted
starts again with its values; all else follows from the trials, as it would have without the interruption.
"""

import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from anomaly_api.reasons import Reason
from anomaly_api.run import RunIdentity
from anomaly_api.sweep_exchange import InvalidTrial, NewTrial, Plan, RunOfPoint, SweepEnd, TrialRecord, epochs_of
from anomaly_api.sweep_status import StopReason, SweepStatus
from anomaly_runner.local_sweep.children import Child, Children, outcome
from anomaly_runner.local_sweep.records import SearchFile, SweepFolder, TrialFile, now
from anomaly_runner.local_sweep.view import View
from anomaly_runner.system.stop import StopSignal
from anomaly_runner.tracking.mlflow_tracker import LOCAL_UID
from anomaly_search.session import decide, falling_behind, overview

_POLL_SECONDS = 0.1
_PRUNE_SECONDS = 1.0
"""Time between two looks at the curves of the trials at work."""
_LONGEST_WAIT_SECONDS = 5.0
"""A budget may be used up while nothing is over."""


class Search:
    """A search at work.

    Args:
        run: the sweep's resource.
        files: of the sweep.
        search: which search of it.
        parallel: trials at the same time.
        children: processes of its trials.
        view: shows it to people.
        stop: set by Ctrl-C.
    """

    def __init__(
        self,
        run: RunIdentity,
        files: SweepFolder,
        search: SearchFile,
        parallel: int,
        *,
        children: Children,
        view: View,
        stop: StopSignal,
    ) -> None:
        self._run = run
        self._files = files
        self._search = search
        self._experiment = _with_parallel(search.spec, parallel)
        self._children = children
        self._view = view
        self._stop = stop
        self._trials = files.trials(search)
        self._interrupted = [trial for trial in self._trials.values() if trial.state == "Running"]
        self._objective = search.spec["sweep"]["objectives"][0]["metric"]
        self._looked_at_curves = 0.0
        self._began = now() - timedelta(seconds=search.seconds)
        self._status = self.status()

    def until_over(self) -> SweepEnd:
        """Run trials until the search ends.

        Raises:
            Stopped: somebody pressed Ctrl-C; the trials at work have been stopped, and start again next time.
        """
        try:
            while True:
                self._start_interrupted()
                plan = self._plan()
                self._carry_out(plan)
                if plan.end:
                    return plan.end
                if self._children.at_work:
                    self._wait()
        finally:
            at_work = [child.trial.name for child in self._children.at_work]
            if at_work:
                self._view.say(f"stopping what is at work: {', '.join(at_work)}", "dim")
            self._halt(at_work)

    def status(self, stop: StopReason | None = None) -> SweepStatus:
        """Return how the search goes, or went."""
        told = overview(self._experiment, self.records(), stop)
        return told.model_copy(update={"search": self._search.search, "search_run": self._search.number})

    def records(self) -> list[TrialRecord]:
        """Return what the search knows of its trials."""
        return [trial.record() for trial in self._trials.values()]

    def _plan(self) -> Plan:
        return decide(
            self._experiment,
            self.records(),
            now(),
            self._began,
            name=self._run.name,
            search_run=self._search.number,
            uid=LOCAL_UID,
            search=self._search.search,
            earlier=self._search.earlier,
        )

    def _carry_out(self, plan: Plan) -> None:
        for invalid in plan.invalid:
            self._refuse(invalid)
        for new in plan.starts:
            self._begin(new)
        self._call_off(plan.stops)
        self._status = self.status()

    def _begin(self, new: NewTrial) -> None:
        if new.repeats is not None:
            self._view.say(f"{new.name} has the values of trial {new.repeats}: the search has no others", "yellow")
        trial = self._files.begin(new, self._search)
        self._files.keep_manifest(new, trial)
        self._start(trial)

    def _start_interrupted(self) -> None:
        while self._interrupted and self._children.free:
            trial = self._interrupted.pop(0)
            self._view.say(f"{trial.name} was interrupted and starts again", "dim")
            self._start(trial)

    def _start(self, trial: TrialFile) -> None:
        begun = trial.model_copy(update={"started": now().isoformat()})
        self._keep(begun)
        self._files.clear(begun)
        self._children.start(begun, self._files.place(begun))

    def _refuse(self, invalid: InvalidTrial) -> None:
        """Keep a point whose values are not valid together: the search learns from it as from a run."""
        trial = self._files.begin(invalid, self._search).model_copy(update={"started": now().isoformat()})
        self._over(trial.over("Infeasible", Reason.INVALID_CONFIG, now(), message=invalid.problem))

    def _call_off(self, stops: Iterable[RunOfPoint]) -> None:
        """Stop what is at work though the search is over; if it goes on one day, their numbers are asked again."""
        trials = [self._trials[which] for which in stops]
        self._halt([trial.name for trial in trials])
        for trial in trials:
            if self._trials[trial.which].state == "Running":
                self._view.say(f"{trial.name} is called off: the search is over", "dim")
                self._files.forget(trial)
                del self._trials[trial.which]

    def _halt(self, names: list[str]) -> None:
        """Stop trials; those that were complete by then stay so."""
        for child in self._children.stop(names):
            trial = outcome(child, self._objective, now())
            if trial.state == "Complete":
                self._over(trial)

    def _wait(self) -> None:
        """Wait until something is over, but not long."""
        deadline = time.monotonic() + _LONGEST_WAIT_SECONDS
        while time.monotonic() < deadline:
            self._stop.check()
            ended = self._children.take_ended()
            for child in ended:
                self._end(child)
            self._prune()
            self._view.show(self._status, self._children.at_work)
            if ended:
                return
            time.sleep(_POLL_SECONDS)

    def _prune(self) -> None:
        """Ask trials whose curve falls behind to end their training, if the sweep prunes."""
        if "pruning" not in self._experiment["sweep"] or time.monotonic() - self._looked_at_curves < _PRUNE_SECONDS:
            return
        self._looked_at_curves = time.monotonic()
        at_work = {child.trial.which: child for child in self._children.at_work}
        records = [_with_curve(one, at_work.get(one.which), self._objective) for one in self.records()]
        for which in falling_behind(self._experiment, records):
            if which in at_work:
                at_work[which].prune(f"its best value so far is behind the median of the trials of {self._run.name}")

    def _end(self, child: Child) -> None:
        trial = outcome(child, self._objective, now())
        if trial.reason == Reason.PREEMPTED:  # somebody else has stopped it: it keeps its number
            self._interrupted.append(child.trial)
        else:
            self._over(trial)

    def _over(self, trial: TrialFile) -> None:
        before = self._status.best[:1]
        self._keep(trial)
        self._files.leave_failure(trial)
        self._status = self.status()
        best = self._status.best[:1]
        self._view.ended(trial, best != before and best[0].number == trial.trial.number)

    def _keep(self, trial: TrialFile) -> None:
        self._trials[trial.which] = trial
        self._files.keep(trial)
        seconds = round((now() - self._began).total_seconds(), 3)
        self._files.keep_search(self._search.model_copy(update={"seconds": seconds}))


def _with_curve(record: TrialRecord, child: Child | None, objective: str) -> TrialRecord:
    """Return what is known of a trial, with its curve so far if it is at work."""
    return record if child is None else record._replace(curve=epochs_of(child.progress().curve, objective))


def _with_parallel(experiment: dict[str, Any], parallel: int) -> dict[str, Any]:
    """Return the spec with as many trials at the same time as this machine is to run."""
    sweep = experiment["sweep"]
    return experiment | {"sweep": sweep | {"trials": sweep.get("trials", {}) | {"parallel": parallel}}}
