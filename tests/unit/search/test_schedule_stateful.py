"""A sweep through whatever happens to it: trials that end in any way, deletions, changed limits, lost decisions."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from anomaly_api.sweep_exchange import RunOfPoint
from anomaly_api.sweep_status import StopReason
from anomaly_search import points
from anomaly_search.evaluations import fold
from anomaly_search.schedule import Decisions, schedule
from anomaly_search.sweep import Budget, Fidelity, Limits, Objective, Replicates
from anomaly_search.trials import State, Trial
from support.sweeps import BEGIN, FINITE, sweep_of

OVER = (State.COMPLETE, State.COMPLETE, State.COMPLETE, State.PRUNED, State.INFEASIBLE, State.FAILED)


class AnySweep(RuleBasedStateMachine):
    """What is there is `trials`; who carries decisions out may do so in part only, or not at all."""

    @initialize(
        most=st.integers(1, 20),
        parallel=st.integers(1, 5),
        max_failed=st.none() | st.integers(0, 4),
        rungs=st.integers(1, 3),
        replicates=st.integers(1, 3),
        gpu_hours=st.none() | st.floats(0.5, 5),
        without_improvement=st.none() | st.integers(2, 8),
        aim=st.none() | st.just(0.97),
    )
    def begin(
        self, most: int, parallel: int, max_failed: int | None, rungs: int, replicates: int, **limits: Any
    ) -> None:
        self.trials: dict[RunOfPoint, Trial] = {}
        self.now = BEGIN
        self.sweep = sweep_of(
            FINITE,
            limits=Limits(most, parallel, max_failed),
            objectives=(Objective("image.AUROC", target=limits["aim"]),),
            replicates=Replicates(replicates),
            fidelity=Fidelity(tuple(range(1, rungs + 1)), 2) if rungs > 1 else None,
            budget=Budget(limits["gpu_hours"], None, limits["without_improvement"]),
        )

    @rule(carried_out=st.floats(0, 1))
    def decide(self, carried_out: float) -> None:
        decided = self.check()
        for start in decided.start[: round(carried_out * len(decided.start))]:
            self.start(start.identity, start.parameters)
        for identity in decided.stop:
            del self.trials[identity]

    @rule(choice=st.randoms(use_true_random=False), state=st.sampled_from(OVER), value=st.floats(0, 1))
    def finish(self, choice: Any, state: State, value: float) -> None:
        running = sorted(identity for identity, trial in self.trials.items() if trial.state is State.RUNNING)
        if running:
            self.end(choice.choice(running), state, value)

    @rule(choice=st.randoms(use_true_random=False))
    def delete(self, choice: Any) -> None:
        if self.trials:
            del self.trials[choice.choice(sorted(self.trials))]

    @rule(parallel=st.integers(1, 8))
    def change_parallel(self, parallel: int) -> None:
        self.limit(parallel=parallel)

    @rule(more=st.integers(0, 3))
    def raise_most(self, more: int) -> None:
        self.limit(max=self.sweep.limits.max + more)

    def limit(self, **changed: int) -> None:
        limits = {"max": self.sweep.limits.max, "parallel": self.sweep.limits.parallel} | changed
        self.sweep = replace(self.sweep, limits=Limits(**limits, max_failed=self.sweep.limits.max_failed))

    def start(self, identity: RunOfPoint, parameters: Any) -> None:
        known = {FINITE.key(trial.parameters) for trial in self.trials.values()}
        if parameters is None:
            every = (points.point_at(FINITE, place) for place in range(14))
            parameters = next(point for point in every if FINITE.key(point) not in known)
        self.trials[identity] = Trial(
            identity.number,
            parameters,
            State.RUNNING,
            rung=identity.rung,
            replicate=identity.replicate,
            started=self.now,
            gpu_hours=0.01,
        )

    def end(self, identity: RunOfPoint, state: State, value: float) -> None:
        self.now += timedelta(minutes=1)
        self.trials[identity] = replace(
            self.trials[identity],
            state=state,
            objectives=(value,) if state is State.COMPLETE else (),
            ended=self.now,
            gpu_hours=0.1,
            reason="Why",
        )

    def check(self) -> Decisions:
        """Decide, and hold what must always be so."""
        decided = schedule(self.sweep, self.trials.values(), self.now)
        assert decided == schedule(self.sweep, reversed(self.trials.values()), self.now)
        running = {identity for identity, trial in self.trials.items() if trial.state is State.RUNNING}
        started = [start.identity for start in decided.start]
        assert len(set(started)) == len(started)
        assert not set(started) & self.trials.keys()
        assert not started or len(running) + len(started) <= self.sweep.limits.parallel
        assert not (decided.end and started)
        assert set(decided.stop) <= running
        if decided.end:
            assert set(decided.stop) == running
        else:
            assert running or started, "nothing happens any more, and nobody says that it is over"
        self.check_starts(decided)
        self.check_limits(decided)
        return decided

    def check_starts(self, decided: Decisions) -> None:
        parameters = {trial.number: trial.parameters for trial in self.trials.values()}
        asked = [start.identity.number for start in decided.start if start.parameters is None]
        missing = [number for number in range(self.sweep.limits.max) if number not in parameters]
        assert asked == missing[: len(asked)]
        for start in decided.start:
            number, rung, replicate = start.identity
            assert start.parameters == parameters.get(number)
            assert 0 <= rung < self.sweep.rungs
            assert 0 <= replicate < self.sweep.replicates.count

    def check_limits(self, decided: Decisions) -> None:
        failed = {one.number for one in fold(self.sweep, self.trials.values()) if one.state is State.FAILED}
        if self.sweep.limits.max_failed is not None and len(failed) > self.sweep.limits.max_failed:
            assert decided.end
            assert decided.end.reason is StopReason.MAX_FAILED
        measured = {trial.rung for trial in self.trials.values() if trial.state is State.COMPLETE}
        if decided.start and self.sweep.budget.gpu_hours is not None and len(measured) == self.sweep.rungs:
            # Each takes a tenth of an hour, those at work too.
            assert 0.1 * (len(self.trials) + len(decided.start)) <= self.sweep.budget.gpu_hours + 1e-9

    def teardown(self) -> None:
        """Left alone, it comes to its end, and stays there."""
        if not hasattr(self, "sweep"):
            return
        for _ in range(20 * 3 * 3 * 3):
            decided = self.check()
            if decided.end:
                break
            for start in decided.start:
                self.start(start.identity, start.parameters)
            running = sorted(identity for identity, trial in self.trials.items() if trial.state is State.RUNNING)
            self.end(running[0], State.COMPLETE, 0.5)
        assert decided.end
        for identity in decided.stop:
            del self.trials[identity]
        assert self.check().end
        if decided.end.reason is StopReason.MAX_TRIALS:
            assert {identity.number for identity in self.trials} >= set(range(self.sweep.limits.max))


AnySweep.TestCase.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None, derandomize=True, database=None
)
test_any_sweep = AnySweep.TestCase
