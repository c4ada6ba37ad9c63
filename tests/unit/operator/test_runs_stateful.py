"""Runs through whatever happens to them and to the operator: every run ends, and is told once.

Users apply, change, suspend, delete and replace; pods end in every way; requests fail, answers and watch events are
lost or come late; replicas are killed between any two requests, hand over, and lose the Lease. Whatever the order: no
Job is made twice, none for what is gone, no record of a run is changed, nothing is written without a change or by two
at a time, and in the end every status says what became of the run.

What watches tell has to do: everything is listed again only where a watch has lost something.
"""

from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from anomaly_api.reasons import Reason
from anomaly_operator.resources import Manifest
from support.objects import EXPERIMENT, INFERENCE, with_spec
from support.played_api import Fault, PlayedApi, Refused
from support.played_controllers import PlayedControllers, has_ended
from support.played_loop import PlayedLoop
from support.played_operator import PlayedDeployment
from support.played_truth import OVER, Truth

EXPERIMENTS, INFERENCES = "anomalyexperiments", "anomalyinferences"
SWEEP = {
    "parameters": [{"path": "model.padim.nFeatures", "choices": [10, 20, 30]}],
    "algorithm": {"name": "grid"},
    "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
    "trials": {"max": 2, "parallel": 2},
}
RUNS: dict[tuple[str, str], Manifest] = {
    (EXPERIMENTS, "screws"): EXPERIMENT,
    (EXPERIMENTS, "checked"): with_spec(EXPERIMENT, runPolicy={"preflight": "Always", "backoffLimit": 1}),
    (EXPERIMENTS, "hunt"): with_spec(EXPERIMENT, sweep=SWEEP, runPolicy={"preflight": "Never"}),
    (INFERENCES, "screws"): INFERENCE,
}
ENDS = (Reason.COMPLETE, Reason.COMPLETE, Reason.DATA_INVALID, Reason.STORAGE_UNAVAILABLE)
END_REASONS = {*map(str, ENDS), "ResultLost", "TrialsFailed"}
LONGEST_BACKOFF = 310.0
"""Longest pause between two tries of a reconcile that has failed often, seconds."""
LONGEST_LEASE = 650.0
"""Seconds after which another replica leads, whatever became of the one before; longer than a backoff."""
LONGEST_PAUSE = 40.0
"""Seconds after which something happens where nothing fails: what is refused is tried again each half minute."""
QUIET_SECONDS = 200.0
"""Seconds after which nothing is left of a fault: all retries of a request are over."""

Rule = TypeVar("Rule", bound=Callable[..., None])


class Weather(Enum):
    """What goes wrong in an example: much of one sort tells more than a little of each."""

    CALM = "nothing, so that everything has to be told at once"
    REQUESTS = "requests"
    WATCHES = "watches"
    PROCESSES = "processes"
    ALL = "everything"


def in_weather(weather: Weather) -> Callable[[Rule], Rule]:
    """Return a decorator for rules that are of this weather."""
    return precondition(lambda machine: machine.weather in (weather, Weather.ALL))


some_run = st.sampled_from(sorted(RUNS))
some_watch = st.sampled_from(["jobs", "pods", EXPERIMENTS, INFERENCES])
some_time = st.sampled_from([0.0, 0.006, 0.012, 0.03, 0.2, 2.0, 20.0])
some_number = st.integers(0, 7)


