"""Runs through whatever happens to them and to the operator: every run ends, and is told once.

Users apply, change, suspend and delete; pods end in every way; requests fail, answers and watch events are lost or come
late; the operator is killed between any two requests. Whatever the order: no Job is made twice, no record of a run is
changed, nothing is written without a change, and in the end every status says what became of the run.
"""

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from anomaly_api.reasons import ExitCode, Reason
from anomaly_operator import names
from anomaly_operator.resources import Manifest
from support.objects import EXPERIMENT, INFERENCE, with_spec
from support.played_api import Fault, PlayedApi, Refused
from support.played_controllers import PlayedControllers, exit_code, has_ended
from support.played_loop import PlayedLoop
from support.played_operator import PlayedOperator

EXPERIMENTS, INFERENCES = "anomalyexperiments", "anomalyinferences"
RUNS: dict[tuple[str, str], Manifest] = {
    (EXPERIMENTS, "screws"): EXPERIMENT,
    (EXPERIMENTS, "checked"): with_spec(EXPERIMENT, runPolicy={"preflight": "Always", "backoffLimit": 1}),
    (INFERENCES, "screws"): INFERENCE,
}
ENDS = (Reason.COMPLETE, Reason.COMPLETE, Reason.DATA_INVALID, Reason.STORAGE_UNAVAILABLE)
END_REASONS = {*map(str, ENDS), "ResultLost"}
OVER = ("Complete", "Failed")
LONGEST_BACKOFF = 310.0

some_run = st.sampled_from(sorted(RUNS))
some_watch = st.sampled_from(["jobs", "pods", EXPERIMENTS, INFERENCES])
some_time = st.sampled_from([0.0, 0.006, 0.012, 0.03, 0.2, 2.0, 20.0])
some_number = st.integers(0, 7)


class Truth:
    """What became of the Jobs, seen from beside the operator."""

    def __init__(self, api: PlayedApi) -> None:
        self._api = api
        self.ends: dict[tuple[str, str, str], set[str]] = {}
        """By UID, run and step: the reasons that the status may give."""
        self._ended: set[str] = set()  # by what their pods were told: another spec makes another Job of the name
        self._deleted: set[tuple[str, str, str]] = set()
        self.told: Counter[tuple[str, int]] = Counter()
        api.judges.append(self._judge)

    def job_ends(self, job: Manifest, pods: list[Manifest]) -> None:
        """Note how a Job ended."""
        ended = [pod for pod in pods if pod["status"]["phase"] in ("Succeeded", "Failed")]
        succeeded = [pod for pod in ended if pod["status"]["phase"] == "Succeeded"]
        reason = ExitCode(exit_code((succeeded or ended)[-1])).reason
        self.ends.setdefault(_which(job), set()).add(str(reason))
        self._ended.add(_digest(job))

    def pods_are_lost(self, job: Manifest) -> None:
        """Note that nobody may know how a Job ended."""
        self.ends.setdefault(_which(job), set()).add(str(Reason.RESULT_LOST))

    def job_is_deleted(self, job: Manifest) -> None:
        """Note that a Job may have to be made again: nobody but a user deleted it."""
        self._deleted.add(_which(job))

    def _judge(self, verb: str, plural: str, known: Manifest | None, new: Manifest) -> None:
        if (verb, plural) == ("create", "jobs"):
            self._judge_job(new)
        if verb == "update" and known is not None and plural in (EXPERIMENTS, INFERENCES):
            self._judge_status(known, new)

    def _judge_job(self, job: Manifest) -> None:
        owner, which = job["metadata"]["ownerReferences"][0], _which(job)
        run = self._api.objects.get((f"{owner['kind'].lower()}s", owner["name"]))
        if run is None or run["metadata"]["uid"] != owner["uid"]:
            return  # the operator has not heard that the resource was deleted; the Job is garbage at once
        if _digest(job) in self._ended and which not in self._deleted:
            self._api.complaints.append(f"Job {job['metadata']['name']} of {which} is made again")
        self._deleted.discard(which)
        status = run.get("status") or {}
        if status.get("phase") in OVER and str(status["run"]) == which[1]:
            self._api.complaints.append(f"Job {job['metadata']['name']} of a run that is over")

    def _judge_status(self, known: Manifest, new: Manifest) -> None:
        before, after = known.get("status") or {}, new["status"]
        if before.get("phase") in OVER and before.get("run") == after.get("run") and _record(before) != _record(after):
            self._api.complaints.append(f"the record of {known['metadata']['name']} was changed")
        if before.get("phase") not in OVER and after.get("phase") in OVER:
            self.told[new["metadata"]["uid"], after["run"]] += 1
            if self.told[new["metadata"]["uid"], after["run"]] > 1:
                self._api.complaints.append(f"the end of {known['metadata']['name']} was told twice")


