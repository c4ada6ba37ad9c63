"""The reconcile on a played API server: what it writes, what it retries, and what a run's owner gets to know of it."""

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from anomaly_api.reasons import Reason
from anomaly_api.run import ProgressUpdate, RunIdentity
from anomaly_api.status import Progress, Stage
from anomaly_operator import controller, names, reconciler
from anomaly_operator.decide import failing
from anomaly_operator.decide.plan import plan
from anomaly_operator.errors import RequeueRequested
from anomaly_operator.metrics import REGISTRY
from anomaly_operator.resources import Manifest
from anomaly_operator.views import run_view
from support.objects import EXPERIMENT, INFERENCE, KEY, with_spec
from support.played_api import Fault, PlayedApi, Refused
from support.played_controllers import PlayedControllers
from support.played_loop import PlayedLoop
from support.played_operator import PlayedOperator

EXPERIMENTS, INFERENCES = "anomalyexperiments", "anomalyinferences"
JOB = "screws-experiment"
UNCHECKED = with_spec(EXPERIMENT, runPolicy={"preflight": "Never", "ttlSecondsAfterFinished": 60})


class World:
    """An API server, its controllers, and one process of the operator."""

    def __init__(self, logs: list[MutableMapping[str, Any]]) -> None:
        self.logs = logs
        self.loop = PlayedLoop()
        self.api = PlayedApi(self.loop.time)
        self.controllers = PlayedControllers(self.api)
        self.operator = PlayedOperator(self.loop, self.api)
        self.wait = self.loop.run_for

    def apply(self, manifest: Manifest = UNCHECKED, seconds: float = 1.0, **metadata: Any) -> None:
        plural = f"{manifest['kind'].lower()}s"
        self.api.add(plural, manifest | {"metadata": manifest["metadata"] | metadata})
        self.wait(seconds)

    def run_pods(self, end: Reason | None = None, seconds: float = 1.0) -> None:
        """Start the pods of all Jobs, or end them."""
        self.sync()
        for job in self.controllers.jobs():
            for pod in self.controllers.active_pods(job):
                if end is None:
                    self.controllers.run_pod(pod)
                else:
                    self.controllers.end_pod(pod, end)
        self.sync()
        self.wait(seconds)

    def sync(self) -> None:
        for job in self.controllers.jobs():
            self.controllers.sync(job)

    def restart(self, away: Callable[[], object] = lambda: None, seconds: float = 1.0) -> None:
        """Replace the operator's process; something may happen while there is none."""
        self.operator.kill()
        away()
        self.operator = PlayedOperator(self.loop, self.api)
        self.wait(seconds)

    def status(self, name: str = "screws", plural: str = EXPERIMENTS) -> Manifest:
        status: Manifest = self.api.objects[plural, name].get("status", {})
        return status

    def condition(self, kind: str, **which: str) -> Manifest:
        return next((found for found in self.status(**which)["conditions"] if found["type"] == kind), {})

    def events(self) -> list[tuple[str, str]]:
        return [(event["type"], event["reason"]) for event in self.api.all("events")]

    def logged(self, event: str) -> list[MutableMapping[str, Any]]:
        return [entry for entry in self.logs if entry["event"] == event]

    def taken_writes(self) -> list[tuple[str, str]]:
        taken = list(self.api.writes)
        self.api.writes.clear()
        return taken


@pytest.fixture
def world() -> Iterator[World]:
    with capture_logs() as logs:
        made = World(logs)
        made.wait(1.0)
        yield made
        made.operator.kill()
        made.loop.close()
    assert made.api.complaints == []


STATUS = ("PUT", f"{EXPERIMENTS}/screws")


