"""Views of Kubernetes objects: what is taken from which field, and what stands for a field that is not there."""

import json
from typing import Any

import pytest

from anomaly_operator import names
from anomaly_operator.keys import Kind, RunKey
from anomaly_operator.resources import Manifest
from anomaly_operator.views import (
    ConditionView,
    EventView,
    JobView,
    Owner,
    PodView,
    RunView,
    Termination,
    event_view,
    job_view,
    pod_view,
    run_view,
)

BEGAN, ENDED = "2026-01-02T03:04:05Z", "2026-01-02T03:14:05Z"
META: Manifest = {
    "namespace": "vision",
    "name": "screws",
    "uid": "u",
    "resourceVersion": "17",
    "creationTimestamp": BEGAN,
}
CONTROLLER = {"kind": "AnomalyExperiment", "name": "hunt", "uid": "of-hunt", "controller": True}
OTHERS = [{"kind": "Owner", "name": "o", "uid": "x"}, {"kind": "Owner", "name": "o", "uid": "y", "controller": False}]
GOING = {"deletionTimestamp": ENDED}


def view(kind: Kind = "AnomalyExperiment", meta: Manifest | None = None, **parts: Any) -> RunView:
    return run_view(kind, {"metadata": META | (meta or {})} | parts)


def test_a_run_of_which_nothing_is_known_but_its_name() -> None:
    assert view() == RunView(
        key=RunKey("AnomalyExperiment", "vision", "screws"),
        uid="u",
        resource_version=17,
        generation=0,
        deleting=False,
        spec=b"{}",
        rerun=None,
        status=b"{}",
        suspend=False,
        phase=None,
        owner=None,
        experiment_name=None,
    )


def test_a_run_with_everything() -> None:
    spec = {"runPolicy": {"suspend": True, "rerun": "again"}, "sweep": {"start": {"fromExperiment": {"name": "first"}}}}
    meta = {"generation": 3, "ownerReferences": [*OTHERS, CONTROLLER]} | GOING
    found = view(meta=meta, spec=spec, status={"phase": "Running", "attempts": 1})
    assert (found.generation, found.deleting, found.owner) == (3, True, Owner("AnomalyExperiment", "hunt", "of-hunt"))
    assert (found.suspend, found.rerun, found.phase, found.experiment_name) == (True, "again", "Running", "first")
    assert json.loads(found.spec) == spec
    # Without spaces, by name: equal specs are equal bytes.
    assert found.status == b'{"attempts":1,"phase":"Running"}'


@pytest.mark.parametrize("spec", [{"runPolicy": "soon"}, {"runPolicy": None}, {"runPolicy": {}}])
def test_a_run_policy_that_is_none_asks_for_nothing(spec: Manifest) -> None:
    found = view(spec=spec)
    assert (found.suspend, found.rerun) == (False, None)


@pytest.mark.parametrize(
    ("kind", "spec", "name"),
    [
        ("AnomalyInference", {"model": {"experiment": "screws"}}, "screws"),
        ("AnomalyInference", {"model": {"experiment": 7}}, None),
        ("AnomalyInference", {"model": "screws"}, None),
        ("AnomalyInference", {"sweep": {"start": {"fromExperiment": {"name": "first"}}}}, None),
        ("AnomalyExperiment", {"model": {"experiment": "screws"}}, None),
        ("AnomalyExperiment", {"sweep": {"start": {"fromExperiment": {}}}}, None),
        ("AnomalyExperiment", {"sweep": {"start": None}}, None),
    ],
)
def test_the_experiment_that_a_run_names(kind: Kind, spec: Manifest, name: str | None) -> None:
    assert view(kind, spec=spec).experiment_name == name


@pytest.mark.parametrize(
    ("kind", "spec", "has_sweep"),
    [
        ("AnomalyExperiment", {"sweep": {"final": "train"}}, True),
        ("AnomalyExperiment", {"model": {}}, False),
        ("AnomalyExperiment", {"text": '"sweep":{"'}, False),
        ("AnomalyInference", {"sweep": {"final": "train"}}, False),
    ],
)
def test_which_runs_have_a_sweep(kind: Kind, spec: Manifest, has_sweep: bool) -> None:
    assert view(kind, spec=spec).has_sweep is has_sweep


