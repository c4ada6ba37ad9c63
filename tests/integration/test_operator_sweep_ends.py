"""How sweeps end, on a real API server with played pods: the end is recorded, then what is still at work is deleted."""

import asyncio
import re
import time
from collections.abc import Mapping
from typing import Any

import pytest

from anomaly_api.reasons import Reason
from support.hunt import at_work, phase, score, sweep, trials
from support.kube import Manifest, Namespace, condition
from support.mortal_operator import MortalClient, operate
from support.process import OperatorProcess
from support.sweep_player import HELD, PAGE, SweepPlayer

pytestmark = pytest.mark.cluster

GPUS = 8


def first_ends(first: float) -> Any:
    """Return a score by which the first trial ends, and the others stay at work."""
    seen: list[Mapping[str, Any]] = []

    def end(values: Mapping[str, Any]) -> float:
        if values and values not in seen:
            seen.append(values)
        return first if not values or values == seen[0] else HELD

    return end


def hours(trial: Manifest) -> float:
    seconds: float = trial["status"]["nodeTime"]["seconds"]
    return GPUS * seconds / 3600


def on_gpus(manifest: Manifest) -> Manifest:
    manifest["spec"]["scheduling"]["gpus"] = {"count": GPUS}
    return manifest


def test_too_many_failures_end_it_and_no_trial_runs_on(namespace: Namespace, operator: OperatorProcess) -> None:
    failures = (
        [Reason.DATA_INVALID] * 3 + [Reason.STORAGE_DENIED] * 2 + [Reason.WEIGHTS_NOT_FOUND, Reason.MODEL_INVALID]
    )
    numbers: dict[str, int] = {}

    def end(values: Mapping[str, Any]) -> float | Reason:
        number = numbers.setdefault(str(values), len(numbers))
        return failures[number] if number < len(failures) else HELD

    with SweepPlayer(namespace.name, end) as player:
        namespace.apply(sweep(trials={"max": 20, "parallel": 4, "maxFailed": 6}))
        failed = namespace.wait_for("aexp", "hunt", "failed", phase("Failed"))
        assert condition(failed, "Failed")["reason"] == "TrialsFailed"
        message = condition(failed, "Failed")["message"]
        assert message == "7 trials failed, 6 may: DataInvalid (3 x), StorageDenied (2 x), ModelInvalid (1 x)"
        # A last pod was told so, and left the page: the run's end waited for it.
        told = player.configs["hunt"]
        assert told.step == "report"
        assert told.sweep
        assert told.sweep.failure
        assert (told.sweep.failure.reason, told.sweep.failure.message) == ("TrialsFailed", message)
        assert failed["artifacts"]["sweep"] == PAGE.sweep
        operator.wait_until(lambda: at_work(namespace) == 0, "without trials at work")
        before = {trial["metadata"]["uid"] for trial in trials(namespace)}
    # A higher limit has it go on with the trials that there are.
    with SweepPlayer(namespace.name, score):
        limits = {"max": 8, "parallel": 4, "maxFailed": 9}
        namespace.patch("aexp", "hunt", {"spec": {"sweep": {"trials": limits}}})
        done = namespace.wait_for("aexp", "hunt", "complete", phase("Complete", run=2), is_over=True)
    assert before <= {trial["metadata"]["uid"] for trial in trials(namespace)}, "nothing is repeated"
    assert done["sweep"]["failed"] == 7
    assert done["sweep"]["complete"] == 1


def test_a_target_ends_it_and_what_is_at_work_is_called_off(namespace: Namespace, operator: OperatorProcess) -> None:
    objectives = [{"metric": "image.AUROC", "goal": "maximize", "target": 0.999}]
    start = {"points": [{"model.padim.nFeatures": features} for features in (10, 37)]}

    def end(values: Mapping[str, Any]) -> float:
        return score(values) if values.get("model.padim.nFeatures", 37) in (10, 37) else HELD

    limits = {"max": 20, "parallel": 3}
    with SweepPlayer(namespace.name, end):
        namespace.apply(sweep(objectives=objectives, start=start, trials=limits, final="report"))
        done = namespace.wait_for("aexp", "hunt", "complete", phase("Complete"))
        operator.wait_until(lambda: at_work(namespace) == 0, "without trials at work")
    found = done["sweep"]
    assert (found["stopReason"], found["best"][0]["number"], found["running"]) == ("TargetReached", 1, 0)
    assert {trial["spec"]["trial"]["number"] for trial in trials(namespace)} <= {0, 1}


def test_it_ends_without_improvement_and_tells_of_better_ones_alone(
    namespace: Namespace, operator: OperatorProcess
) -> None:
    start = {"points": [{"model.padim.nFeatures": features} for features in (10, 37, 20, 30)]}
    limits = {"max": 20, "parallel": 1}
    with SweepPlayer(namespace.name, score, seconds=1.5):  # a status a second: each trial is told of
        namespace.apply(sweep(start=start, trials=limits, budget={"withoutImprovement": 2}, final="report"))
        done = namespace.wait_for("aexp", "hunt", "complete", phase("Complete"))
    assert (done["sweep"]["stopReason"], done["sweep"]["asked"]) == ("WithoutImprovement", 4)
    told = [event["message"] for event in namespace.list("events") if event["reason"] == "NewBest"]
    assert sorted(told) == ["trial 0: image.AUROC 0.9271", "trial 1: image.AUROC 1"]
    rows = columns(namespace.kubectl("get", "aexp", "-l", "anomalyops.io/sweep=hunt", "-o", "wide"))
    assert [(row["NAME"], row["PHASE"], row["TRIAL"], row["RUNG"], row["OBJECTIVE"]) for row in rows] == [
        ("hunt-t0000", "Complete", "0", "0", "0.9271"),
        ("hunt-t0001", "Complete", "1", "0", "1"),
        ("hunt-t0002", "Complete", "2", "0", "0.9711"),
        ("hunt-t0003", "Complete", "3", "0", "0.9951"),
    ]