def test_a_run_costs_the_writes_that_its_changes_need(world: World) -> None:
    world.apply()
    assert world.taken_writes() == [("POST", f"jobs/{JOB}"), STATUS]
    assert world.status()["phase"] == "Pending"
    world.run_pods()
    assert world.taken_writes() == [STATUS]
    assert world.status()["phase"] == "Running"
    world.run_pods(Reason.COMPLETE)
    status, event, patch = world.taken_writes()
    assert (status, event[0], patch) == (STATUS, "POST", ("PATCH", f"jobs/{JOB}"))
    assert world.events() == [("Normal", "Complete")]
    assert world.api.objects["jobs", JOB]["spec"]["ttlSecondsAfterFinished"] == 60
    world.restart(seconds=700.0)
    assert world.taken_writes() == []


def test_new_runs_have_their_jobs_before_they_have_a_status(world: World) -> None:
    for number in range(9):
        world.api.add(EXPERIMENTS, UNCHECKED | {"metadata": {"name": f"screws-{number}", "namespace": "vision"}})
    world.wait(2.0)
    methods = [method for method, _ in world.taken_writes()]
    assert sorted(methods) == ["POST"] * 9 + ["PUT"] * 9
    assert methods[:8].count("POST") >= 6, "but for every fourth, so that nobody waits for ever"


def test_a_job_that_somebody_deletes_at_work_is_made_again_and_told(world: World) -> None:
    world.apply()
    world.run_pods()
    assert world.status()["phase"] == "Running"
    world.taken_writes()
    world.api.remove("jobs", JOB)
    world.wait(1.0)
    job, status, event = world.taken_writes()
    assert (job, status, event[0]) == (("POST", f"jobs/{JOB}"), STATUS, "POST"), "in one reconcile"
    waiting = world.condition("Reconciling")
    assert (world.status()["phase"], waiting["reason"]) == ("Pending", "JobDeleted")
    assert world.events() == [("Warning", "JobDeleted")]


def test_a_job_whose_creation_was_not_answered_is_adopted(world: World) -> None:
    world.api.faults.append(Fault.ANSWER_LOST)
    world.apply(seconds=60.0)
    assert [job["metadata"]["name"] for job in world.api.all("jobs")] == [JOB]
    assert world.status()["jobName"] == JOB


def test_a_refused_job_is_told_and_tried_again_every_half_minute(world: World) -> None:
    world.api.refusal = Refused(403, "exceeded quota: jobs")
    world.apply()
    stalled = world.condition("Stalled")
    assert (stalled["reason"], stalled["message"]) == ("JobRefused", "exceeded quota: jobs")
    world.api.refusal = None
    world.wait(28.0)
    assert not list(world.api.all("jobs"))
    world.wait(3.0)
    assert (world.status()["phase"], world.condition("Stalled")["status"]) == ("Pending", "False")
    assert world.events() == [("Warning", "JobRefused")]


def test_a_namespace_that_is_being_deleted_is_no_fault_of_the_run(world: World) -> None:
    world.api.refusal = Refused(403, "unable to create new content in namespace x because it is being terminated")
    world.apply(seconds=10.0)
    assert world.taken_writes() == []


def foreign_job(labels: dict[str, str], **owner: str) -> Manifest:
    owners = [{"controller": True, **owner}] if owner else []
    metadata = {"name": JOB, "namespace": "vision", "ownerReferences": owners, "labels": labels}
    return {"metadata": metadata, "spec": {}, "status": {}}


OURS = {names.MANAGED_BY_LABEL: names.MANAGED_BY}


@pytest.mark.parametrize("labels", [{}, OURS], ids=["not watched", "watched"])
def test_a_job_of_somebody_else_is_left_alone_and_told(world: World, labels: dict[str, str]) -> None:
    world.api.add("jobs", foreign_job(labels))
    world.apply()
    expected = f"a Job named {JOB} exists that does not belong to this run; delete it or rename the run"
    assert world.condition("Stalled")["message"] == expected
    world.api.remove("jobs", JOB)
    world.wait(31.0)
    assert world.api.objects["jobs", JOB]["metadata"]["ownerReferences"][0]["uid"].startswith("uid-")
    assert world.condition("Stalled")["status"] == "False"


