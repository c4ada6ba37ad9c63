"""Disrupted runs: operator killed, resource deleted, run suspended. Nothing is lost, nothing is left behind."""

import pytest

from support.demo import DemoNamespace, long_experiment
from support.kube import condition, condition_is_true
from support.operator import operator_scaled_to, running_operator_pods

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def wait_until_working(namespace: DemoNamespace, name: str) -> None:
    """Wait until the pod has pulled its data and works on images."""
    namespace.wait_for(
        "aexp", name, "at work", lambda status: status.get("stage") in ("train", "predict", "evaluate", "visualize")
    )


def test_the_operator_killed_in_mid_run_loses_nothing(namespace: DemoNamespace) -> None:
    namespace.apply(long_experiment("survivor"))
    wait_until_working(namespace, "survivor")
    killed = running_operator_pods()
    assert len(killed) == 2
    with operator_scaled_to(0):
        job = namespace.status("aexp", "survivor")["jobName"]
        namespace.kubectl("wait", "--for=condition=Complete", f"job/{job}", "--timeout=300s")
        assert not condition_is_true(namespace.status("aexp", "survivor"), "Complete")
    status = namespace.wait_until_complete("aexp", "survivor")["status"]
    assert set(status["metrics"]["image"]) >= {"AUROC", "F1Score"}
    assert status["attempts"] == 1
    assert not set(running_operator_pods()) & set(killed)


def test_a_deleted_experiment_takes_its_pod_along(namespace: DemoNamespace) -> None:
    namespace.apply(long_experiment("cancelled"))
    wait_until_working(namespace, "cancelled")
    uid = namespace.get("aexp", "cancelled")["metadata"]["uid"]
    namespace.delete("aexp", "cancelled")
    namespace.wait_until_empty(of="cancelled")
    assert namespace.s3.keys(f"s3://results/{namespace.name}/cancelled/{uid}") == []


def test_a_suspended_run_stops_and_a_resumed_one_completes(namespace: DemoNamespace) -> None:
    namespace.apply(long_experiment("paused"))
    wait_until_working(namespace, "paused")
    namespace.patch("aexp", "paused", {"spec": {"runPolicy": {"suspend": True}}})
    status = namespace.wait_for("aexp", "paused", "Suspended", lambda status: condition_is_true(status, "Suspended"))
    assert status["phase"] == "Suspended"
    namespace.wait_until_no_pods(of="paused")
    namespace.patch("aexp", "paused", {"spec": {"runPolicy": {"suspend": False}}})
    status = namespace.wait_until_complete("aexp", "paused")["status"]
    assert condition(status, "Suspended")["status"] == "False"
    assert status["images"]["predicted"] > 0
