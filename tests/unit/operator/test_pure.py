"""Small pure functions: names, events, outcomes."""

import re

import pytest

from anomaly_api.reasons import FINAL_EXIT_CODES, ExitCode, Reason
from anomaly_api.run import RunSummary
from anomaly_api.status import Condition, ConditionType, Device, Phase, RunStatus, Stage
from anomaly_operator import names
from anomaly_operator.decide.job import failure_policy
from anomaly_operator.decide.outcome import attempt_outcome
from anomaly_operator.decide.transition_events import transition_events
from anomaly_operator.keys import RunKey
from support.objects import make_pod, terminated, terminated_with


@pytest.mark.parametrize(
    "name", ["screws", "a" * 63, "a" * 253, "a.b", "x-" * 40 + "x", "one." * 30 + "end", "0", "a" * 52, "a" * 53]
)
def test_job_names_are_dns_labels(name: str) -> None:
    for kind in ("AnomalyExperiment", "AnomalyInference"):
        made = names.job(RunKey(kind, "n", name))
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", made)
        assert len(made) <= 63
        for value in names.labels(RunKey(kind, "n", name)).values():
            assert len(value) <= 63


def test_no_two_runs_share_a_job() -> None:
    similar = ["a.b", "a-b", "a" * 62, "a" * 63, "a" * 64, "a" * 62 + ".b", "a" * 62 + "-b"]
    keys = [RunKey(kind, "n", name) for kind in ("AnomalyExperiment", "AnomalyInference") for name in similar]
    assert len({names.job(key) for key in keys}) == len(keys)


def test_a_name_that_fits_is_kept_as_it_is() -> None:
    fits, too_long = "a" * 52, "a" * 53
    assert names.job(RunKey("AnomalyExperiment", "n", fits)) == f"{fits}-experiment"
    assert names.job(RunKey("AnomalyExperiment", "n", fits[4:]), 2, "x") == f"{fits[4:]}-experiment-2-x"
    # sha256sum of the whole name, its first eight digits.
    assert names.job(RunKey("AnomalyExperiment", "n", too_long)) == f"{'a' * 43}-abe346a7-experiment"
    assert names.labels(RunKey("AnomalyInference", "n", "b" * 63))["anomalyops.io/inference"] == "b" * 63
    assert names.trial_labels("c" * 63, 7) == {"anomalyops.io/sweep": "c" * 63, "anomalyops.io/trial": "7"}
    cut_at_a_hyphen = names.job(RunKey("AnomalyExperiment", "n", "a" * 42 + "-" + "b" * 30))
    assert cut_at_a_hyphen.startswith("a" * 42 + "-")
    assert "--" not in cut_at_a_hyphen


def test_the_name_of_an_event_tells_occurrences_and_resources_apart() -> None:
    one = names.event("uid", "Complete", "2026-01-02T03:04:05Z", name="screws")
    assert re.fullmatch(r"screws\.[0-9a-f]{16}", one)
    assert names.event("uid", "Complete", "2026-01-02T03:04:05Z", name="screws") == one
    others = [
        ("u", "idComplete", "2026-01-02T03:04:05Z"),
        ("uid", "Complete2026", "-01-02T03:04:05Z"),
        ("uid", "Complete"),
    ]
    assert len({one, *(names.event(*other, name="screws") for other in others)}) == 4
    assert len(names.event("uid", "Complete", name="s" * 253)) == 200 + 1 + 16


def test_the_failure_policy_follows_the_exit_codes() -> None:
    disruption, final, stopped = failure_policy()["rules"]
    assert (disruption["action"], disruption["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert final["action"] == "FailJob"
    assert final["onExitCodes"]["values"] == sorted(FINAL_EXIT_CODES)
    assert (stopped["action"], stopped["onExitCodes"]["values"]) == ("Ignore", [143])
    retried = {
        ExitCode.STORAGE_UNAVAILABLE,
        ExitCode.TRACKING_UNAVAILABLE,
        ExitCode.GPU_UNAVAILABLE,
        ExitCode.INTERNAL_ERROR,
    }
    assert not retried & set(FINAL_EXIT_CODES)


@pytest.mark.parametrize("code", [code for code in ExitCode if code], ids=lambda code: code.name)
def test_every_exit_code_has_its_reason_without_a_summary(code: ExitCode) -> None:
    outcome = attempt_outcome(make_pod(phase="Failed", state=terminated(int(code), "last words")))
    assert outcome.reason is code.reason


def test_a_summary_that_contradicts_the_exit_code_is_not_trusted() -> None:
    liar = terminated_with(RunSummary(reason=Reason.COMPLETE, stage=Stage.DONE), exit_code=1)
    assert attempt_outcome(make_pod(phase="Failed", state=liar)).reason is Reason.INTERNAL_ERROR


def test_a_preempted_pod_is_not_a_failure_of_the_run() -> None:
    disrupted = [{"type": "DisruptionTarget", "status": "True", "message": "preempted by a better pod"}]
    pod = make_pod(phase="Failed", state=terminated(137), conditions=disrupted)
    assert attempt_outcome(pod).reason is Reason.PREEMPTED


def status_at(
    phase: Phase, *true: tuple[ConditionType, Reason], start: str | None = "2026-01-02T03:04:05Z"
) -> RunStatus:
    return RunStatus(
        phase=phase,
        start_time=start,
        conditions=tuple(
            Condition(type=kind, status="True", reason=reason, last_transition_time="2026-01-02T03:04:05Z")
            for kind, reason in true
        ),
    )


NEW = RunStatus()
RUNNING = status_at(Phase.RUNNING, (ConditionType.RECONCILING, Reason.RUNNING))
UNSCHEDULABLE = status_at(Phase.PENDING, (ConditionType.RECONCILING, Reason.UNSCHEDULABLE))
DONE = status_at(Phase.COMPLETE, (ConditionType.COMPLETE, Reason.COMPLETE))
BROKEN = status_at(
    Phase.FAILED, (ConditionType.FAILED, Reason.DATA_INVALID), (ConditionType.STALLED, Reason.DATA_INVALID)
)
ON_CPU = RUNNING.model_copy(update={"device": Device(name="CPU", provider="torch cpu")})
WITHOUT_GPU = RUNNING.model_copy(update={"device": Device(name="CPU", provider="torch cpu", fallback="no driver")})
HELD = status_at(Phase.SUSPENDED, (ConditionType.SUSPENDED, Reason.SUSPENDED))


@pytest.mark.parametrize(
    ("old", "new", "reasons"),
    [
        (NEW, status_at(Phase.SUSPENDED, (ConditionType.SUSPENDED, Reason.SUSPENDED), start=None), []),
        (NEW, RUNNING, []),
        (NEW, UNSCHEDULABLE, [("Warning", "Unschedulable")]),
        (UNSCHEDULABLE, UNSCHEDULABLE, []),
        (RUNNING, DONE, [("Normal", "Complete")]),
        (DONE, DONE, []),
        (RUNNING, BROKEN, [("Warning", "DataInvalid")]),
        (RUNNING, HELD, [("Normal", "Suspended")]),
        (RUNNING, ON_CPU, []),
        (RUNNING, WITHOUT_GPU, [("Warning", "GpuUnavailable")]),
        (WITHOUT_GPU, WITHOUT_GPU, []),
    ],
)
def test_events(old: RunStatus, new: RunStatus, reasons: list[tuple[str, str]]) -> None:
    assert [(event.type, event.reason.value) for event in transition_events(old, new)] == reasons
