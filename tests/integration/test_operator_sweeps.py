"""Sweeps on a real API server, with played pods: whatever happens, the same trials, none twice, none too many."""

import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from anomaly_api.reasons import Reason
from anomaly_api.run import ProgressUpdate, RunIdentity, RunSummary
from anomaly_api.status import Curve, MetricValues, Progress, Stage
from support.fake_kubelet import active_pod, inference, mark_ended, mark_running
from support.hunt import at_work, phase, score, sweep, trials
from support.kube import KubectlError, Namespace, condition, condition_is_true
from support.process import OperatorProcess
from support.progress import progress_token, push
from support.sweep_player import HELD, SweepPlayer, values_of

pytestmark = pytest.mark.cluster


def test_the_best_is_found_and_trained_under_the_sweeps_name(namespace: Namespace, operator: OperatorProcess) -> None:
    with SweepPlayer(namespace.name, score) as player:
        namespace.apply(sweep(), inference("look", model={"experiment": "hunt"}))
        done = namespace.wait_for("aexp", "hunt", "complete", phase("Complete"))
        namespace.wait_for("ainf", "look", "complete", lambda status: status.get("phase") == "Complete")
    found = done["sweep"]
    assert (found["asked"], found["complete"], found["running"], found["failed"]) == (12, 12, 0, 0)
    assert found["stopReason"] == "MaxTrials"
    objectives = {
        trial["spec"]["trial"]["number"]: trial["status"]["metrics"]["image"]["AUROC"] for trial in trials(namespace)
    }
    assert len(objectives) == 12
    winner = max(objectives, key=lambda number: (objectives[number], -number))
    assert found["best"][0]["number"] == winner
    assert [best["objectives"]["image.AUROC"] for best in found["best"]] == sorted(objectives.values(), reverse=True)[
        :10
    ]
    told, one = player.configs["hunt"], player.configs["hunt-t0000"]
    assert told.sweep
    assert told.experiment
    assert one.experiment
    assert told.experiment.sweep is None
    written = told.experiment.model.to_json_object()["padim"]["nFeatures"]
    assert written == found["best"][0]["values"]["model.padim.nFeatures"]
    # Measured again on a seed that no trial used.
    assert told.experiment.dataset.seed == one.experiment.dataset.seed + 1
    again = found["remeasured"]
    assert again["objectives"]["image.AUROC"] == 1.0
    assert again["gap"]["image.AUROC"] == pytest.approx(objectives[winner] - 1.0)
    assert "seed" in again["measuredOn"]
    made = namespace.get("aexp", "hunt-t0003")
    assert made["metadata"]["labels"] == {"anomalyops.io/sweep": "hunt", "anomalyops.io/trial": "3"}
    assert made["spec"]["output"]["uploadArtifacts"] is False
    assert "kubectl.kubernetes.io/last-applied-configuration" not in made["metadata"].get("annotations", {})
    assert namespace.status("ainf", "look")["trainedBy"]["name"] == "hunt"


@pytest.mark.own_operator
def test_the_same_trials_although_the_operator_is_killed(namespace: Namespace, operator: OperatorProcess) -> None:
    one_by_one = {"max": 6, "parallel": 1}
    with SweepPlayer(namespace.name, score):
        namespace.apply(sweep(trials=one_by_one))
        namespace.wait_for("aexp", "hunt", "complete", phase("Complete"))
        expected = values_of(trials(namespace))
        namespace.delete("aexp", "hunt")
        killing = threading.Event()
        killer = threading.Thread(target=kill_every_few_seconds, args=(operator, killing), daemon=True)
        namespace.apply(sweep(trials=one_by_one))
        killer.start()
        namespace.wait_for("aexp", "hunt", "complete", phase("Complete"))
        killing.set()
        killer.join()
    assert values_of(trials(namespace)) == expected
    jobs = [job["metadata"]["name"] for job in namespace.list("jobs")]
    assert sorted(jobs) == sorted({f"hunt-t{number:04}-experiment" for number in range(6)} | {"hunt-experiment"})


def kill_every_few_seconds(operator: OperatorProcess, stop: threading.Event) -> None:
    while not stop.wait(4):
        operator.kill()
        operator.forget_lease()
        operator.start()


def test_a_deleted_trial_runs_again(namespace: Namespace, operator: OperatorProcess) -> None:
    held = True

    def slow(values: Mapping[str, Any]) -> float:
        return HELD if held else score(values)

    with SweepPlayer(namespace.name, slow):
        namespace.apply(sweep(trials={"max": 2, "parallel": 2}))
        namespace.wait_for("aexp", "hunt", "at work", lambda status: status.get("sweep", {}).get("asked") == 2)
        before = values_of(trials(namespace))
        namespace.delete("aexp", "hunt-t0000")
        held = False
        done = namespace.wait_for("aexp", "hunt", "complete", phase("Complete"))
    assert done["sweep"]["complete"] == 2
    assert values_of(trials(namespace)) == before


