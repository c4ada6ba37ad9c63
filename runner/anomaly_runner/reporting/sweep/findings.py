"""The trials of a search as points, ranked, with what the search's summary says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from anomaly_api.run import RunIdentity, SweepResult
from anomaly_api.sweep import Sweep as SweepSpec
from anomaly_api.sweep_exchange import RunOfPoint
from anomaly_api.sweep_status import SweepStatus
from anomaly_runner.reporting.sweep.trials import FoundTrials, TrialResult
from anomaly_search.evaluations import Evaluation, fold
from anomaly_search.leaders import ranked
from anomaly_search.session import trial_of
from anomaly_search.spec import sweep_of
from anomaly_search.summary import Summary, summary
from anomaly_search.sweep import Sweep
from anomaly_search.trials import State

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Findings:
    """A search and its trials.

    Attributes:
        run: the sweep's resource.
        search: the sweep and its status.
        found: its trials.
        sweep: the same in the terms of the search.
        evaluations: points by number and rung.
        known: the summary of the trials that left reports.
        leaders: feasible points, best first, each at its highest fidelity.
    """

    run: RunIdentity
    search: SweepResult
    found: FoundTrials
    sweep: Sweep
    evaluations: tuple[Evaluation, ...]
    known: Summary
    leaders: tuple[Evaluation, ...]

    @property
    def spec(self) -> SweepSpec:
        """The sweep as users write it."""
        return self.search.spec

    @property
    def status(self) -> SweepStatus:
        """What the search found, as the resource's status has it."""
        return self.search.status

    @property
    def trials(self) -> tuple[TrialResult, ...]:
        """One for each run that left a report."""
        return self.found.results

    @cached_property
    def _by_which(self) -> Mapping[RunOfPoint, TrialResult]:
        """The trials by number, rung and replicate."""
        return {trial.record.which: trial for trial in self.trials}

    def run_of(self, one: Evaluation, replicate: int | None = None) -> TrialResult:
        """The run of a point at its fidelity: its first one unless another is asked for."""
        which = one.trials[0].replicate if replicate is None else replicate
        return self._by_which[RunOfPoint(one.number, one.rung, which)]

    @cached_property
    def highest(self) -> tuple[Evaluation, ...]:
        """Each point at the highest fidelity that it was started at, by number."""
        return tuple({one.number: one for one in self.evaluations}.values())

    @cached_property
    def measured(self) -> tuple[Evaluation, ...]:
        """Points that are complete at the full fidelity, within the constraints or not, by number."""
        last = self.sweep.rungs - 1
        return tuple(one for one in self.highest if one.rung == last and one.state is State.COMPLETE)

    @cached_property
    def in_time(self) -> tuple[Evaluation, ...]:
        """The measured points in the order in which they ended."""
        return tuple(sorted(self.measured, key=lambda one: (one.ended or _NEVER, one.number)))

    @property
    def asked(self) -> int:
        """Number of points that were begun, as the status or the reports have it, whichever is more."""
        return max(self.status.asked, max((one.number for one in self.evaluations), default=-1) + 1)

    @property
    def silent(self) -> Sequence[int]:
        """Numbers of the points of which no run left a report."""
        known = {one.number for one in self.evaluations}
        return [number for number in range(self.asked) if number not in known]


def judge(run: RunIdentity, search: SweepResult, found: FoundTrials) -> Findings:
    """Rank the points and summarise the search.

    Args:
        run: the sweep's resource.
        search: the sweep and its status.
        found: its trials.
    """
    sweep = sweep_of(search.spec)
    trials = [trial_of(sweep, result.record) for result in found.results]
    evaluations = fold(sweep, trials)
    return Findings(
        run=run,
        search=search,
        found=found,
        sweep=sweep,
        evaluations=evaluations,
        known=summary(sweep, trials),
        leaders=tuple(ranked(sweep, evaluations)),
    )
