"""One run through everything that can happen to it, on a real API server with the real Job controller."""

import json
import subprocess
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.inference import InferenceSpec
from anomaly_api.reasons import Reason
from anomaly_api.run import ProgressUpdate, RunConfig, RunIdentity, RunSummary
from anomaly_api.status import Artifacts, MetricValues, Progress, Stage
from support.fake_kubelet import (
    active_pod,
    experiment,
    inference,
    mark_ended,
    mark_ended_now,
    mark_outlived,
    mark_running,
    mark_waiting,
)
from support.kube import KubectlError, Manifest, Namespace, condition, condition_is_true
from support.process import OperatorProcess
from support.progress import progress_token, push

pytestmark = pytest.mark.cluster

SUMMARY = RunSummary(
    reason=Reason.COMPLETE,
    stage=Stage.DONE,
    metrics=MetricValues(image={"AUROC": 0.98765432101234, "F1Score": 0.95}),
    artifacts=Artifacts(root="s3://results/somewhere/screws/u"),
)
JOB = "screws-experiment"
CONFIG = "anomalyops.io/run-config"


StatusCheck = Callable[[Manifest], bool]


def phase(expected: str) -> StatusCheck:
    return lambda status: status.get("phase") == expected


def reason(expected: str, of_type: str = "Reconciling") -> StatusCheck:
    return lambda status: condition(status, of_type).get("reason") == expected and condition_is_true(status, of_type)


def config_of(job: Manifest) -> RunConfig:
    return RunConfig.model_validate_json(job["spec"]["template"]["metadata"]["annotations"][CONFIG])


def test_to_complete_and_beyond_the_life_of_its_job(namespace: Namespace, operator: OperatorProcess) -> None:
    policy = {"ttlSecondsAfterFinished": 0}
    namespace.apply(experiment("screws", runPolicy=policy))
    namespace.wait_for("aexp", "screws", "unschedulable", reason("Unschedulable"))
    job = namespace.get("job", JOB)
    assert "ttlSecondsAfterFinished" not in job["spec"]
    assert config_of(job).run.uid == namespace.get("aexp", "screws")["metadata"]["uid"]
    pod = active_pod(namespace, JOB)
    mark_running(namespace, pod)
    running = namespace.wait_for("aexp", "screws", "running", phase("Running"))
    assert running["startTime"]
    mark_ended(namespace, pod, SUMMARY)
    done = namespace.wait_for("aexp", "screws", "complete", phase("Complete"))
    assert done["metrics"]["image"]["AUROC"] == 0.98765432101234
    assert done["display"] == {"auroc": "0.9877", "f1": "0.9500", "progress": "done"}
    assert condition_is_true(done, "Complete")
    assert not condition_is_true(done, "Reconciling")
    namespace.kubectl("wait", "--for=condition=Complete", "aexp/screws", "--timeout=1s")
    namespace.kubectl("wait", "--for=delete", f"job/{JOB}", "--timeout=30s")
    time.sleep(1)
    assert namespace.status("aexp", "screws") == done
    assert namespace.list("jobs") == []
    events = {
        event["reason"]
        for event in namespace.list("events")
        if event.get("reportingComponent") == "anomalyops.io/operator"
    }
    assert events == {"Unschedulable", "Complete"}


class PodEnd(NamedTuple):
    termination_message: RunSummary | str
    exit_code: int
    container_reason: str = ""


EMPTY = RunSummary(reason=Reason.DATA_INVALID, stage=Stage.DATASET, message="train/good is empty")


@pytest.mark.parametrize(
    ("end", "expected", "said"),
    [
        (PodEnd(EMPTY, 11), "DataInvalid", "train/good is empty"),
        (PodEnd("", 137, "OOMKilled"), "OutOfMemory", "scheduling.resources.limits.memory"),
        (PodEnd("not a summary", 12), "StorageDenied", "not a summary"),
    ],
)
def test_final_failures_are_typed_and_not_retried(
    namespace: Namespace, operator: OperatorProcess, end: PodEnd, expected: str, said: str
) -> None:
    namespace.apply(experiment("screws"))
    mark_ended(namespace, active_pod(namespace, JOB), *end)
    failed = namespace.wait_for("aexp", "screws", "failed", phase("Failed"))
    assert condition(failed, "Failed")["reason"] == condition(failed, "Stalled")["reason"] == expected
    assert said in condition(failed, "Failed")["message"]
    assert failed["attempts"] == 1