def _which(job: Manifest) -> tuple[str, str, str]:
    labels = job["metadata"]["labels"]
    owner: str = job["metadata"]["ownerReferences"][0]["uid"]
    return owner, labels.get(names.RUN_LABEL, "1"), labels.get(names.STEP_LABEL, "")


def _digest(job: Manifest) -> str:
    """Return what tells a Job of one spec, run and resource from others."""
    digest: str = job["metadata"]["annotations"][names.CONFIG_DIGEST_ANNOTATION]
    return digest


def _record(status: Manifest) -> Manifest:
    """Return what stays of a run that is over: all but what is told of later specs and models."""
    conditions = [{**found, "observedGeneration": 0} for found in status["conditions"]]
    return {**status, "conditions": conditions, "observedGeneration": 0, "trainedBy": None}


class AnyRuns(RuleBasedStateMachine):
    """Users, controllers, faults and time, in any order."""

    @initialize(runs=st.lists(some_run, min_size=1, unique=True), seconds=some_time)
    def begin(self, runs: list[tuple[str, str]], seconds: float) -> None:
        self.loop = PlayedLoop()
        self.api = PlayedApi(self.loop.time)
        self.controllers = PlayedControllers(self.api)
        self.truth = Truth(self.api)
        self.operator = PlayedOperator(self.loop, self.api)
        self.changes = 0
        self.disturbed = False
        for run in runs:
            self.apply(run, seconds)

    # Users -----------------------------------------------------------------------------------------------------------

    @rule(run=some_run, seconds=some_time)
    def apply(self, run: tuple[str, str], seconds: float) -> None:
        """Apply a resource, or another spec of it where the API server lets it pass."""
        plural, name = run
        if run not in self.api.objects:
            metadata = {"name": name, "namespace": "vision"}
            self.api.add(plural, RUNS[run] | {"metadata": metadata})
        elif self._may_change(run):
            self.changes += 1
            self.api.change(plural, name, {"spec": {"output": {"s3": {"uri": f"s3://results/{self.changes}"}}}})
        self.loop.run_for(seconds)

    def _may_change(self, run: tuple[str, str]) -> bool:
        status = self.api.objects[run].get("status", {})
        return "startTime" not in status or status["phase"] in ("Suspended", *OVER)

    @rule(run=some_run, suspend=st.booleans(), seconds=some_time)
    def suspend(self, run: tuple[str, str], suspend: bool, seconds: float) -> None:
        if run in self.api.objects:
            self.api.change(*run, {"spec": {"runPolicy": {"suspend": suspend}}})
        self.loop.run_for(seconds)

    @rule(run=some_run)
    def run_again(self, run: tuple[str, str]) -> None:
        """Ask for another run, once the present one is over."""
        self.loop.run_for(1.0)
        self.changes += 1
        if run in self.api.objects:
            self.api.change(*run, {"spec": {"runPolicy": {"rerun": str(self.changes)}}})
        self.loop.run_for(1.0)

    @rule(run=some_run, clean=st.booleans(), seconds=some_time)
    def delete(self, run: tuple[str, str], clean: bool, seconds: float) -> None:
        if run in self.api.objects:
            self.api.remove(*run)
        if clean:
            self.api.collect_garbage()
        self.loop.run_for(seconds)

    @rule(number=some_number)
    def delete_job(self, number: int) -> None:
        if jobs := list(self.api.all("jobs")):
            job = jobs[number % len(jobs)]
            self.truth.job_is_deleted(job)
            self.api.remove("jobs", job["metadata"]["name"])
            self.api.collect_garbage()

    # Controllers -----------------------------------------------------------------------------------------------------

    @rule(seconds=some_time)
    def sync_jobs(self, seconds: float) -> None:
        for job in self.controllers.jobs():
            self.controllers.sync(job)
            after = self.api.objects["jobs", job["metadata"]["name"]]
            if has_ended(after):
                self.truth.job_ends(after, self.controllers.pods_of(after))
        self.loop.run_for(seconds)

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
        self.loop.run_for(seconds)

    @rule(ends=st.lists(st.sampled_from(ENDS), min_size=3, max_size=3), seconds=some_time)
    def end_pods(self, ends: list[Reason], seconds: float) -> None:
        """Let every Job's pod end, and the Job with it."""
        self.loop.run_for(seconds)
        self.sync_jobs(seconds)
        for job, end in zip(self.controllers.jobs(), ends, strict=False):
            for pod in self.controllers.active_pods(job):
                self.controllers.end_pod(pod, end)
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

    @rule(faults=st.lists(st.sampled_from(Fault), min_size=1, max_size=6), seconds=some_time)
    def fail_requests(self, faults: list[Fault], seconds: float) -> None:
        self.disturbed = True
        self.api.faults.extend(faults)
        self.loop.run_for(seconds)

    @rule(refused=st.booleans())
    def refuse_jobs(self, refused: bool) -> None:
        self.api.refusal = Refused(403, "exceeded quota: jobs") if refused else None

    @rule(plural=some_watch)
    def break_watch(self, plural: str) -> None:
        self.operator.deaf.add(plural)

    @rule(plural=some_watch)
    def mend_watch(self, plural: str) -> None:
        self.operator.hear_again(plural)

    @rule(plural=some_watch, seconds=st.sampled_from([0.1, 5.0]))
    def delay_watch(self, plural: str, seconds: float) -> None:
        self.operator.delay(plural, seconds)

    @rule(seconds=some_time)
    def kill(self, seconds: float) -> None:
        self.disturbed = True
        self.operator.kill()
        self.operator = PlayedOperator(self.loop, self.api)
        self.loop.run_for(seconds)

    @rule(seconds=st.sampled_from([1.0, 40.0, 400.0]))
    def wait(self, seconds: float) -> None:
        self.loop.run_for(seconds)

    # What holds always, and what holds in the end --------------------------------------------------------------------

    @invariant()
    def nothing_is_wrong(self) -> None:
        assert not self.api.complaints, self.api.complaints
        self.operator.check_alive()

    def teardown(self) -> None:
        try:
            self.settle()
            self.check_ends()
            self.check_events()
            self.check_rest()
        finally:
            self.operator.kill()
            self.loop.close()

    def settle(self) -> None:
        """Nothing more goes wrong, and every pod does its work."""
        self.api.faults.clear()
        self.api.refusal = None
        for run in RUNS:
            if run in self.api.objects:
                self.api.change(*run, {"spec": {"runPolicy": {"suspend": False}}})
        for _ in range(12):
            self.api.collect_garbage()
            self.loop.run_for(LONGEST_BACKOFF)
            if not self._move_on():
                break
        self.nothing_is_wrong()

    def _move_on(self) -> bool:
        version = self.api._version
        for job in self.controllers.jobs():
            for pod in self.controllers.active_pods(job):
                self.controllers.end_pod(pod, Reason.COMPLETE)
        self.sync_jobs(0.0)
        return self.api._version > version

    def check_ends(self) -> None:
        for run in filter(self.api.objects.__contains__, RUNS):
            found = self.api.objects[run]
            status: dict[str, Any] = found["status"]
            if run == (INFERENCES, "screws") and status["phase"] == "Waiting":
                assert self._has_no_model(), status
                continue
            assert status["phase"] in OVER, (run, status)
            [end] = [each for each in status["conditions"] if each["type"] in OVER and each["status"] == "True"]
            uid, number = found["metadata"]["uid"], str(status["run"])
            allowed = self.truth.ends.get((uid, number, "")) or self.truth.ends[uid, number, "check"]
            assert end["reason"] in allowed, (run, end, allowed)

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
        ends = Counter(uid for uid, _ in self.truth.told)
        assert all(events[uid] <= ends[uid] for uid in events), (events, ends)
        if not self.disturbed:
            assert events == ends

    def check_rest(self) -> None:
        """Nothing happens any more, so nothing is written, not even by another process."""
        self.api.writes.clear()
        self.operator.kill()
        self.operator = PlayedOperator(self.loop, self.api)
        self.loop.run_for(2 * LONGEST_BACKOFF)
        assert self.api.writes == []
        self.nothing_is_wrong()


TestAnyRuns = AnyRuns.TestCase
TestAnyRuns.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    derandomize=True,  # whoever changes something else is not told of what chance finds
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