@pytest.mark.parametrize("labels", [{}, OURS], ids=["not watched", "watched"])
def test_a_job_of_an_earlier_resource_of_the_name_is_waited_for(world: World, labels: dict[str, str]) -> None:
    world.api.add("jobs", foreign_job(labels, kind="AnomalyExperiment", name="screws", uid="of-an-earlier-one"))
    world.apply(seconds=10.0)
    assert ("POST", f"jobs/{JOB}") not in world.taken_writes()
    assert "Stalled" not in str(world.status())
    world.api.remove("jobs", JOB)
    world.wait(20.0)
    assert world.status()["phase"] == "Pending"


def test_a_changed_spec_is_not_recorded_with_the_result_of_another(world: World) -> None:
    world.apply(seconds=0.0)
    world.wait(0.033)  # the Job is there, its status is not

    def meanwhile() -> None:
        world.run_pods(Reason.COMPLETE, seconds=0.0)
        world.api.change(EXPERIMENTS, "screws", {"spec": {"output": {"s3": {"uri": "s3://elsewhere"}}}})

    assert world.status() == {}
    first = world.api.objects["jobs", JOB]["metadata"]["uid"]
    world.restart(meanwhile, seconds=10.0)
    assert world.status()["phase"] == "Pending"
    assert world.api.objects["jobs", JOB]["metadata"]["uid"] != first


def test_somebody_who_writes_first_is_no_failure(world: World) -> None:
    world.apply()
    world.api.faults.append(Fault.OVERTAKEN)
    world.run_pods(seconds=10.0)
    assert world.status()["phase"] == "Running"
    [failed] = world.logged("reconcile failed")
    assert (failed["log_level"], failed["error"]) == ("info", "Conflict")
    assert failed.get("exc_info") is None


def test_an_inference_starts_as_soon_as_its_experiment_is_complete(world: World) -> None:
    world.apply(with_spec(INFERENCE, runPolicy={"preflight": "Never"}))
    which = {"name": "screws-today", "plural": INFERENCES}
    assert world.condition("Reconciling", **which)["reason"] == "ExperimentNotFound"
    world.apply()
    assert world.condition("Reconciling", **which)["reason"] == "WaitingForExperiment"
    world.run_pods(Reason.COMPLETE)
    assert world.status(**which)["jobName"] == "screws-today-inference"


def test_a_deleted_run_is_forgotten(world: World) -> None:
    world.apply()
    board, job = world.operator.replica.board, world.api.objects["jobs", JOB]["metadata"]["uid"]
    world.loop.call_soon(board.put, KEY, job, progress_of(world))
    world.wait(3.0)
    assert board.latest(KEY, job) is not None
    world.taken_writes()
    world.api.remove(EXPERIMENTS, "screws")
    world.api.collect_garbage()
    world.wait(700.0)
    assert world.taken_writes() == []
    assert board.latest(KEY, job) is None


def test_a_run_that_is_being_deleted_is_left_alone(world: World) -> None:
    world.apply(deletionTimestamp="2026-01-02T03:04:05Z", seconds=10.0)
    assert world.taken_writes() == []


def test_pods_that_the_watch_did_not_tell_of_are_listed(world: World) -> None:
    world.apply()
    world.operator.deaf.add("pods")
    world.run_pods(Reason.DATA_INVALID)
    assert world.condition("Failed")["reason"] == "DataInvalid"


def refused_pods(about: str) -> Manifest:
    metadata = {"name": "why", "namespace": "vision"}
    event = {"reason": "FailedCreate", "message": "exceeded quota: pods", "lastTimestamp": "2026-01-02T03:05:00Z"}
    return {"metadata": metadata, "involvedObject": {"uid": about}} | event


def test_why_a_job_has_no_pod_is_looked_for_after_a_while(world: World) -> None:
    world.apply()
    world.api.add("core-events", refused_pods(world.api.objects["jobs", JOB]["metadata"]["uid"]))
    world.wait(2.0)
    assert world.condition("Reconciling")["reason"] == "Pending"
    world.wait(3.0)
    waiting = world.condition("Reconciling")
    assert (waiting["reason"], waiting["message"]) == ("PodsRefused", "exceeded quota: pods")