def columns(table: str) -> list[dict[str, str]]:
    """Return the rows of what kubectl get prints."""
    head, *rows = table.splitlines()
    names = list(re.finditer(r"\S+", head))
    ends = [*(name.start() for name in names[1:]), None]
    return [
        {name.group(): row[name.start() : end].strip() for name, end in zip(names, ends, strict=True)} for row in rows
    ]


def test_the_deadline_ends_a_search_and_its_trials(namespace: Namespace, operator: OperatorProcess) -> None:
    with SweepPlayer(namespace.name, lambda _: HELD):
        namespace.apply(sweep(policy={"activeDeadlineSeconds": 5}))
        failed = namespace.wait_for("aexp", "hunt", "failed", phase("Failed"))
        assert condition(failed, "Failed")["reason"] == "DeadlineExceeded"
        assert failed["artifacts"]["sweep"] == PAGE.sweep
        operator.wait_until(lambda: not trials(namespace), "rid of its trials")


async def dies_at_its_first_delete(namespace: str) -> None:
    await operate(MortalClient(die_at=1, when="before", method="DELETE"), namespace)


@pytest.mark.own_operator
def test_the_end_is_recorded_before_anything_is_deleted(namespace: Namespace, operator: OperatorProcess) -> None:
    """An operator dies when it is about to delete the first trial; its successor deletes all, and writes no more."""
    operator.stop()

    def end(values: Mapping[str, Any]) -> float | Reason:
        return Reason.DATA_INVALID if values == first else HELD

    first = {"model.padim.nFeatures": 32}
    start = {"points": [first]}
    with SweepPlayer(namespace.name, end):
        namespace.apply(sweep(start=start, trials={"max": 20, "parallel": 4, "maxFailed": 0}))
        asyncio.run(asyncio.wait_for(dies_at_its_first_delete(namespace.name), 90))
        recorded = namespace.status("aexp", "hunt")
        assert recorded["steps"][-1]["failure"]["reason"] == "TrialsFailed"
        assert (recorded["sweep"]["failed"], recorded["sweep"]["running"]) == (1, 0)
        assert at_work(namespace) == 3
        operator.forget_lease()
        operator.start()
        operator.wait_until(lambda: at_work(namespace) == 0, "without trials at work")
        assert operator.writes('verb="delete"', 'resource="anomalyexperiments"') == 3
        failed = namespace.wait_for("aexp", "hunt", "failed", phase("Failed"))
    assert (failed["steps"], failed["sweep"]) == (recorded["steps"], recorded["sweep"])
    operator.stop()
    operator.start()
    operator.wait_until(lambda: operator.leads, "leading")
    time.sleep(3)
    assert operator.writes() == 0


def test_gpu_hours_end_it_and_those_of_deleted_trials_stay_counted(
    namespace: Namespace, operator: OperatorProcess
) -> None:
    limits = {"max": 10, "parallel": 2}
    budget = {"gpuHours": 0.02}  # 9 seconds of 8 GPUs
    manifest = sweep(policy={"preflight": "Never"}, trials=limits, budget=budget, final="report")
    with SweepPlayer(namespace.name, first_ends(0.5), begins=True):
        namespace.apply(on_gpus(manifest))
        done = namespace.wait_for("aexp", "hunt", "complete", phase("Complete"))
        operator.wait_until(lambda: at_work(namespace) == 0, "without trials at work")
    found = done["sweep"]
    assert found["stopReason"] == "GpuHours"
    assert 0.02 <= found["gpuHours"] <= 0.02 + 2 * GPUS * 4 / 3600, "noticed within seconds"
    [kept] = trials(namespace)
    removed = found["gpuHours"] - hours(kept)
    assert removed > 0.01, "two trials were at work all the time"
    with SweepPlayer(namespace.name, score, begins=True):
        budget = {"gpuHours": found["gpuHours"] + 0.03}
        namespace.patch("aexp", "hunt", {"spec": {"sweep": {"budget": budget}}})
        more = namespace.wait_for("aexp", "hunt", "complete again", phase("Complete", run=2), is_over=True)["sweep"]
    assert more["removedGpuHours"] == pytest.approx(removed)
    assert more["gpuHours"] == pytest.approx(removed + sum(map(hours, trials(namespace))))
    assert found["gpuHours"] < more["gpuHours"] < budget["gpuHours"] + 0.01


def test_hours_of_a_trial_that_somebody_deletes_stay_counted(namespace: Namespace, operator: OperatorProcess) -> None:
    manifest = sweep(policy={"preflight": "Never"}, trials={"max": 2, "parallel": 1}, final="report")
    held = True

    def end(values: Mapping[str, Any]) -> float:
        return HELD if held else score(values)

    with SweepPlayer(namespace.name, end, begins=True):
        namespace.apply(on_gpus(manifest))
        operator.wait_until(lambda: trials(namespace), "making a trial")
        # A trial whose pod waits for a node uses nothing.
        namespace.wait_for("aexp", "hunt-t0000", "on a node", lambda status: "since" in status.get("nodeTime", {}))
        time.sleep(3)
        namespace.delete("aexp", "hunt-t0000")
        held = False
        found = namespace.wait_for("aexp", "hunt", "complete", phase("Complete"))["sweep"]
    assert found["complete"] == 2
    assert found["removedGpuHours"] > GPUS * 2 / 3600
    assert found["gpuHours"] == pytest.approx(found["removedGpuHours"] + sum(map(hours, trials(namespace))))