def test_out_of_memory_teaches_and_does_not_count_as_failed(namespace: Namespace, operator: OperatorProcess) -> None:
    def end(values: Mapping[str, Any]) -> float | Reason:
        return Reason.OUT_OF_MEMORY if values.get("model.padim.nFeatures", 0) > 40 else score(values)

    with SweepPlayer(namespace.name, end):
        namespace.apply(sweep(trials={"max": 12, "parallel": 3, "maxFailed": 0}))
        done = namespace.wait_for("aexp", "hunt", "complete", phase("Complete"))
    found = done["sweep"]
    assert found["infeasible"] > 0
    assert found["infeasible"] + found["complete"] == 12
    assert found["failed"] == 0


def test_limits_change_while_it_runs_and_after_its_end(namespace: Namespace, operator: OperatorProcess) -> None:
    held = True

    def slow(values: Mapping[str, Any]) -> float:
        return HELD if held and values else score(values)

    with SweepPlayer(namespace.name, slow):
        namespace.apply(sweep(trials={"max": 6, "parallel": 2}))
        namespace.wait_for("aexp", "hunt", "two at work", lambda status: status.get("sweep", {}).get("running") == 2)
        with pytest.raises(KubectlError, match=r"spec.sweep cannot change while the run is at work"):
            namespace.patch("aexp", "hunt", {"spec": {"sweep": {"algorithm": {"seed": 8}}}})
        namespace.patch("aexp", "hunt", {"spec": {"sweep": {"trials": {"parallel": 4}}}})
        namespace.wait_for("aexp", "hunt", "four at work", lambda status: status["sweep"]["running"] == 4)
        namespace.patch("aexp", "hunt", {"spec": {"sweep": {"trials": {"parallel": 1}}}})
        time.sleep(3)
        assert at_work(namespace) == 4, "fewer at a time stops none"
        held = False
        done = namespace.wait_for("aexp", "hunt", "complete", phase("Complete"))
        assert done["sweep"]["complete"] == 6
        first = values_of(trials(namespace))
        namespace.patch("aexp", "hunt", {"spec": {"sweep": {"trials": {"max": 8}}}})
        more = namespace.wait_for("aexp", "hunt", "complete again", phase("Complete", run=2), is_over=True)
    assert more["sweep"]["complete"] == 8
    assert more["history"][0]["run"] == 1
    assert first.items() <= values_of(trials(namespace)).items()
    assert {job["metadata"]["name"] for job in namespace.list("jobs")} >= {"hunt-experiment", "hunt-experiment-2"}


def test_suspended_and_resumed(namespace: Namespace, operator: OperatorProcess) -> None:
    held = True

    def slow(values: Mapping[str, Any]) -> float:
        return HELD if held else score(values)

    with SweepPlayer(namespace.name, slow):
        namespace.apply(sweep(trials={"max": 4, "parallel": 2}))
        namespace.wait_for("aexp", "hunt", "at work", lambda status: status.get("sweep", {}).get("running") == 2)
        namespace.patch("aexp", "hunt", {"spec": {"runPolicy": {"suspend": True}}})
        suspended = namespace.wait_for("aexp", "hunt", "suspended", phase("Suspended"))
        assert condition_is_true(suspended, "Suspended")
        assert all(trial["spec"]["runPolicy"]["suspend"] for trial in trials(namespace))
        held = False
        namespace.patch("aexp", "hunt", {"spec": {"runPolicy": {"suspend": False}}})
        done = namespace.wait_for("aexp", "hunt", "complete", phase("Complete"))
    assert done["sweep"]["complete"] == 4


def test_deleted_in_mid_run_nothing_is_left(namespace: Namespace, operator: OperatorProcess) -> None:
    with SweepPlayer(namespace.name, lambda _: HELD):
        namespace.apply(sweep())
        namespace.wait_for("aexp", "hunt", "at work", lambda status: status.get("sweep", {}).get("running") == 3)
        namespace.delete("aexp", "hunt")
        operator.wait_until(lambda: not namespace.list("aexp") and not namespace.list("jobs"), "all gone")
        time.sleep(3)
        assert namespace.list("aexp") == namespace.list("jobs") == []


def test_what_cannot_work_is_refused_at_once(namespace: Namespace, operator: OperatorProcess) -> None:
    parameters = [{"path": "model.padim.nFeaturs", "int": {"low": 1, "high": 64}}]
    namespace.apply(sweep(parameters=parameters))
    status = namespace.wait_for("aexp", "hunt", "refused", lambda found: condition_is_true(found, "Stalled"))
    assert condition(status, "Stalled")["reason"] == "SpecInvalid"
    assert "nFeatures" in condition(status, "Stalled")["message"]
    assert len(namespace.list("aexp")) == 1


def test_a_report_alone(namespace: Namespace, operator: OperatorProcess) -> None:
    with SweepPlayer(namespace.name, score) as player:
        namespace.apply(sweep(trials={"max": 3, "parallel": 3}, final="report"))
        namespace.wait_for("aexp", "hunt", "complete", phase("Complete"))
    assert player.configs["hunt"].step == "report"
    assert player.configs["hunt"].sweep