@pytest.mark.parametrize(
    ("kind", "owners", "sweep"),
    [
        ("AnomalyExperiment", [CONTROLLER], RunKey("AnomalyExperiment", "vision", "hunt")),
        ("AnomalyExperiment", [CONTROLLER | {"controller": False}], None),
        ("AnomalyExperiment", [CONTROLLER | {"kind": "Application"}], None),
        ("AnomalyExperiment", [], None),
        ("AnomalyInference", [CONTROLLER], None),
    ],
)
def test_the_sweep_of_a_trial(kind: Kind, owners: list[Manifest], sweep: RunKey | None) -> None:
    assert view(kind, {"ownerReferences": owners}).sweep_key == sweep


@pytest.mark.parametrize(
    ("phase", "is_over"),
    [("Complete", True), ("Failed", True), ("Running", False), ("Suspended", False), (None, False)],
)
def test_which_phases_are_an_end(phase: str | None, is_over: bool) -> None:
    assert view(status={"phase": phase} if phase else {}).is_over is is_over


# Jobs -----------------------------------------------------------------------------------------------------------------


def a_job(meta: Manifest | None = None, spec: Manifest | None = None, **status: Any) -> JobView:
    return job_view({"metadata": META | (meta or {}), "spec": spec or {}} | ({"status": status} if status else {}))


def test_a_job_that_has_just_been_made() -> None:
    assert a_job() == JobView(
        namespace="vision",
        name="screws",
        uid="u",
        resource_version=17,
        owner=None,
        creation_time=BEGAN,
        deleting=False,
        suspend=False,
        step=None,
        queued=False,
        backoff_limit=6,  # Kubernetes' default
        active_deadline_seconds=None,
        ttl_seconds_after_finished=None,
        config_digest="",
        installation="",
        start_time=None,
        completion_time=None,
        active=0,
        failed=0,
        succeeded=0,
        conditions=(),
    )


