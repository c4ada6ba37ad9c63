"""Runs of two steps and runs again, on a real API server: whatever happens between any two writes, nothing is lost."""

import asyncio
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes.client import BatchV1Api, CoreV1Api, CustomObjectsApi

from anomaly_api.reasons import Reason
from anomaly_api.run import RunSummary
from anomaly_api.status import Artifacts, Listing, MetricValues, Stage
from anomaly_operator.resources import EXPERIMENTS
from support.fake_kubelet import active_pod, ended, experiment, inference, mark_ended, mark_running
from support.kube import KubectlError, Manifest, Namespace, api_client, condition, condition_is_true, kubectl
from support.mortal_operator import MortalClient, When, operate
from support.process import OperatorProcess

pytestmark = pytest.mark.cluster

READY = "200 to learn from, 600 to test on: 60 good, 540 of 9 kinds of defect, no masks"
CHECKED = RunSummary(
    reason=Reason.COMPLETE, stage=Stage.CHECK, message=READY, listing=Listing(file="listing.json", sha256="0" * 64)
)
TYPO = RunSummary(reason=Reason.INVALID_CONFIG, stage=Stage.CHECK, message="model.padim.layers: no layer blocks.77")


def trained(run: int = 1) -> RunSummary:
    root = "s3://results/somewhere" if run == 1 else f"s3://results/somewhere-{run}"
    return RunSummary(
        reason=Reason.COMPLETE,
        stage=Stage.DONE,
        metrics=MetricValues(image={"AUROC": 0.9 + run / 100}),
        artifacts=Artifacts(root=root),
    )


NO_NODE = {"kubernetes.io/os": "none"}
"""Keeps pods of both steps pending: the check takes over what says which images a node can run."""
CHECK, TRAIN = "screws-experiment-check", "screws-experiment"


def checked_experiment(name: str = "screws", **policy: Any) -> Manifest:
    scheduling = {"gpus": {"count": 1}, "nodeSelector": NO_NODE | {"gpu": "a100"}, "queueName": "team-a"}
    return experiment(name, scheduling=scheduling, runPolicy=policy)


def phase(expected: str, run: int = 1) -> Any:
    return lambda status: status.get("phase") == expected and status.get("run") == run


