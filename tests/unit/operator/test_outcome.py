"""How a run ended: which pod is believed, and what of it."""

from typing import Any

import pytest

from anomaly_api.reasons import Reason
from anomaly_api.run import RunSummary
from anomaly_api.status import Stage
from anomaly_operator.decide.outcome import Outcome, attempt_outcome, job_outcome, parse_summary
from anomaly_operator.views import JobView, PodView
from support.objects import finished_job_status, make_job, make_pod, terminated, terminated_with

DONE = RunSummary(reason=Reason.COMPLETE, stage=Stage.DONE, message="")
GIVEN_UP = RunSummary(reason=Reason.PRUNED, stage=Stage.TRAIN, message="below the median")
NO_DATA = RunSummary(reason=Reason.DATA_INVALID, stage=Stage.DATASET, message="there is no good image")
NO_STORE = RunSummary(reason=Reason.STORAGE_UNAVAILABLE, stage=Stage.FETCH, message="refused")
COMPLETE, FAILED = make_job(**finished_job_status("Complete")), make_job(**finished_job_status("Failed"))


def failed(number: int, summary: RunSummary, code: int) -> PodView:
    return make_pod(number, phase="Failed", state=terminated_with(summary, code))


def succeeded(number: int, summary: RunSummary) -> PodView:
    return make_pod(number, phase="Succeeded", state=terminated_with(summary))


def failed_job(reason: str, message: str = "as the Job controller says", **spec: Any) -> JobView:
    status = finished_job_status("Failed")
    status["conditions"][0] |= {"reason": reason, "message": message}
    return make_job(spec=spec, **status)


def ended(job: JobView, *pods: PodView) -> Outcome:
    outcome = job_outcome(job, pods)
    assert outcome is not None
    return outcome


def test_a_job_at_work_has_no_outcome() -> None:
    assert job_outcome(make_job(active=1), [failed(1, NO_STORE, 20)]) is None


def test_of_several_failures_the_last_one_is_told() -> None:
    assert ended(FAILED, failed(1, NO_STORE, 20), failed(2, NO_DATA, 11)) == Outcome(
        Reason.DATA_INVALID, "there is no good image", NO_DATA
    )
    assert ended(FAILED, failed(1, NO_DATA, 11), failed(2, NO_STORE, 20)).summary == NO_STORE


def test_a_failed_job_is_not_explained_by_a_pod_that_did_not_fail() -> None:
    waiting, running = make_pod(3), make_pod(4, phase="Running", state={"running": {}})
    assert ended(FAILED, failed(1, NO_DATA, 11), succeeded(2, DONE), waiting, running).summary == NO_DATA


def test_a_success_is_told_by_the_pod_that_succeeded() -> None:
    assert ended(COMPLETE, failed(1, NO_STORE, 20), succeeded(2, DONE), failed(3, NO_DATA, 11)).summary == DONE
    assert ended(COMPLETE, succeeded(1, GIVEN_UP)) == Outcome(Reason.PRUNED, "below the median", GIVEN_UP)
    assert ended(COMPLETE, succeeded(1, GIVEN_UP)).complete


def test_of_two_successes_the_newest_that_can_be_read_is_told() -> None:
    garbage = make_pod(3, phase="Succeeded", state=terminated(0, "no summary"))
    assert ended(COMPLETE, succeeded(1, GIVEN_UP), succeeded(2, DONE)).summary == DONE
    assert ended(COMPLETE, succeeded(1, GIVEN_UP), succeeded(2, DONE), garbage).summary == DONE
    assert ended(COMPLETE, garbage).message == "the pod succeeded, but its result cannot be read: no summary"


@pytest.mark.parametrize(
    "pods", [(), (failed(1, NO_DATA, 11),), (make_pod(1, phase="Running", state={"running": {}}),)]
)
def test_a_success_without_its_pod_is_lost_and_no_success(pods: tuple[PodView, ...]) -> None:
    outcome = ended(COMPLETE, *pods)
    assert outcome == Outcome(
        Reason.RESULT_LOST,
        "the Job completed, but its pod was deleted before its result was read; delete and apply it again",
    )
    assert not outcome.complete


@pytest.mark.parametrize("reason", ["BackoffLimitExceeded", "PodFailurePolicy"])
def test_failed_pods_that_are_gone_took_the_result_with_them(reason: str) -> None:
    expected = f"the Job failed ({reason}) and its pods are gone: as the Job controller says"
    assert ended(failed_job(reason)) == Outcome(Reason.RESULT_LOST, expected)


def test_another_failure_of_the_job_is_told_in_its_own_words() -> None:
    outcome = ended(failed_job("TooManyPods"), succeeded(1, DONE))
    expected = "the Job failed (TooManyPods) and its pods are gone: as the Job controller says"
    assert outcome == Outcome(Reason.INTERNAL_ERROR, expected)


def test_the_deadline_is_that_of_the_run_whatever_its_pods_say() -> None:
    job = failed_job("DeadlineExceeded", activeDeadlineSeconds=40)
    expected = "the run took longer than runPolicy.activeDeadlineSeconds ({} s)"
    assert job_outcome(job, [failed(1, NO_DATA, 11)], 20) == Outcome(Reason.DEADLINE_EXCEEDED, expected.format(60))
    assert ended(job) == Outcome(Reason.DEADLINE_EXCEEDED, expected.format(40))
    assert ended(failed_job("DeadlineExceeded")).message == expected.format(0)