def test_a_job_with_everything() -> None:
    meta = {
        "labels": {names.STEP_LABEL: "check", names.QUEUE_LABEL: "gpus"},
        "annotations": {names.CONFIG_DIGEST_ANNOTATION: "digest", names.INSTALLATION_ANNOTATION: "system"},
        "ownerReferences": [*OTHERS, CONTROLLER],
    } | GOING
    spec = {"suspend": True, "backoffLimit": 2, "activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 5}
    times = {"startTime": BEGAN, "completionTime": ENDED}
    done = {"type": "Complete", "status": "True", "reason": "r", "message": "m", "lastTransitionTime": ENDED}
    bare = {"type": "Suspended", "status": "False", "reason": None, "message": None}
    found = a_job(meta, spec, **times, active=1, failed=2, succeeded=3, conditions=[bare, done])
    assert (found.step, found.queued, found.config_digest, found.installation) == ("check", True, "digest", "system")
    assert (found.deleting, found.suspend, found.backoff_limit) == (True, True, 2)
    assert (found.active_deadline_seconds, found.ttl_seconds_after_finished) == (60, 5)
    assert (found.start_time, found.completion_time) == (BEGAN, ENDED)
    assert (found.active, found.failed, found.succeeded) == (1, 2, 3)
    complete = ConditionView(type="Complete", status="True", reason="r", message="m", last_transition_time=ENDED)
    assert found.conditions == (ConditionView(type="Suspended", status="False"), complete)
    assert found.finished_condition == complete
    assert found.run_key == RunKey("AnomalyExperiment", "vision", "hunt")
    assert [found.is_controlled_by(uid) for uid in ("of-hunt", "x")] == [True, False]
    assert [found.is_made_by(installation) for installation in ("system", "elsewhere")] == [True, False]


@pytest.mark.parametrize(
    ("kind", "status", "ends"),
    [("Complete", "True", True), ("Failed", "True", True), ("Failed", "False", False), ("Suspended", "True", False)],
)
def test_a_job_is_finished_with_a_condition_that_is_true(kind: str, status: str, ends: bool) -> None:
    found = a_job(conditions=[{"type": "FailureTarget", "status": "True"}, {"type": kind, "status": status}])
    assert (found.finished_condition is not None) is ends
    assert found.find_true("FailureTarget") == ConditionView(type="FailureTarget", status="True")


def test_a_job_of_nobody_and_of_somebody_else_is_no_runs() -> None:
    nobodys, other = a_job(), a_job({"ownerReferences": [CONTROLLER | {"kind": "CronJob"}]})
    assert (nobodys.run_key, other.run_key) == (None, None)
    assert not nobodys.is_controlled_by("of-hunt")
    assert nobodys.is_made_by("anybody"), "an earlier release left no name"


# Pods and Events ------------------------------------------------------------------------------------------------------


def a_pod(meta: Manifest | None = None, **status: Any) -> PodView:
    return pod_view({"metadata": META | (meta or {})} | ({"status": status} if status else {}))


def with_state(**state: Any) -> PodView:
    others = [{"name": "istio-proxy", "state": {"terminated": {"exitCode": 9}}}]
    return a_pod(phase="Running", containerStatuses=[*others, {"name": "runner", "state": state}])


def test_a_pod_that_nobody_has_looked_at() -> None:
    assert a_pod() == PodView(
        namespace="vision",
        name="screws",
        uid="u",
        resource_version=17,
        owner=None,
        creation_time=BEGAN,
        deleting=False,
        phase="Pending",
        conditions=(),
        waiting_reason="",
        waiting_message="",
        running=False,
        termination=None,
    )
    assert a_pod(conditions=None, containerStatuses=[{"name": "runner"}]) == a_pod()
    going = a_pod({"ownerReferences": [CONTROLLER]} | GOING, conditions=[{"type": "Ready", "status": "False"}])
    assert (going.deleting, going.owner) == (True, Owner("AnomalyExperiment", "hunt", "of-hunt"))
    assert going.find_condition("Ready") is None
    ready = a_pod(conditions=[{"type": "Ready", "status": "True"}]).find_condition("Ready")
    assert ready == ConditionView(type="Ready", status="True")
    assert going.find_condition("Ready", "False") == ConditionView(type="Ready", status="False")


def test_the_state_of_a_pod_is_that_of_the_runner() -> None:
    assert with_state(running={}).running
    assert with_state(running={}).termination is None
    waiting = with_state(waiting={"reason": "ImagePullBackOff", "message": "no such image"})
    assert (waiting.waiting_reason, waiting.waiting_message) == ("ImagePullBackOff", "no such image")
    assert not waiting.running
    bare = with_state(waiting={})
    assert (bare.waiting_reason, bare.waiting_message) == ("", "")
    assert with_state(terminated={"exitCode": 3}).termination == Termination(
        exit_code=3, reason="", message="", finished_at=None
    )
    ended = {"exitCode": 137, "reason": "OOMKilled", "message": "last words", "finishedAt": ENDED}
    expected = Termination(exit_code=137, reason="OOMKilled", message="last words", finished_at=ENDED)
    assert with_state(terminated=ended).termination == expected


@pytest.mark.parametrize(
    ("phase", "finished"), [("Succeeded", True), ("Failed", True), ("Running", False), ("Pending", False)]
)
def test_which_pods_have_finished(phase: str, finished: bool) -> None:
    assert a_pod(phase=phase).finished is finished


@pytest.mark.parametrize(
    "times",
    [
        {"lastTimestamp": "2026-01-02T03:05:00Z", "eventTime": ENDED, "series": {"lastObservedTime": ENDED}},
        {"lastTimestamp": None, "series": {"lastObservedTime": "2026-01-02T03:05:00.123456Z"}, "eventTime": ENDED},
        {"series": None, "eventTime": "2026-01-02T03:05:00.999999Z"},
        {"eventTime": None, "metadata": {"creationTimestamp": "2026-01-02T03:05:00Z"}},
    ],
)
def test_when_an_event_was_last_seen(times: Manifest) -> None:
    raw = {"metadata": {"creationTimestamp": ENDED}, "reason": "FailedCreate", "message": "quota"} | times
    assert event_view(raw) == EventView(reason="FailedCreate", message="quota", last_seen="2026-01-02T03:05:00Z")


def test_an_event_may_say_nothing() -> None:
    found = event_view({"metadata": {"creationTimestamp": ENDED}, "reason": None, "message": None})
    assert found == EventView(reason="", message="", last_seen=ENDED)
