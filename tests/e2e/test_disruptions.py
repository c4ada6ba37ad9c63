"""Runs that are disturbed: operator gone, resource deleted, run suspended. Nothing is lost, nothing is left."""

import pytest

from support.experiments import Cell, long_experiment
from support.kube import condition, holds
from support.operator import operator_scaled_to, running_operator_pods

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def wait_until_working(cell: Cell, name: str) -> None:
    """Until the pod has pulled its data and works on images."""
    cell.wait_for(
        "aexp", name, "at work", lambda status: status.get("stage") in ("train", "predict", "evaluate", "visualize")
    )


def test_the_operator_killed_in_mid_run_loses_nothing(cell: Cell) -> None:
    cell.apply(long_experiment("survivor"))
    wait_until_working(cell, "survivor")
    killed = running_operator_pods()
    assert len(killed) == 2
    with operator_scaled_to(0):
        job = cell.status("aexp", "survivor")["jobName"]
        cell.kubectl("wait", "--for=condition=Complete", f"job/{job}", "--timeout=300s")
        assert not holds(cell.status("aexp", "survivor"), "Complete")
    status = cell.complete("aexp", "survivor")["status"]
    assert set(status["metrics"]["image"]) >= {"AUROC", "F1Score"}
    assert status["attempts"] == 1
    assert not set(running_operator_pods()) & set(killed)


def test_a_deleted_experiment_takes_its_pod_along(cell: Cell) -> None:
    cell.apply(long_experiment("cancelled"))
    wait_until_working(cell, "cancelled")
    uid = cell.get("aexp", "cancelled")["metadata"]["uid"]
    cell.delete("aexp", "cancelled")
    cell.wait_until_empty(of="cancelled")
    assert cell.s3.keys(f"s3://results/{cell.name}/cancelled/{uid}") == []


def test_a_suspended_run_stops_and_a_resumed_one_completes(cell: Cell) -> None:
    cell.apply(long_experiment("paused"))
    wait_until_working(cell, "paused")
    cell.patch("aexp", "paused", {"spec": {"runPolicy": {"suspend": True}}})
    status = cell.wait_for("aexp", "paused", "Suspended", lambda status: holds(status, "Suspended"))
    assert status["phase"] == "Suspended"
    cell.wait_until_no_pods(of="paused")
    cell.patch("aexp", "paused", {"spec": {"runPolicy": {"suspend": False}}})
    status = cell.complete("aexp", "paused")["status"]
    assert condition(status, "Suspended")["status"] == "False"
    assert status["images"]["predicted"] > 0