def test_a_success_with_a_failure_for_its_summary_is_believed_in_neither() -> None:
    liar = make_pod(phase="Succeeded", state=terminated_with(NO_DATA, 0))
    outcome = attempt_outcome(liar)
    assert (outcome.reason, outcome.summary) == (Reason.RESULT_LOST, None)
    assert outcome.message.startswith("the pod succeeded, but its result cannot be read: {")
    assert ended(COMPLETE, liar).reason is Reason.RESULT_LOST


@pytest.mark.parametrize("claim", [DONE, GIVEN_UP])
def test_a_failure_with_a_success_for_its_summary_is_a_failure(claim: RunSummary) -> None:
    outcome = attempt_outcome(failed(1, claim, 11))
    assert (outcome.reason, outcome.summary, outcome.complete) == (Reason.DATA_INVALID, None, False)
    assert outcome.message.startswith("exit code 11: {")


def test_an_exit_code_that_is_not_known_is_an_internal_error_in_the_pods_words() -> None:
    assert attempt_outcome(make_pod(phase="Failed", state=terminated(77, " last words\n"))) == Outcome(
        Reason.INTERNAL_ERROR, "exit code 77: last words"
    )
    assert attempt_outcome(make_pod(phase="Failed", state=terminated(77, " \n"))).message == "exit code 77"
    wordless = make_pod(phase="Succeeded", state=terminated(0))
    assert attempt_outcome(wordless) == Outcome(Reason.RESULT_LOST, "the pod succeeded, but its result cannot be read")


OUT_OF_MEMORY = "killed by {} (exit code {}): raise scheduling.resources.limits.memory or lower batch sizes"


@pytest.mark.parametrize(
    ("code", "kubelet_says", "message"),
    [
        (137, "OOMKilled", OUT_OF_MEMORY.format("the kernel", 137)),
        (1, "OOMKilled", OUT_OF_MEMORY.format("the kernel", 1)),
        (137, "Error", OUT_OF_MEMORY.format("SIGKILL", 137)),
    ],
)
def test_a_killed_container_ran_out_of_memory(code: int, kubelet_says: str, message: str) -> None:
    pod = make_pod(phase="Failed", state=terminated(code, "half a summ", kubelet_says))
    assert attempt_outcome(pod) == Outcome(Reason.OUT_OF_MEMORY, message)


def test_a_kernel_that_kills_is_believed_before_what_the_container_wrote() -> None:
    state = terminated(13, NO_DATA.to_termination_message(), "OOMKilled")
    assert attempt_outcome(make_pod(phase="Failed", state=state)).reason is Reason.OUT_OF_MEMORY


def test_a_pod_without_a_container_that_ended_says_nothing() -> None:
    expected = "pod screws-experiment-1 ended without a word from its container"
    assert attempt_outcome(make_pod(phase="Failed")) == Outcome(Reason.RESULT_LOST, expected)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"status": "True", "reason": "PreemptionByScheduler", "message": "by a better pod"}, "by a better pod"),
        ({"status": "True", "reason": "TerminationByKubelet"}, "TerminationByKubelet"),
    ],
)
def test_a_disrupted_pod_is_told_before_whatever_its_container_says(condition: dict[str, str], message: str) -> None:
    conditions = [{"type": "DisruptionTarget"} | condition]
    pod = make_pod(phase="Failed", state=terminated_with(NO_DATA, 11), conditions=conditions)
    assert attempt_outcome(pod) == Outcome(Reason.PREEMPTED, message)


def test_a_disruption_that_did_not_happen_explains_nothing() -> None:
    conditions = [{"type": "DisruptionTarget", "status": "False", "message": "not any more"}]
    pod = make_pod(phase="Failed", state=terminated_with(NO_DATA, 11), conditions=conditions)
    assert attempt_outcome(pod).reason is Reason.DATA_INVALID


def disrupted(message: str) -> PodView:
    return make_pod(phase="Failed", conditions=[{"type": "DisruptionTarget", "status": "True", "message": message}])


def test_messages_fit_into_a_condition() -> None:
    assert attempt_outcome(disrupted("x" * 1024)).message == "x" * 1024
    assert attempt_outcome(disrupted("x" * 1025)).message == "x" * 1021 + "..."
    for outcome in (
        attempt_outcome(make_pod(phase="Failed", state=terminated(77, "x" * 4000))),
        attempt_outcome(make_pod(phase="Succeeded", state=terminated(0, "x" * 4000))),
        ended(failed_job("TooManyPods", "x" * 4000)),
    ):
        assert len(outcome.message) == 1024
        assert outcome.message.endswith("xxx...")


def test_only_a_summary_is_a_summary() -> None:
    assert parse_summary(NO_DATA.to_termination_message()) == NO_DATA
    most = NO_DATA.model_copy(update={"warnings": ("w",) * 8})
    assert parse_summary(most.model_dump_json(by_alias=True)) == most
    more = NO_DATA.model_copy(update={"warnings": ("w",) * 9})
    assert parse_summary(more.model_dump_json(by_alias=True)) is None, "a status would be refused"
    for text in ("", "{}", '{"reason": "Complete"', "Traceback (most recent call last)"):
        assert parse_summary(text) is None