def test_checked_once_before_any_trial(namespace: Namespace, operator: OperatorProcess) -> None:
    with SweepPlayer(namespace.name, score) as player:
        namespace.apply(sweep(policy={"preflight": "Always"}, trials={"max": 2, "parallel": 2}))
        done = namespace.wait_for("aexp", "hunt", "complete", phase("Complete"))
    assert [step["name"] for step in done["steps"]] == ["check", "search"]
    assert condition_is_true(done, "DataReady")
    assert "hunt-experiment-check" in {job["metadata"]["name"] for job in namespace.list("jobs")}
    assert player.configs["hunt"].sweep


def test_another_space_is_another_search_that_begins_with_the_best(
    namespace: Namespace, operator: OperatorProcess
) -> None:
    with SweepPlayer(namespace.name, score):
        namespace.apply(sweep(trials={"max": 4, "parallel": 2}))
        first = namespace.wait_for("aexp", "hunt", "complete", phase("Complete"))
        best = first["sweep"]["best"][0]["values"]
        other = [{"path": "model.padim.nFeatures", "int": {"low": 1, "high": 80}}]
        namespace.patch("aexp", "hunt", {"spec": {"sweep": {"parameters": other}}})
        second = namespace.wait_for("aexp", "hunt", "complete again", phase("Complete", run=2), is_over=True)
    assert second["sweep"]["asked"] == 4
    assert second["sweep"]["searchRun"] == 2
    made = {trial["metadata"]["name"]: trial["spec"]["trial"]["values"] for trial in trials(namespace)}
    assert len(made) == 8
    assert made["hunt-s2-t0000"] == best


def test_a_trial_that_falls_behind_is_told_to_stop(namespace: Namespace, operator: OperatorProcess) -> None:
    """Two trials with good curves; the third one's is behind their median, and its push is answered."""
    curves = {0: (0.8, 0.9), 1: (0.7, 0.8)}
    parameters = [{"path": "model.fastflow.flowSteps", "int": {"low": 1, "high": 16}}]
    manifest = sweep(
        parameters=parameters,
        algorithm={"name": "random", "seed": 1},
        pruning={"method": "median", "afterTrials": 2, "afterEpochs": 1},
        trials={"max": 3, "parallel": 1},
    )
    manifest["spec"]["model"] = {"name": "fastflow"}
    namespace.apply(manifest)
    for number, values in curves.items():
        curve = Curve(metric="imageAUROC", epochs=(1, 2), values=values)
        summary = RunSummary(
            reason=Reason.COMPLETE, stage=Stage.DONE, metrics=MetricValues(image={"AUROC": values[1]}), curve=curve
        )
        mark_ended(namespace, active_pod(namespace, f"hunt-t{number:04}-experiment"), summary)
    pod = active_pod(namespace, "hunt-t0002-experiment")
    mark_running(namespace, pod)
    uid = namespace.get("aexp", "hunt-t0002")["metadata"]["uid"]
    run = RunIdentity(kind="AnomalyExperiment", namespace=namespace.name, name="hunt-t0002", uid=uid)
    token = progress_token(namespace, pod)
    answers = [
        push(operator, token, ProgressUpdate(run=run, stage=Stage.TRAIN, progress=Progress(), curve=curve))
        for curve in (
            Curve(metric="imageAUROC", epochs=(1,), values=(0.1,)),  # too early
            Curve(metric="imageAUROC", epochs=(1, 2), values=(0.1, 0.95)),  # better than both
            Curve(metric="imageAUROC", epochs=(1, 2), values=(0.1, 0.2)),
        )
    ]
    assert [answer.body.get("stop") for answer in answers] == [None, None, "Pruned"]
    assert "median" in answers[2].body["message"]
    pruned = RunSummary(reason=Reason.PRUNED, stage=Stage.TRAIN, message="behind the median")
    mark_ended(namespace, pod, pruned)
    done = namespace.wait_for("aexp", "hunt-t0002", "complete", lambda status: status.get("phase") == "Complete")
    assert condition(done, "Complete")["reason"] == "Pruned"
    counts = namespace.wait_for("aexp", "hunt", "told", lambda status: status["sweep"]["pruned"] == 1)["sweep"]
    assert (counts["complete"], counts["pruned"], counts["failed"]) == (2, 1, 0)


@pytest.mark.own_operator
def test_a_restart_over_a_finished_sweep_writes_nothing(namespace: Namespace, operator: OperatorProcess) -> None:
    with SweepPlayer(namespace.name, score):
        limits = {"max": 60, "parallel": 20}
        began = time.monotonic()
        namespace.apply(sweep(trials=limits, algorithm={"name": "random"}, final="report"))
        namespace.wait_for("aexp", "hunt", "complete", phase("Complete"), seconds=400)
    assert len(trials(namespace)) == 60
    # A trial is made and its Job, and it is told that no node suits its pod, that it runs, and how it ended; of the
    # sweep itself something is told once a second at most. The Job of its report and Events are the rest.
    assert operator.writes() <= 5 * 60 + (time.monotonic() - began) + 12
    operator.stop()
    operator.start()
    operator.wait_until(lambda: operator.leads, "leading")
    time.sleep(5)
    assert operator.writes() == 0