def test_a_check_comes_before_the_gpu_and_the_queue(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(checked_experiment(ttlSecondsAfterFinished=0, activeDeadlineSeconds=3600))
    pod = active_pod(namespace, CHECK)
    check = namespace.get("job", CHECK)
    spec = check["spec"]["template"]["spec"]
    assert "nvidia.com/gpu" not in str(spec["containers"][0]["resources"])
    assert "queue-name" not in str(check["metadata"]["labels"])
    assert spec["nodeSelector"] == NO_NODE
    assert [job["metadata"]["name"] for job in namespace.list("jobs")] == [CHECK]
    mark_ended(namespace, pod, CHECKED)
    ready = namespace.wait_for("aexp", "screws", "checked", lambda status: condition_is_true(status, "DataReady"))
    assert condition(ready, "DataReady")["message"] == READY
    assert ready["phase"] == "Pending"
    namespace.kubectl("wait", "--for=create", f"job/{TRAIN}", "--timeout=30s")
    work = namespace.get("job", TRAIN)
    assert work["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert work["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert work["spec"]["suspend"], "Kueue decides when it begins"
    assert work["spec"]["activeDeadlineSeconds"] < 3600, "the deadline is that of all steps"
    namespace.patch("job", TRAIN, {"spec": {"suspend": False}})
    mark_ended(namespace, active_pod(namespace, TRAIN), trained())
    done = namespace.wait_for("aexp", "screws", "complete", phase("Complete"))
    assert done["attempts"] == 2
    assert [step["name"] for step in done["steps"]] == ["check"]
    assert condition_is_true(done, "DataReady")
    for job in (CHECK, TRAIN):
        namespace.kubectl("wait", "--for=delete", f"job/{job}", "--timeout=30s")


def test_a_typo_fails_the_check_and_is_repaired_by_another_apply(
    namespace: Namespace, operator: OperatorProcess
) -> None:
    namespace.apply(checked_experiment())
    mark_ended(namespace, active_pod(namespace, CHECK), TYPO, 10)
    failed = namespace.wait_for("aexp", "screws", "failed", phase("Failed"))
    assert condition(failed, "Failed")["reason"] == condition(failed, "DataReady")["reason"] == "InvalidConfig"
    assert condition(failed, "DataReady")["status"] == "False"
    assert [job["metadata"]["name"] for job in namespace.list("jobs")] == [CHECK], "no GPU was ever asked for"
    repaired = checked_experiment()
    repaired["spec"]["model"] = {"name": "padim", "padim": {"layers": ["blocks.2"]}}
    namespace.apply(repaired)
    mark_ended(namespace, active_pod(namespace, f"{TRAIN}-2-check"), CHECKED)
    namespace.kubectl("wait", "--for=create", f"job/{TRAIN}-2", "--timeout=30s")
    namespace.patch("job", f"{TRAIN}-2", {"spec": {"suspend": False}})
    mark_ended(namespace, active_pod(namespace, f"{TRAIN}-2"), trained(2))
    done = namespace.wait_for("aexp", "screws", "complete", phase("Complete", run=2))
    [before] = done["history"]
    assert (before["run"], before["phase"], before["reason"]) == (1, "Failed", "InvalidConfig")
    assert "blocks.77" in before["message"]


def test_preflight_never_and_always(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(checked_experiment(preflight="Never"))
    plain = experiment("plain", runPolicy={"preflight": "Always"})
    plain["spec"]["scheduling"]["nodeSelector"] = NO_NODE
    namespace.apply(plain)
    namespace.kubectl("wait", "--for=create", f"job/{TRAIN}", "--timeout=30s")
    active_pod(namespace, "plain-experiment-check")
    assert {job["metadata"]["name"] for job in namespace.list("jobs")} == {TRAIN, "plain-experiment-check"}


@pytest.mark.own_operator
def test_suspended_between_the_steps(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(checked_experiment())
    pod = active_pod(namespace, CHECK)
    operator.kill()
    operator.forget_lease()
    mark_ended(namespace, pod, CHECKED)
    namespace.kubectl("wait", "--for=condition=Complete", f"job/{CHECK}", "--timeout=30s")
    namespace.patch("aexp", "screws", {"spec": {"runPolicy": {"suspend": True}}})
    operator.start()
    held = namespace.wait_for("aexp", "screws", "suspended", phase("Suspended"))
    assert condition_is_true(held, "DataReady")
    assert namespace.get("job", TRAIN)["spec"]["suspend"] is True
    assert namespace.list("pods", f"batch.kubernetes.io/job-name={TRAIN}") == []


def test_jobs_and_pods_deleted_by_somebody(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(checked_experiment())
    active_pod(namespace, CHECK)
    namespace.wait_for("aexp", "screws", "started", lambda status: "startTime" in status)
    namespace.kubectl("delete", "job", CHECK)
    # The status says so for a moment only; the Event stays.
    operator.wait_until(lambda: "JobDeleted" in {event["reason"] for event in namespace.list("events")}, "told")
    mark_ended(namespace, active_pod(namespace, CHECK), CHECKED)
    namespace.kubectl("wait", "--for=create", f"job/{TRAIN}", "--timeout=30s")
    namespace.patch("job", TRAIN, {"spec": {"suspend": False}})
    pod = active_pod(namespace, TRAIN)
    # What the check found is in the status: its Job and pods are needed no more.
    namespace.kubectl("delete", "job", CHECK)
    namespace.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
    second = active_pod(namespace, TRAIN)
    assert second != pod
    mark_ended(namespace, second, trained())
    done = namespace.wait_for("aexp", "screws", "complete", phase("Complete"))
    assert [job["metadata"]["name"] for job in namespace.list("jobs")] == [TRAIN]
    assert condition_is_true(done, "DataReady")


def test_retries_are_counted_by_step(namespace: Namespace, operator: OperatorProcess) -> None:
    down = RunSummary(reason=Reason.STORAGE_UNAVAILABLE, stage=Stage.FETCH, message="connection refused")
    manifest = checked_experiment(backoffLimit=1)
    del manifest["spec"]["scheduling"]["queueName"]
    namespace.apply(manifest)
    mark_ended(namespace, active_pod(namespace, CHECK), down, 20)
    mark_ended(namespace, active_pod(namespace, CHECK, 60), CHECKED)
    mark_ended(namespace, active_pod(namespace, TRAIN), down, 20)
    mark_ended(namespace, active_pod(namespace, TRAIN, 60), trained())
    done = namespace.wait_for("aexp", "screws", "complete", phase("Complete"))
    assert done["attempts"] == 4
    assert done["steps"][0]["attempts"] == 2


def test_a_job_that_is_refused_only_after_the_check_is_repaired_while_suspended(
    namespace: Namespace, operator: OperatorProcess
) -> None:
    typo = checked_experiment()
    typo["spec"]["scheduling"]["affinity"] = {"nodeAfinity": {}}
    namespace.apply(typo)
    mark_ended(namespace, active_pod(namespace, CHECK), CHECKED)
    refused = namespace.wait_for(
        "aexp", "screws", "refused", lambda status: condition(status, "Stalled").get("reason") == "JobRefused"
    )
    assert 'unknown field "spec.template.spec.affinity.nodeAfinity"' in condition(refused, "Stalled")["message"]
    assert condition_is_true(refused, "DataReady")
    with pytest.raises(KubectlError, match=r"spec.scheduling cannot change while the run is at work: wait .* suspend"):
        namespace.apply(checked_experiment())
    namespace.patch("aexp", "screws", {"spec": {"runPolicy": {"suspend": True}}})
    held = namespace.wait_for("aexp", "screws", "suspended", phase("Suspended"))
    assert "its Job is refused" in condition(held, "Suspended")["message"]
    namespace.patch("aexp", "screws", {"spec": {"scheduling": {"affinity": None}, "runPolicy": {"suspend": False}}})
    mark_ended(namespace, active_pod(namespace, f"{TRAIN}-2-check"), CHECKED)
    namespace.kubectl("wait", "--for=create", f"job/{TRAIN}-2", "--timeout=30s")


def finish(namespace: Namespace, job: str, run: int) -> Manifest:
    mark_ended(namespace, active_pod(namespace, job), trained(run))
    return namespace.wait_for("aexp", "screws", f"complete, run {run}", phase("Complete", run))


@pytest.mark.own_operator
def test_a_complete_run_runs_again_when_its_spec_changes(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(experiment("screws"))
    finish(namespace, TRAIN, 1)
    # What does not change a result starts nothing.
    namespace.patch("aexp", "screws", {"spec": {"runPolicy": {"backoffLimit": 5, "ttlSecondsAfterFinished": 3600}}})
    namespace.kubectl("label", "aexp", "screws", "team=a")
    namespace.wait_for("aexp", "screws", "seen", lambda status: status["observedGeneration"] == 2, is_over=True)
    assert [job["metadata"]["name"] for job in namespace.list("jobs")] == [TRAIN]
    namespace.patch("aexp", "screws", {"spec": {"training": {"trainBatchSize": 7}}})
    second = finish(namespace, f"{TRAIN}-2", 2)
    config = namespace.get("job", f"{TRAIN}-2")["spec"]["template"]["metadata"]["annotations"]
    assert '"number":2' in config["anomalyops.io/run-config"]
    namespace.patch("aexp", "screws", {"spec": {"runPolicy": {"rerun": "monday"}}})
    third = finish(namespace, f"{TRAIN}-3", 3)
    assert second["history"] == third["history"][1:]
    assert [(past["run"], past["artifacts"]["root"]) for past in third["history"]] == [
        (2, "s3://results/somewhere-2"),
        (1, "s3://results/somewhere"),
    ]
    operator.kill()
    operator.forget_lease()
    operator.start()
    operator.wait_until(lambda: operator.leads, "leading")
    time.sleep(3)
    assert operator.writes() == 0, "a restart runs nothing again"


def test_the_history_keeps_five(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(experiment("screws"))
    finish(namespace, TRAIN, 1)
    for run in range(2, 8):
        namespace.patch("aexp", "screws", {"spec": {"runPolicy": {"rerun": f"number {run}"}}})
        last = finish(namespace, f"{TRAIN}-{run}", run)
    assert [past["run"] for past in last["history"]] == [6, 5, 4, 3, 2]


def test_another_text_while_at_work_runs_again_afterwards(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(experiment("screws"))
    mark_running(namespace, active_pod(namespace, TRAIN))
    namespace.wait_for("aexp", "screws", "running", phase("Running"))
    namespace.patch("aexp", "screws", {"spec": {"runPolicy": {"rerun": "again"}}})
    with pytest.raises(KubectlError, match=r"spec.training cannot change while the run is at work: wait .* suspend"):
        namespace.patch("aexp", "screws", {"spec": {"training": {"trainBatchSize": 8}}})
    mark_ended(namespace, active_pod(namespace, TRAIN), trained())
    done = finish(namespace, f"{TRAIN}-2", 2)
    assert done["history"][0]["phase"] == "Complete"


def test_a_suspended_run_whose_spec_changes_starts_over(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(experiment("screws"))
    mark_running(namespace, active_pod(namespace, TRAIN))
    namespace.wait_for("aexp", "screws", "running", phase("Running"))
    namespace.patch("aexp", "screws", {"spec": {"runPolicy": {"suspend": True}}})
    namespace.wait_for("aexp", "screws", "suspended", phase("Suspended"))
    namespace.patch("aexp", "screws", {"spec": {"training": {"trainBatchSize": 8}}})
    held = namespace.wait_for("aexp", "screws", "suspended anew", phase("Suspended", run=2))
    assert held["history"][0]["reason"] == "Superseded"
    assert "startTime" not in held
    namespace.kubectl("wait", "--for=delete", f"job/{TRAIN}", "--timeout=60s")
    namespace.patch("aexp", "screws", {"spec": {"runPolicy": {"suspend": False}}})
    finish(namespace, f"{TRAIN}-2", 2)


def test_an_inference_keeps_the_run_that_it_began_with(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(experiment("screws"))
    first = finish(namespace, TRAIN, 1)
    namespace.apply(inference("today"))
    job = "today-inference"
    mark_running(namespace, active_pod(namespace, job))
    begun = namespace.wait_for("ainf", "today", "running", phase("Running"))
    assert begun["trainedBy"]["run"] == 1
    namespace.patch("aexp", "screws", {"spec": {"runPolicy": {"rerun": "again"}}})
    finish(namespace, f"{TRAIN}-2", 2)
    # Its Job is lost: the next one uses the same model.
    namespace.kubectl("delete", "job", job)
    pod = active_pod(namespace, job)
    config = namespace.get("job", job)["spec"]["template"]["metadata"]["annotations"]["anomalyops.io/run-config"]
    assert f'"uri":"{first["artifacts"]["root"]}"' in config
    mark_ended(namespace, pod, trained())
    done = namespace.wait_for("ainf", "today", "told", lambda status: newer_run(status) == 2, is_over=True)
    assert done["phase"] == "Complete"
    # A new inference uses the last complete run, also while a further one is at work.
    namespace.patch("aexp", "screws", {"spec": {"runPolicy": {"rerun": "once more"}}})
    namespace.wait_for("aexp", "screws", "at work", lambda status: status.get("run") == 3, is_over=True)
    namespace.apply(inference("tomorrow"))
    active_pod(namespace, "tomorrow-inference")
    assert (
        namespace.wait_for("ainf", "tomorrow", "begun", lambda status: "trainedBy" in status)["trainedBy"]["run"] == 2
    )
    # Asked again, the first one uses it too.
    namespace.patch("ainf", "today", {"spec": {"runPolicy": {"rerun": "with the newer model"}}})
    again = namespace.wait_for("ainf", "today", "begun again", begun_again, is_over=True)
    assert again["trainedBy"]["run"] == 2


def begun_again(status: Manifest) -> bool:
    return status.get("run") == 2 and "trainedBy" in status


def newer_run(status: Manifest) -> int | None:
    found: int | None = status.get("trainedBy", {}).get("newerRun")
    return found


@pytest.mark.own_operator
def test_an_old_status_goes_on_as_it_was(namespace: Namespace, operator: OperatorProcess) -> None:
    """Statuses of the release before this one: without run, digest and steps."""
    operator.stop()
    namespace.apply(experiment("screws"), checked_experiment("working"))
    old = {"observedGeneration": 1, "startTime": "2026-01-02T03:04:05Z", "attempts": 1}
    end = {"type": "Failed", "status": "True", "reason": "DataInvalid", "message": "", "observedGeneration": 1}
    times = {"lastTransitionTime": "2026-01-02T03:10:00Z"}
    over = old | {"phase": "Failed", "completionTime": "2026-01-02T03:10:00Z", "conditions": [end | times]}
    write_status(namespace, "screws", over | {"jobName": TRAIN})
    write_status(namespace, "working", old | {"phase": "Running", "jobName": "working-experiment"})
    operator.forget_lease()
    operator.start()
    kept = namespace.wait_for("aexp", "screws", "kept", lambda status: "specDigest" in status, is_over=True)
    assert kept == over | {"jobName": TRAIN, "run": 1, "specDigest": kept["specDigest"], "warnings": []}
    # A run at work goes on with its one Job, although a new one would be checked first.
    namespace.wait_for("aexp", "working", "told", lambda status: "specDigest" in status)
    assert [job["metadata"]["name"] for job in namespace.list("jobs")] == ["working-experiment"]
    # From now on it is like any other.
    namespace.patch("aexp", "screws", {"spec": {"training": {"trainBatchSize": 7}}})
    finish(namespace, f"{TRAIN}-2", 2)


def write_status(namespace: Namespace, name: str, status: Manifest) -> None:
    api = CustomObjectsApi(api_client())
    group, version, plural = EXPERIMENTS.group, EXPERIMENTS.version, EXPERIMENTS.plural
    api.patch_namespaced_custom_object_status(group, version, namespace.name, plural, name, {"status": status})


class Life:
    """Two runs of two steps each, the second after a change of the spec, in a namespace of its own."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        api = api_client()
        self._runs, self._pods, self._jobs = CustomObjectsApi(api), CoreV1Api(api), BatchV1Api(api)
        self._of = (EXPERIMENTS.group, EXPERIMENTS.version, namespace, EXPERIMENTS.plural)

    def begin(self) -> None:
        manifest = experiment("screws", scheduling={"gpus": {"count": 1}, "nodeSelector": NO_NODE})
        self._runs.create_namespaced_custom_object(*self._of, manifest)

    def status(self) -> Manifest:
        found: Manifest = self._runs.get_namespaced_custom_object(*self._of, "screws").get("status", {})
        return found

    def job_names(self) -> list[str]:
        return sorted(job.metadata.name for job in self._jobs.list_namespaced_job(self.namespace).items)

    def pod_count(self) -> int:
        return len(self._pods.list_namespaced_pod(self.namespace).items)

    def step(self) -> bool:
        """Play the kubelet and the user; return whether the second run is over."""
        for pod in self._pods.list_namespaced_pod(self.namespace).items:
            if pod.status.phase == "Pending":
                summary = CHECKED if "-check-" in pod.metadata.name else trained(2 if "-2-" in pod.metadata.name else 1)
                self._pods.patch_namespaced_pod_status(pod.metadata.name, self.namespace, ended(summary))
        status = self.status()
        if status.get("phase") == "Complete" and status.get("run") == 1:
            change = {"spec": {"training": {"trainBatchSize": 7}}}
            self._runs.patch_namespaced_custom_object(*self._of, "screws", change)
        return bool(status.get("phase") == "Complete" and status.get("run") == 2)


async def live(life: Life, die_at: int | None, when: When) -> int:
    """Live the life under an operator that dies once, and return the writes of all operators."""
    await asyncio.to_thread(life.begin)
    client = MortalClient(die_at, when)
    operator, earlier = asyncio.create_task(operate(client, life.namespace)), 0
    deadline = time.monotonic() + 300
    while not await asyncio.to_thread(life.step):
        assert time.monotonic() < deadline, f"it hangs: {await asyncio.to_thread(life.status)}"
        if operator.done():
            await operator
            earlier, client = client.writes, MortalClient()
            operator = asyncio.create_task(operate(client, life.namespace))
        await asyncio.sleep(0.3)
    await asyncio.sleep(1.5)  # for what an operator might still do
    operator.cancel()
    await asyncio.gather(operator, return_exceptions=True)
    return earlier + client.writes


@pytest.fixture
def namespaces(cluster: str) -> Iterator[list[str]]:
    """Names of namespaces that the test made; they are deleted afterwards."""
    made: list[str] = []
    yield made
    if made:
        kubectl("delete", "namespace", *made, "--wait=false")


def test_killed_at_every_point_between_two_writes(namespaces: list[str]) -> None:
    def new_life() -> Life:
        name = f"walk-{uuid.uuid4().hex[:8]}"
        kubectl("create", "namespace", name)
        namespaces.append(name)
        return Life(name)

    async def walk(deaths: dict[tuple[int, When], Life]) -> None:
        await asyncio.gather(*(live(each, *death) for death, each in deaths.items()))

    first = new_life()
    writes = asyncio.run(live(first, None, "after"))
    undisturbed = comparable(first.status())
    jobs = [CHECK, TRAIN, f"{TRAIN}-2", f"{TRAIN}-2-check"]
    assert first.job_names() == sorted(jobs)
    assert undisturbed["history"][0]["phase"] == "Complete"

    deaths: dict[tuple[int, When], Life] = {
        (number, when): new_life() for number in range(1, writes + 1) for when in ("before", "after")
    }
    asyncio.run(walk(deaths))
    for death, each in deaths.items():
        assert each.job_names() == sorted(jobs), f"died {death}"
        assert each.pod_count() == len(jobs), f"a step was done twice: died {death}"
        assert comparable(each.status()) == undisturbed, f"died {death}"


def comparable(status: Manifest) -> Manifest:
    """Return the status without times."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: strip(inner) for name, inner in value.items() if not name.endswith("Time")}
        return [strip(inner) for inner in value] if isinstance(value, list) else value

    stripped: Manifest = strip(status)
    return stripped