class AnyRuns(RuleBasedStateMachine):
    """Users, controllers, faults and time, in any order."""

    weather = Weather.CALM

    @initialize(
        weather=st.sampled_from(Weather),
        runs=st.lists(some_run, min_size=1, max_size=2, unique=True),
        seconds=some_time,
        watch_seconds=st.sampled_from([0.002, 0.02]),
    )
    def begin(self, weather: Weather, runs: list[tuple[str, str]], seconds: float, watch_seconds: float) -> None:
        self.weather = weather
        self.loop = PlayedLoop()
        self.api = PlayedApi(self.loop.time)
        self.controllers = PlayedControllers(self.api)
        self.truth = Truth(self.api, self.operator_sees)
        self.operators = PlayedDeployment(self.loop, self.api, watch_seconds)
        self.changes = 0
        self.disturbed_at: float | None = None
        self.pass_time(1.0)
        for run in runs:
            self.apply(run, seconds)

    def pass_time(self, seconds: float) -> None:
        self.loop.run_for(seconds)
        self.operators.restart()

    def disturb(self) -> None:
        self.disturbed_at = self.loop.time()

    def operator_sees(self) -> bool:
        """Whether the operator knows everything, and its requests have been answered for a while."""
        quiet = self.disturbed_at is None or self.loop.time() - self.disturbed_at > QUIET_SECONDS
        return quiet and not self.api.faults and not self.operators.blind

    # Users -----------------------------------------------------------------------------------------------------------

    @rule(run=some_run, seconds=some_time)
    def apply(self, run: tuple[str, str], seconds: float) -> None:
        """Apply a resource, or another spec of it where the API server lets it pass."""
        if run not in self.api.objects:
            self._create(run)
        elif self._may_change(run):
            self.changes += 1
            self.api.change(*run, {"spec": {"output": {"s3": {"uri": f"s3://results/{self.changes}"}}}})
        self.pass_time(seconds)

    def _create(self, run: tuple[str, str]) -> None:
        plural, name = run
        self.api.add(plural, RUNS[run] | {"metadata": {"name": name, "namespace": "vision"}})

    def _may_change(self, run: tuple[str, str]) -> bool:
        status = self.api.objects[run].get("status", {})
        return "startTime" not in status or status["phase"] in ("Suspended", *OVER)

    @rule(run=some_run, suspend=st.booleans(), seconds=some_time)
    def suspend(self, run: tuple[str, str], suspend: bool, seconds: float) -> None:
        if run in self.api.objects:
            self.api.change(*run, {"spec": {"runPolicy": {"suspend": suspend}}})
        self.pass_time(seconds)

    @rule(run=some_run, seconds=some_time)
    def run_again(self, run: tuple[str, str], seconds: float) -> None:
        """Ask for another run, once the present one is over."""
        self.changes += 1
        if run in self.api.objects:
            self.api.change(*run, {"spec": {"runPolicy": {"rerun": str(self.changes)}}})
        self.pass_time(seconds)

    @rule(most=st.integers(1, 3), seconds=some_time)
    def change_limits(self, most: int, seconds: float) -> None:
        """Ask a sweep for more or fewer trials, at work or over."""
        if (EXPERIMENTS, "hunt") in self.api.objects:
            self.api.change(EXPERIMENTS, "hunt", {"spec": {"sweep": {"trials": {"max": most}}}})
        self.pass_time(seconds)

    @rule(run=some_run, clean=st.booleans(), seconds=some_time)
    def delete(self, run: tuple[str, str], clean: bool, seconds: float) -> None:
        if run in self.api.objects:
            self.api.remove(*run)
        if clean:
            self.api.collect_garbage()
        self.pass_time(seconds)

    @rule(run=some_run, seconds=some_time)
    def delete_slowly(self, run: tuple[str, str], seconds: float) -> None:
        """Delete a resource in the foreground: it is there until what it owns is gone."""
        if run in self.api.objects:
            self.api.remove_slowly(*run)
        self.pass_time(seconds)

    @rule(run=some_run, before=some_time, clean_after=some_time)
    def replace(self, run: tuple[str, str], before: float, clean_after: float) -> None:
        """Replace a resource at once by one of the same name; what the first one owned goes later."""
        self.pass_time(before)
        if run in self.api.objects:
            self.api.remove(*run)
        self._create(run)
        self.pass_time(clean_after)
        self.api.collect_garbage()

    @rule(number=some_number, slowly=st.booleans())
    def delete_job(self, number: int, slowly: bool) -> None:
        if jobs := list(self.api.all("jobs")):
            job = jobs[number % len(jobs)]
            self.truth.job_is_deleted(job)
            if slowly:
                self.api.remove_slowly("jobs", job["metadata"]["name"])
            else:
                self.api.remove("jobs", job["metadata"]["name"])
                self.api.collect_garbage()

    # Controllers -----------------------------------------------------------------------------------------------------

    @rule(seconds=some_time)
    def sync_jobs(self, seconds: float) -> None:
        for job in self.controllers.jobs():
            self.controllers.sync(job)
            after = self.api.objects["jobs", job["metadata"]["name"]]
            if has_ended(after):
                self.truth.job_ends(after, self.controllers.counted_pods(after))
        self.pass_time(seconds)

    @rule(end=st.none() | st.sampled_from(ENDS), number=some_number, seconds=some_time)
    def move_pod(self, end: Reason | None, number: int, seconds: float) -> None:
        """Start a pod, or end it."""
        self.sync_jobs(0.0)
        if pods := [pod for job in self.controllers.jobs() for pod in self.controllers.active_pods(job)]:
            pod = pods[number % len(pods)]
            if end is None:
                self.controllers.run_pod(pod)
            else:
                self.controllers.end_pod(pod, end)
        self.pass_time(seconds)

    @rule(ends=st.lists(st.sampled_from(ENDS), min_size=3, max_size=3), seconds=some_time)
    def end_pods(self, ends: list[Reason], seconds: float) -> None:
        """Let every Job's pod end, and the Job with it."""
        self.pass_time(seconds)
        self.sync_jobs(seconds)
        for job, end in zip(self.controllers.jobs(), ends, strict=False):
            for pod in self.controllers.active_pods(job):
                self.controllers.end_pod(pod, end)
        self.sync_jobs(seconds)

    @rule(end=st.sampled_from(ENDS), number=some_number, seconds=some_time)
    def drain(self, end: Reason, number: int, seconds: float) -> None:
        """Delete a pod as soon as it has ended; the operator has seen its end, if it sees anything."""
        self.sync_jobs(0.0)
        if pods := [pod for job in self.controllers.jobs() for pod in self.controllers.active_pods(job)]:
            name = pods[number % len(pods)]["metadata"]["name"]
            self.controllers.end_pod(pods[number % len(pods)], end)
            self.pass_time(0.1)
            pod = self.api.objects["pods", name]
            job = self.api.objects["jobs", pod["metadata"]["ownerReferences"][0]["name"]]
            self.controllers.drain(pod)
            if not self.operator_sees():
                self.truth.pods_are_lost(job)
        self.sync_jobs(seconds)

    @rule(number=some_number)
    def lose_pod(self, number: int) -> None:
        """Delete a pod, as a drained node does; what it said may be lost with it."""
        if pods := list(self.api.all("pods")):
            pod = pods[number % len(pods)]
            owner = self.api.objects.get(("jobs", pod["metadata"]["ownerReferences"][0]["name"]))
            if owner and owner["metadata"]["uid"] == pod["metadata"]["labels"]["uid"] and has_ended(owner):
                self.truth.pods_are_lost(owner)
                self.api.remove("pods", pod["metadata"]["name"])
            elif pod["status"]["phase"] in ("Pending", "Running"):
                self.api.remove("pods", pod["metadata"]["name"])

    @rule()
    def collect(self) -> None:
        self.controllers.collect()
        self.api.collect_garbage()

    # Faults ----------------------------------------------------------------------------------------------------------

    @in_weather(Weather.REQUESTS)
    @rule(faults=st.lists(st.sampled_from(Fault), min_size=1, max_size=6), seconds=some_time)
    def fail_requests(self, faults: list[Fault], seconds: float) -> None:
        self.disturb()
        self.api.faults.extend(faults)
        self.pass_time(seconds)

    @rule(refused=st.booleans())
    def refuse_jobs(self, refused: bool) -> None:
        self.api.refusal = Refused(403, "exceeded quota: jobs") if refused else None

    @in_weather(Weather.WATCHES)
    @rule(plural=some_watch)
    def break_watch(self, plural: str) -> None:
        self.disturb()
        self.operators.break_watch(plural)

    @in_weather(Weather.WATCHES)
    @rule(plural=some_watch)
    def mend_watch(self, plural: str) -> None:
        self.disturb()
        self.operators.mend_watch(plural)

    @in_weather(Weather.WATCHES)
    @rule(plural=some_watch, seconds=st.sampled_from([0.1, 5.0]))
    def delay_watch(self, plural: str, seconds: float) -> None:
        self.disturb()
        self.operators.delay_watch(plural, seconds)

    @in_weather(Weather.WATCHES)
    @rule(run=some_run, listed_after=st.sampled_from([0.0, 0.2, 2.0]), seconds=some_time)
    def replace_unheard(self, run: tuple[str, str], listed_after: float, seconds: float) -> None:
        """Replace a resource while the watch is late; a LIST tells of the second one before the end of the first."""
        self.delay_watch(run[0], 5.0)
        self.replace(run, 0.0, listed_after)
        self.operators.relist()
        self.pass_time(seconds)

    @in_weather(Weather.WATCHES)
    @rule(plural=some_watch, number=some_number, run=some_run)
    def lose_a_deletion(self, plural: str, number: int, run: tuple[str, str]) -> None:
        """Delete something while its watch is broken: a LIST alone tells."""
        self.break_watch(plural)
        if plural == "jobs":
            self.delete_job(number, slowly=False)
        elif plural == "pods":
            self.lose_pod(number)
        else:
            self.delete(run, clean=True, seconds=0.2)
        self.mend_watch(plural)
        self.pass_time(1.0)
        self.operators.relist()

    @in_weather(Weather.WATCHES)
    @rule(run=some_run, before=st.integers(0, 15), seconds=some_time)
    def apply_while_listing(self, run: tuple[str, str], before: int, seconds: float) -> None:
        """Apply something that a LIST which is under way no longer has."""
        self.operators.relist()
        self.pass_time(0.003 * before)
        self.apply(run, seconds)

    @in_weather(Weather.WATCHES)
    @rule(seconds=some_time)
    def relist(self, seconds: float) -> None:
        self.operators.relist()
        self.pass_time(seconds)

    @in_weather(Weather.PROCESSES)
    @rule(seconds=some_time, lease_stays=st.booleans())
    def kill(self, seconds: float, lease_stays: bool) -> None:
        self._lose_ends()
        self.operators.kill(lease_stays=lease_stays)
        self.pass_time(seconds)

    @in_weather(Weather.PROCESSES)
    @rule(writes=st.integers(0, 3), seconds=some_time)
    def kill_at_a_write(self, writes: int, seconds: float) -> None:
        """Kill the operator when a write has taken effect, before it hears of that."""
        self._lose_ends()
        self.api.at_write.clear()
        self.api.at_write.extend([*[None] * writes, self._die])
        self.pass_time(seconds)

    def _die(self) -> None:
        self._lose_ends()
        self.operators.end()

    @in_weather(Weather.PROCESSES)
    @rule(seconds=some_time, following=some_time)
    def hand_over(self, following: float, seconds: float) -> None:
        """Roll the Deployment: another replica follows for a while, then the leader gives up the Lease."""
        self._lose_ends()
        self.operators.hand_over(following)
        self.pass_time(seconds)

    @in_weather(Weather.PROCESSES)
    @rule(seconds=st.sampled_from([100.0, 700.0]))
    def lose_lease(self, seconds: float) -> None:
        """Let renewals fail; the leader ends itself, if it does not succeed in time."""
        self._lose_ends()
        self.api.lease_outage = True
        self.pass_time(seconds)
        self.api.lease_outage = False

    def _lose_ends(self) -> None:
        """What was seen of pods that are gone is lost with the process."""
        self.disturb()
        for job in self.api.all("jobs"):
            if self.controllers.has_drained(job):
                self.truth.pods_are_lost(job)

    @rule(seconds=st.sampled_from([1.0, 40.0, 400.0]))
    def wait(self, seconds: float) -> None:
        self.pass_time(seconds)

    # What holds always, and what holds in the end --------------------------------------------------------------------

    @invariant()
    def nothing_is_wrong(self) -> None:
        assert not self.api.complaints, self.api.complaints
        assert self.operators.leading <= 1
        assert not self.operators.defects

    def teardown(self) -> None:
        try:
            self.settle()
            self.check_ends()
            self.check_events()
            self.check_rest()
        finally:
            self.operators.close()
            self.loop.close()

    def settle(self) -> None:
        """Nothing more goes wrong, and every pod does its work."""
        self.api.faults.clear()
        self.api.at_write.clear()
        self.api.refusal = None
        for run in filter(self.api.objects.__contains__, RUNS):
            if self.api.objects[run]["spec"].get("runPolicy", {}).get("suspend"):
                self.api.change(*run, {"spec": {"runPolicy": {"suspend": False}}})
        if self.operators.blind:
            self.operators.see_again()
        self.pass_time(LONGEST_LEASE)
        for _ in range(15):
            self.api.finish_deletions()
            self.api.collect_garbage()
            self.pass_time(LONGEST_PAUSE)
            if not self._move_on():
                break
        self.nothing_is_wrong()

    def _move_on(self) -> bool:
        version = self.api.version
        for job in self.controllers.jobs():
            for pod in self.controllers.active_pods(job):
                self.controllers.end_pod(pod, Reason.COMPLETE)
        self.sync_jobs(0.0)
        return self.api.version > version

    def check_ends(self) -> None:
        for run in filter(self.api.objects.__contains__, RUNS):
            found = self.api.objects[run]
            status: dict[str, Any] = found["status"]
            assert status["observedGeneration"] == found["metadata"]["generation"], (run, status)
            if run == (INFERENCES, "screws") and status["phase"] == "Waiting":
                assert self._has_no_model(), status
                continue
            assert status["phase"] in OVER, (run, status)
            assert self.truth.told[found["metadata"]["uid"], status["run"]] == 1
            if "sweep" in found["spec"]:
                self._check_sweep(found)

    def _check_sweep(self, sweep: Manifest) -> None:
        owner, search = sweep["metadata"]["uid"], sweep["status"]["sweep"]["search"]
        trials = [
            found for found in self.api.all(EXPERIMENTS) if found["spec"].get("trial", {}).get("sweepUid") == owner
        ]
        which = [trial["spec"]["trial"] for trial in trials]
        numbers = sorted(one["number"] for one in which if one["search"] == search)
        most = sweep["spec"]["sweep"]["trials"]["max"]
        assert len(numbers) >= most, "all that may be asked is, however late that was said"
        assert numbers == list(range(len(numbers))), "none twice"
        assert all(trial["status"]["phase"] in OVER for trial in trials), "what is at work at the end is deleted"
        counts = sweep["status"]["sweep"]
        assert (counts["asked"], counts.get("running", 0)) == (len(numbers), 0)

    def _has_no_model(self) -> bool:
        experiment = self.api.objects.get((EXPERIMENTS, "screws"), {}).get("status", {})
        runs = [experiment, *experiment.get("history", [])]
        return not any(found.get("phase") == "Complete" and found.get("artifacts") for found in runs)

    def check_events(self) -> None:
        """An Event tells of an end once; where a request of the operator was lost, the status alone may do so."""
        events = Counter(
            event["regarding"]["uid"]
            for event in self.api.all("events")
            if event["reason"] in END_REASONS and event["action"] == "Reconcile"
        )
        ends = Counter(uid for uid, _ in self.truth.told if uid not in self.truth.trials)
        assert all(events[uid] <= ends[uid] for uid in events), (events, ends)
        if self.disturbed_at is None:
            assert events == ends

    def check_rest(self) -> None:
        """Everything belongs to something, and nothing is written any more, not even by another process."""
        self.api.collect_garbage()
        uids = {found["metadata"]["uid"] for found in self.api.objects.values()}
        for kind in ("jobs", "pods"):
            for found in self.api.all(kind):
                assert found["metadata"]["ownerReferences"][0]["uid"] in uids
        self.api.writes.clear()
        self.operators.kill()
        self.pass_time(LONGEST_BACKOFF)
        assert self.api.writes == []
        self.nothing_is_wrong()


TestAnyRuns = AnyRuns.TestCase
TestAnyRuns.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    derandomize=True,  # whoever changes something else is not told of what chance finds
    phases=[Phase.generate],  # a failure tells the steps that led to it; fewer of them take minutes to find
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