def test_jobs_and_pods_of_all_steps_go_as_the_policy_says(world: World) -> None:
    policy = {"preflight": "Always", "ttlSecondsAfterFinished": 60, "retainPods": "onFailure"}
    world.apply(with_spec(EXPERIMENT, runPolicy=policy))
    for _ in ("check", "train"):
        world.run_pods()
        world.run_pods(Reason.COMPLETE)
    assert world.status()["phase"] == "Complete"
    jobs = {job["metadata"]["name"]: job["spec"]["ttlSecondsAfterFinished"] for job in world.api.all("jobs")}
    assert jobs == {JOB: 60, f"{JOB}-check": 60}
    assert list(world.api.all("pods")) == []


def progress_of(world: World) -> ProgressUpdate:
    uid = world.api.objects[EXPERIMENTS, "screws"]["metadata"]["uid"]
    identity = RunIdentity(kind=KEY.kind, namespace="vision", name="screws", uid=uid)
    return ProgressUpdate(run=identity, stage=Stage.TRAIN, progress=Progress(percent=42))


def test_progress_that_a_pod_pushed_is_in_the_status(world: World) -> None:
    world.apply()
    world.run_pods()
    job = world.api.objects["jobs", JOB]
    for uid in ("of-an-earlier-job", job["metadata"]["uid"]):
        world.loop.call_soon(world.operator.replica.board.put, KEY, uid, progress_of(world))
        world.wait(3.0)
    assert (world.status()["stage"], world.status()["progress"]["percent"]) == ("train", 42)
    assert world.status()["display"] == {"progress": "train 42%"}
    world.run_pods(Reason.COMPLETE)
    assert world.operator.replica.board.latest(KEY, job["metadata"]["uid"]) is None, "it is over"


def test_reconciles_are_counted_and_timed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def sample(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"anomaly_operator_reconcile_{name}", labels) or 0.0

    controller = world.operator.replica.controller
    began = controller.idle_since
    assert began is not None
    before = sample("seconds_count", kind="AnomalyExperiment"), sample("errors_total", error="KeyError")
    world.apply()
    assert sample("seconds_count", kind="AnomalyExperiment") > before[0]
    assert controller.idle_since is not None
    assert began < controller.idle_since <= world.api.moment()
    assert sample("errors_total", error="KeyError") == before[1]
    monkeypatch.setattr(reconciler, "plan", broken)
    world.restart(seconds=0.4)
    assert sample("errors_total", error="KeyError") == before[1] + 1


def test_another_installation_is_told_of_once(world: World) -> None:
    world.apply()
    for number, installation in enumerate(("elsewhere", "elsewhere", "third")):
        annotations = {names.INSTALLATION_ANNOTATION: installation, "number": str(number)}
        world.api.change("jobs", JOB, {"metadata": {"annotations": annotations}})
        world.wait(1.0)
    told = world.logged("another operator watches the same namespaces")
    assert [entry["other"] for entry in told] == ["elsewhere", "third"]
    assert all("watchNamespaces" in entry["advice"] for entry in told)
    assert {entry["run"] for entry in told} == {"AnomalyExperiment vision/screws"}


# What the owner gets to know of failures that repeat themselves ------------------------------------------------------


def broken(*_: object) -> Any:
    raise KeyError("the-password")