def test_temporary_failures_are_retried(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(experiment("screws"))
    first = active_pod(namespace, JOB)
    down = RunSummary(reason=Reason.STORAGE_UNAVAILABLE, stage=Stage.FETCH, message="connection refused")
    mark_ended_now(namespace, first, down, 20)
    retrying = namespace.wait_for("aexp", "screws", "retrying", reason("Retrying"))
    assert "connection refused" in condition(retrying, "Reconciling")["message"]
    second = active_pod(namespace, JOB, seconds=60)
    mark_ended(namespace, second, SUMMARY)
    done = namespace.wait_for("aexp", "screws", "complete", phase("Complete"))
    assert done["attempts"] == 2


def test_garbage_instead_of_a_result_is_reported(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(experiment("screws"))
    mark_ended(namespace, active_pod(namespace, JOB), "}{")
    failed = namespace.wait_for("aexp", "screws", "failed", phase("Failed"))
    assert condition(failed, "Failed")["reason"] == "ResultLost"


def test_a_pod_deleted_in_its_last_second_loses_no_result(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(experiment("screws"))
    pod = active_pod(namespace, JOB)
    mark_running(namespace, pod)
    namespace.wait_for("aexp", "screws", "running", phase("Running"))
    namespace.kubectl("delete", "pod", pod, "--wait=false")
    mark_ended(namespace, pod, SUMMARY)
    namespace.kubectl("wait", "--for=delete", f"pod/{pod}", "--timeout=30s")
    done = namespace.wait_for("aexp", "screws", "ended", lambda status: status.get("phase") in ("Complete", "Failed"))
    assert condition_is_true(done, "Complete")
    assert done["metrics"]["image"] == {"AUROC": 0.98765432101234, "F1Score": 0.95}


def test_what_keeps_a_pod_from_starting_is_reported(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(experiment("screws"))
    pod = active_pod(namespace, JOB)
    # Wait for the scheduler's own report first; while the pod stays unschedulable, it does not write again.
    namespace.wait_for("aexp", "screws", "unschedulable", reason("Unschedulable"))
    scheduled = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}]
    namespace.kubectl(
        "patch",
        "pod",
        pod,
        "--subresource=status",
        "--type=strategic",
        "-p",
        json.dumps({"status": {"conditions": scheduled}}),
    )
    mark_waiting(namespace, pod, "ImagePullBackOff", 'Back-off pulling image "nowhere"')
    status = namespace.wait_for("aexp", "screws", "without image", reason("ImageUnavailable"))
    assert "nowhere" in condition(status, "Reconciling")["message"]
    mark_waiting(namespace, pod, "CreateContainerConfigError", 'secret "results" not found')
    namespace.wait_for("aexp", "screws", "without secret", reason("SecretNotFound"))


def test_a_quota_of_pods_is_told_and_waited_for(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    )
    namespace.apply(experiment("screws"))
    status = namespace.wait_for("aexp", "screws", "refused", reason("PodsRefused"))
    assert "exceeded quota: none" in condition(status, "Reconciling")["message"]
    assert "startTime" not in status
    namespace.patch("aexp", "screws", {"spec": {"training": {"trainBatchSize": 7}}})
    operator.wait_until(lambda: _batch_size(namespace) == 7, "made again with the corrected spec")
    namespace.kubectl("delete", "resourcequota", "none")
    mark_running(namespace, active_pod(namespace, JOB))
    running = namespace.wait_for("aexp", "screws", "running", phase("Running"))
    assert running["startTime"]


def test_a_container_that_outlives_the_runner_does_not_keep_the_run(
    namespace: Namespace, operator: OperatorProcess
) -> None:
    namespace.apply(experiment("screws"))
    first = active_pod(namespace, JOB)
    unavailable = RunSummary(reason=Reason.STORAGE_UNAVAILABLE, message="no S3", stage=Stage.FETCH)
    mark_outlived(namespace, first, unavailable, exit_code=20)
    operator.wait_until(lambda: active_pod(namespace, JOB) != first, "tried again")
    mark_outlived(namespace, active_pod(namespace, JOB), SUMMARY)
    done = namespace.wait_for("aexp", "screws", "complete", phase("Complete"))
    assert done["metrics"]["image"] == {"AUROC": 0.98765432101234, "F1Score": 0.95}
    operator.wait_until(lambda: namespace.list("jobs") == [], "ended with its Job")


def test_a_field_that_kubernetes_does_not_know_is_refused(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(experiment("screws", scheduling={"gpus": {"count": 0}, "affinity": {"nodeAffinity": {"nope": 1}}}))
    status = namespace.wait_for("aexp", "screws", "refused", reason("JobRefused", "Stalled"))
    assert 'unknown field "spec.template.spec.affinity.nodeAffinity.nope"' in condition(status, "Stalled")["message"]


def test_an_account_that_does_not_exist_is_named(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(experiment("screws", scheduling={"gpus": {"count": 0}, "serviceAccountName": "nobody"}))
    status = namespace.wait_for("aexp", "screws", "refused", reason("PodsRefused"))
    assert 'serviceaccount "nobody" not found' in condition(status, "Reconciling")["message"]


def test_a_gpu_count_that_no_node_has(namespace: Namespace, operator: OperatorProcess) -> None:
    policy = {"preflight": "Never"}
    namespace.apply(experiment("screws", scheduling={"gpus": {"count": 64}}, runPolicy=policy))
    status = namespace.wait_for("aexp", "screws", "unschedulable", reason("Unschedulable"))
    assert status["phase"] == "Pending"
    assert condition(status, "Reconciling")["message"]


def test_suspended_and_resumed(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(experiment("screws", runPolicy={"suspend": True}))
    held = namespace.wait_for("aexp", "screws", "suspended", phase("Suspended"))
    assert "startTime" not in held
    assert namespace.list("pods") == []
    namespace.patch("aexp", "screws", {"spec": {"training": {"trainBatchSize": 7}}})
    namespace.wait_for("aexp", "screws", "seen", lambda status: status["observedGeneration"] == 2)
    operator.wait_until(lambda: _batch_size(namespace) == 7, "made again with the new spec")
    namespace.patch("aexp", "screws", {"spec": {"runPolicy": {"suspend": False}}})
    pod = active_pod(namespace, JOB)
    mark_running(namespace, pod)
    namespace.wait_for("aexp", "screws", "running", phase("Running"))
    with pytest.raises(KubectlError, match=r"spec.training cannot change while the run is at work"):
        namespace.patch("aexp", "screws", {"spec": {"training": {"trainBatchSize": 8}}})
    namespace.patch("aexp", "screws", {"spec": {"runPolicy": {"suspend": True}}})
    namespace.wait_for("aexp", "screws", "suspended", phase("Suspended"))
    namespace.kubectl("wait", "--for=delete", f"pod/{pod}", "--timeout=30s")
    namespace.patch("aexp", "screws", {"spec": {"runPolicy": {"suspend": False}}})
    mark_ended(namespace, active_pod(namespace, JOB), SUMMARY)
    done = namespace.wait_for("aexp", "screws", "complete", phase("Complete"))
    assert condition(done, "Suspended")["status"] == "False"


def _batch_size(namespace: Namespace) -> int | None:
    jobs = [job for job in namespace.list("jobs") if "deletionTimestamp" not in job["metadata"]]
    spec = config_of(jobs[0]).spec if jobs else None
    return spec.training.train_batch_size if isinstance(spec, ExperimentSpec) else None


def test_an_inference_waits_for_its_experiment(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(inference("today"))
    namespace.wait_for("ainf", "today", "waiting", reason("ExperimentNotFound"))
    namespace.apply(experiment("screws"))
    waiting = namespace.wait_for("ainf", "today", "waiting", reason("WaitingForExperiment"))
    assert waiting["phase"] == "Waiting"
    broken = RunSummary(reason=Reason.DATA_INVALID, stage=Stage.DATASET, message="empty")
    mark_ended(namespace, active_pod(namespace, JOB), broken, 11)
    namespace.wait_for("aexp", "screws", "failed", phase("Failed"))
    stalled = namespace.wait_for("ainf", "today", "stalled", reason("ExperimentFailed", "Stalled"))
    assert stalled["phase"] == "Waiting"
    namespace.delete("aexp", "screws")
    namespace.wait_for("ainf", "today", "waiting", reason("ExperimentNotFound"))
    namespace.apply(experiment("screws"))
    mark_ended(namespace, active_pod(namespace, JOB), SUMMARY)
    namespace.wait_for("aexp", "screws", "complete", phase("Complete"))
    config = _wait_for_job(namespace, operator, "today-inference")
    assert isinstance(config.spec, InferenceSpec)
    model = config.spec.model
    assert model.experiment is None
    assert model.location
    assert model.location.s3
    assert model.location.s3.uri == "s3://results/somewhere/screws/u"
    assert model.location.s3.credentials_secret == "results"
    mark_ended(namespace, active_pod(namespace, "today-inference"), SUMMARY)
    namespace.wait_for("ainf", "today", "complete", phase("Complete"))


def _wait_for_job(namespace: Namespace, operator: OperatorProcess, name: str) -> RunConfig:
    operator.wait_until(lambda: any(job["metadata"]["name"] == name for job in namespace.list("jobs")), f"made {name}")
    return config_of(namespace.get("job", name))


def test_deleting_it_leaves_nothing(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(experiment("screws"))
    mark_running(namespace, active_pod(namespace, JOB))
    namespace.wait_for("aexp", "screws", "running", phase("Running"))
    namespace.delete("aexp", "screws")
    operator.wait_until(lambda: not namespace.list("jobs") and not namespace.list("pods"), "cleaned up")
    assert [found for found in namespace.list("configmaps") if found["metadata"]["name"] != "kube-root-ca.crt"] == []


def test_the_same_name_again_at_once(namespace: Namespace, operator: OperatorProcess) -> None:
    uids: set[str] = set()
    for _ in range(4):
        namespace.apply(experiment("screws"))
        uid = namespace.get("aexp", "screws")["metadata"]["uid"]
        uids.add(uid)
        operator.wait_until(partial(_is_owned_by, namespace, uid), "made for the new one")
        namespace.kubectl("delete", "aexp", "screws", "--wait=true")
    assert len(uids) == 4


def _is_owned_by(namespace: Namespace, uid: str) -> bool:
    return _owner(namespace) == uid


def _owner(namespace: Namespace) -> str | None:
    jobs = namespace.list("jobs")
    return jobs[0]["metadata"]["ownerReferences"][0]["uid"] if jobs else None


def test_a_deleted_job_is_made_again_until_the_run_is_finished(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(experiment("screws"))
    mark_running(namespace, active_pod(namespace, JOB))
    namespace.wait_for("aexp", "screws", "running", phase("Running"))
    first = namespace.get("job", JOB)["metadata"]["uid"]
    namespace.delete("job", JOB)
    operator.wait_until(lambda: _owner(namespace) is not None, "made again")
    assert namespace.get("job", JOB)["metadata"]["uid"] != first
    mark_ended(namespace, active_pod(namespace, JOB), SUMMARY)
    done = namespace.wait_for("aexp", "screws", "complete", phase("Complete"))
    namespace.delete("job", JOB)
    time.sleep(2)
    assert namespace.list("jobs") == []
    assert namespace.status("aexp", "screws") == done


def test_a_foreign_job_of_the_same_name_is_left_alone(namespace: Namespace, operator: OperatorProcess) -> None:
    container = {
        "name": "x",
        "image": "x",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    namespace.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": JOB},
            "spec": {"suspend": True, "template": template},
        }
    )
    namespace.apply(experiment("screws"))
    status = namespace.wait_for("aexp", "screws", "refused", reason("JobRefused", "Stalled"))
    assert "does not belong to this run" in condition(status, "Stalled")["message"]
    assert "ownerReferences" not in namespace.get("job", JOB)["metadata"]


def test_a_quota_that_refuses_the_job(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.kubectl("create", "quota", "none", "--hard=count/jobs.batch=0")
    time.sleep(1)
    namespace.apply(experiment("screws"))
    status = namespace.wait_for("aexp", "screws", "refused", reason("JobRefused", "Stalled"))
    assert "exceeded quota: none" in condition(status, "Stalled")["message"]
    namespace.kubectl("delete", "quota", "none")
    namespace.wait_for("aexp", "screws", "under way", lambda status: "startTime" in status, seconds=60)


@pytest.mark.own_operator
def test_what_happened_while_the_operator_was_down(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(
        experiment("screws", runPolicy={"ttlSecondsAfterFinished": 0, "retainPods": "onFailure"}), experiment("bolts")
    )
    pod, other = active_pod(namespace, JOB), active_pod(namespace, "bolts-experiment")
    operator.kill()
    mark_ended(namespace, pod, SUMMARY)
    mark_ended(namespace, other, "", 1)
    namespace.kubectl("wait", "--for=condition=Complete", f"job/{JOB}", "--timeout=30s")
    namespace.apply(experiment("late"))
    namespace.delete("aexp", "bolts")
    operator.forget_lease()
    operator.start()
    done = namespace.wait_for("aexp", "screws", "complete", phase("Complete"))
    assert done["metrics"]["image"]["AUROC"] == 0.98765432101234
    active_pod(namespace, "late-experiment")
    operator.wait_until(
        lambda: [job["metadata"]["name"] for job in namespace.list("jobs")] == ["late-experiment"],
        "left with the late one alone",
    )


def test_pods_of_a_success_are_deleted_when_requested(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(experiment("screws", runPolicy={"retainPods": "onFailure"}))
    mark_ended(namespace, active_pod(namespace, JOB), SUMMARY)
    namespace.wait_for("aexp", "screws", "complete", phase("Complete"))
    operator.wait_until(lambda: namespace.list("pods") == [], "rid of the pod")
    assert len(namespace.list("jobs")) == 1


def test_progress_is_taken_from_the_runs_own_pod_alone(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(experiment("screws"), experiment("bolts"))
    pod, other = active_pod(namespace, JOB), active_pod(namespace, "bolts-experiment")
    mark_running(namespace, pod)
    namespace.wait_for("aexp", "screws", "running", phase("Running"))
    uid = namespace.get("aexp", "screws")["metadata"]["uid"]
    update = ProgressUpdate(
        run=RunIdentity(kind="AnomalyExperiment", namespace=namespace.name, name="screws", uid=uid),
        stage=Stage.TRAIN,
        progress=Progress(completed=42, total=100, percent=42, remaining_seconds=754),
    )
    assert push(operator, progress_token(namespace, pod), update).status == 204
    status = namespace.wait_for("aexp", "screws", "training", lambda status: status.get("stage") == "train")
    assert status["display"]["progress"] == "train 42%, 12m left"
    assert push(operator, progress_token(namespace, other), update).status == 403
    of_the_api_server = progress_token(namespace, pod, audience="https://kubernetes.default.svc")
    assert push(operator, of_the_api_server, update).status == 401
    assert push(operator, "nonsense", update).status == 401


def test_kubectl_shows_what_a_user_wants_to_know(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.apply(experiment("screws"))
    mark_ended(namespace, active_pod(namespace, JOB), SUMMARY)
    namespace.wait_for("aexp", "screws", "complete", phase("Complete"))
    header, row = namespace.kubectl("get", "aexp").splitlines()
    assert header.split() == ["NAME", "PHASE", "MODEL", "AUROC", "F1", "PROGRESS", "AGE"]
    assert row.split()[:6] == ["screws", "Complete", "padim", "0.9877", "0.9500", "done"]
    assert subprocess.run(["kubectl", "explain", "aexp.spec.model"], capture_output=True, check=True).stdout