def test_a_defect_reaches_the_status_and_heals_with_another_release(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as release:
        release.setattr(reconciler, "plan", broken)
        world.apply(seconds=7.0)
        assert world.status() == {}, "some tries may fail"
        tries = [(entry["error"], entry["retry_s"]) for entry in world.logged("reconcile failed")]
        assert tries == [("KeyError", 0.5 * 2**number) for number in range(4)]
        first = world.logged("reconcile failed")[0]
        assert (first["log_level"], first["run"]) == ("error", "AnomalyExperiment vision/screws")
        assert first["message"] == "'the-password'"
        assert all(isinstance(entry["exc_info"], KeyError) for entry in world.logged("reconcile failed"))
        world.wait(1.0)
        stalled = world.condition("Stalled")
        assert (stalled["status"], stalled["reason"], stalled["observedGeneration"]) == ("True", "InternalError", 1)
        assert stalled["message"].startswith("a defect of the operator, which tries again: KeyError at reconciler.py:")
        assert "password" not in str(world.api.objects)
        assert (world.status()["phase"], world.status()["observedGeneration"]) == ("Pending", 1)
        assert world.status()["display"] == {"progress": "InternalError"}
        assert world.events() == [("Warning", "InternalError")]
        world.taken_writes()
        world.wait(1200.0)
        assert world.taken_writes() == [], "it is told once"
    world.restart()
    assert world.status()["phase"] == "Pending"
    assert world.condition("Reconciling")["status"] == "True"
    healed = world.condition("Stalled")
    assert (healed["status"], healed["reason"]) == ("False", "Pending")
    assert "display" not in world.status()


def test_a_defect_that_goes_away_by_itself_is_not_told_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.apply()
    for _ in range(3):
        with monkeypatch.context() as release:
            release.setattr(reconciler, "plan", broken)
            world.api.change("jobs", JOB, {"metadata": {"annotations": {"at": str(world.loop.time())}}})
            world.wait(1.2)  # two tries
        world.wait(60.0)
    assert world.events() == []
    assert [entry["retry_s"] for entry in world.logged("reconcile failed")] == [0.5, 1.0] * 3


def test_a_defect_between_which_something_else_is_waited_for_is_not_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.apply()
    ends = iter([*[KeyError] * 4, RequeueRequested, *[KeyError] * 4])

    def end(*arguments: Any) -> Any:
        if (kind := next(ends, None)) is None:
            return plan(*arguments)
        raise kind

    monkeypatch.setattr(reconciler, "plan", end)
    world.restart(seconds=250.0)
    assert len(world.logged("reconcile failed")) == 8
    assert world.events() == []


def test_a_run_that_is_deleted_while_it_fails_is_told_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.apply()
    tries: list[float] = []

    def end(*_: object) -> Any:
        tries.append(world.loop.time())
        if len(tries) == failing.TOLD_AFTER:
            world.operator.cache.remove_run(run_view("AnomalyExperiment", world.api.objects[EXPERIMENTS, "screws"]))
        raise KeyError

    monkeypatch.setattr(reconciler, "plan", end)
    world.restart(seconds=20.0)
    assert (len(tries), world.operator.alive, world.events()) == (failing.TOLD_AFTER, True, [])


def test_a_defect_does_not_resume_a_suspended_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.apply(with_spec(EXPERIMENT, runPolicy={"suspend": True}))
    monkeypatch.setattr(reconciler, "plan", broken)
    world.restart(seconds=20.0)
    assert (world.status()["phase"], world.condition("Suspended")["status"]) == ("Suspended", "True")
    assert world.condition("Suspended")["message"] == "runPolicy.suspend is true"
    assert world.condition("Stalled")["reason"] == "InternalError"


def test_a_defect_leaves_the_record_of_a_run_as_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.apply()
    world.run_pods(Reason.COMPLETE)
    before = world.status()
    monkeypatch.setattr(reconciler, "plan", broken)
    world.restart(seconds=60.0)
    assert world.status() == before


def test_a_request_that_is_always_refused_is_told_in_the_servers_words(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.apply()
    world.run_pods()
    monkeypatch.setattr(world.api, "_write", refusing_jobs(world.api._write))
    world.api.change(EXPERIMENTS, "screws", {"spec": {"runPolicy": {"backoffLimit": 1}}})
    world.wait(20.0)
    expected = "the API server refused or failed a request of the operator, which tries again: 403: not yours"
    assert (world.condition("Stalled")["reason"], world.condition("Stalled")["message"]) == ("InternalError", expected)
    assert world.status()["phase"] == "Running"
    assert world.condition("Reconciling")["status"] == "False"


def refusing_jobs(write: Callable[..., Manifest]) -> Callable[..., Manifest]:
    def refuse(method: str, plural: str, *rest: Any) -> Manifest:
        if plural == "jobs":
            raise Refused(403, "not yours")
        return write(method, plural, *rest)

    return refuse


def test_an_outage_is_not_told_of_runs(world: World) -> None:
    world.api.refusal = Refused(503, "etcd has no leader", {"Retry-After": "1"})
    world.apply(seconds=400.0)
    assert world.taken_writes() == []
    world.api.refusal = Refused(500, "failed calling webhook")
    world.wait(1200.0)
    assert "failed calling webhook" in world.condition("Stalled")["message"]


def test_a_status_of_a_later_release_is_left_alone_and_told(world: World) -> None:
    world.apply(seconds=0.0)
    world.api.change(EXPERIMENTS, "screws", {"status": {"phase": "Melted"}})
    world.wait(30.0)
    assert world.status() == {"phase": "Melted"}
    assert world.events() == [("Warning", "InternalError")]
    [event] = world.api.all("events")
    assert event["note"].startswith("the recorded status cannot be read by this release of the operator")
    assert not list(world.api.all("jobs"))


def test_that_a_failure_cannot_be_told_is_logged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "plan", broken)
    monkeypatch.setattr(controller, "failing_status", broken)
    world.apply(seconds=20.0)
    assert len(world.logged("reconcile failed")) == failing.TOLD_AFTER + 1
    untold = world.logged("failure not told")
    assert [(entry["run"], entry["message"]) for entry in untold] == [
        ("AnomalyExperiment vision/screws", "'the-password'")
    ] * 2


@pytest.mark.parametrize("part", ["status", "spec"])
def test_an_experiment_that_cannot_be_read_is_named_by_those_that_wait_for_it(world: World, part: str) -> None:
    world.apply()
    world.run_pods(Reason.COMPLETE)
    good = world.api.objects[EXPERIMENTS, "screws"][part]
    bad = {"status": {"phase": "Melted"}, "spec": {"model": {"name": "of-a-later-release"}}}[part]
    world.api.change(EXPERIMENTS, "screws", {part: bad})
    world.apply(INFERENCE)
    which = {"name": "screws-today", "plural": INFERENCES}
    stalled = world.condition("Stalled", **which)
    assert (world.status(**which)["phase"], stalled["reason"]) == ("Waiting", "WaitingForExperiment")
    field = {"status": "status.phase", "spec": "spec.model.name"}[part]
    told = f"the {part} of AnomalyExperiment screws cannot be read by this release of the operator: {field}: Input"
    assert stalled["message"].startswith(told)
    world.api.change(EXPERIMENTS, "screws", {part: good})
    world.wait(1.0)
    assert world.status(**which)["jobName"] == "screws-today-inference-check"


def test_an_experiment_that_cannot_be_read_does_not_disturb_a_record(world: World) -> None:
    world.apply()
    world.run_pods(Reason.COMPLETE)
    world.apply(with_spec(INFERENCE, runPolicy={"preflight": "Never"}))
    world.run_pods(Reason.COMPLETE)
    before = world.status("screws-today", INFERENCES)
    assert before["phase"] == "Complete"
    world.api.change(EXPERIMENTS, "screws", {"status": {"phase": "Melted"}})
    world.wait(30.0)
    assert world.status("screws-today", INFERENCES) == before
    assert {entry["run"] for entry in world.logged("reconcile failed")} == {"AnomalyExperiment vision/screws"}


def test_what_was_told_of_a_trial_is_taken_back(world: World) -> None:
    owner = {"kind": "AnomalyExperiment", "name": "sweep", "uid": "gone", "controller": True}
    world.api.refusal = Refused(403, "exceeded quota: jobs")
    world.apply(ownerReferences=[owner])
    assert world.condition("Stalled")["status"] == "True"
    world.api.refusal = None
    world.wait(40.0)
    assert world.condition("Stalled")["status"] == "False"
