"""Sweeps in real pods: what a search finds and leaves, and what it survives.

Sweeps that do not need each other run at the same time, on five digits a class at 64 pixels: a pod is soon done, and
most of what it takes is its start.
"""

import copy
import io
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from support.demo import DemoNamespace, eventually, long_experiment, sample
from support.kube import Manifest, condition, condition_is_true
from support.operator import leader_killed_at_each
from support.sweep_player import values_of

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SECONDS = 900
TRIALS = 8
TOLERANCE = 0.02
"""Of image AUROC: the points that TPE's budget leaves out are no better than this."""
LEFT = ("sweep.html", "trials.parquet", "trials.csv", "optuna-journal.log")
UID, PARENT = "anomalyops.io/uid", "mlflow.parentRunId"
SLOW, HOPELESS = (1e-8, 1e-7), 2e-3
"""Learning rates of GANomaly: five digits teach it, in the rates' order, next to nothing and nothing good."""
EPOCHS = 16


def small(name: str, *, tracked: bool = False, **sweep: Any) -> Manifest:
    """Return the sample on few digits; tracked in an MLflow experiment of the namespace, or not at all."""
    manifest = sample("sweep-mnist")
    manifest["metadata"]["name"] = name
    spec = manifest["spec"]
    spec["dataset"]["category"] = "small"
    spec["transforms"]["inputSize"] = {"height": 64, "width": 64}
    spec["scheduling"] = {"gpus": {"count": 0}, "resources": {"requests": {"cpu": "300m", "memory": "1Gi"}}}
    spec["evaluation"] = {"visualization": {"enabled": False}}
    if tracked:
        del spec["tracking"]["mlflow"]["experimentName"]
    else:
        del spec["tracking"]
    spec["sweep"] |= sweep
    return manifest


def grid() -> list[Manifest]:
    """Return the sample's parameters on a grid of 8 points, some of them of each of its dimensions."""
    values = {
        "model.padim.layers": [["blocks.1", "blocks.2"], ["blocks.1", "blocks.2", "blocks.4"]],
        "model.padim.nFeatures": [10, 30],
        "model.patchcore.coresetSamplingRatio": [0.02, 0.1],
    }
    parameters: list[Manifest] = copy.deepcopy(sample("sweep-mnist")["spec"]["sweep"]["parameters"])
    for parameter in parameters:
        if choices := values.get(parameter["path"]):
            parameter.pop("int", None)
            parameter.pop("float", None)
            parameter["choices"] = choices
    return parameters


def halving(name: str) -> Manifest:
    """Return a sweep with a cheap look at all points, and a full one at the best, one after the other."""
    return small(
        name,
        fidelity={"path": "dataset.fraction", "values": [0.5, 1.0], "reduction": 2},
        trials={"max": 3, "parallel": 1},
        final="report",
    )


def pruned(name: str) -> Manifest:
    """Return a sweep over learning rates, of which the last falls behind the others from the first epoch on."""
    manifest = small(
        name,
        parameters=[{"path": "model.ganomaly.learningRate", "choices": [*SLOW, HOPELESS]}],
        algorithm={"name": "grid"},
        pruning={"method": "median", "afterTrials": 2, "afterEpochs": 3},
        trials={"max": 3, "parallel": 1},
        final="report",
    )
    spec = manifest["spec"]
    spec["model"] = {"name": "ganomaly", "ganomaly": {"nFeatures": 8}}
    spec["training"] = {"maxEpochs": EPOCHS, "earlyStopping": {"enabled": False}, "checkpointing": {"enabled": False}}
    return manifest


def failing(name: str) -> Manifest:
    """Return a sweep whose second and third trial find no images; one failure is tolerated."""
    categories = [{"path": "dataset.category", "choices": ["small", "nowhere", "nothing"]}]
    limits = {"max": 3, "parallel": 1, "maxFailed": 1}
    manifest = small(name, tracked=True, parameters=categories, algorithm={"name": "grid"}, trials=limits)
    manifest["spec"]["model"]["padim"] |= {"layers": ["blocks.1", "blocks.2"], "nFeatures": 20}
    return manifest


def trials(namespace: DemoNamespace, sweep: str) -> list[Manifest]:
    return namespace.list("aexp", f"anomalyops.io/sweep={sweep}")


def children(namespace: DemoNamespace, parent: Manifest) -> list[Manifest]:
    return namespace.mlflow.runs(namespace.name, PARENT, parent["info"]["run_id"])


def run_of(namespace: DemoNamespace, uid: str) -> Manifest | None:
    """Return the one run in MLflow of a resource; None before there is one, or while its pods agree on which it is."""
    found = namespace.mlflow.runs(namespace.name, UID, uid)
    return found[0] if len(found) == 1 else None


def tags(run: Manifest) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}


def best(run: Manifest) -> float:
    value: float = run["status"]["sweep"]["best"][0]["objectives"]["image.AUROC"]
    return value


@pytest.fixture(scope="module")
def begun(namespace: DemoNamespace) -> None:
    """Four sweeps have just been applied."""
    limits = {"max": TRIALS, "parallel": 3}
    tpe = small("tpe", tracked=True, trials=limits)
    namespace.apply(tpe, halving("halved"), pruned("pruned"), failing("failing"))


@pytest.fixture(scope="module")
def tpe(namespace: DemoNamespace, begun: None) -> Manifest:
    """The sample's sweep, run to Complete."""
    return namespace.wait_until_complete("aexp", "tpe", SECONDS)


@pytest.fixture(scope="module")
def searched(namespace: DemoNamespace, tpe: Manifest) -> Manifest:
    """A grid, run to Complete twice: suspended, resumed and with other limits in between."""
    limits = {"max": 5, "parallel": 2}
    namespace.apply(small("grid", parameters=grid(), algorithm={"name": "grid"}, trials=limits, final="report"))
    namespace.wait_for("aexp", "grid", "two at work", lambda status: status.get("sweep", {}).get("running") == 2)
    namespace.patch("aexp", "grid", {"spec": {"sweep": {"trials": {"parallel": 3}}}})
    namespace.wait_for("aexp", "grid", "three at work", lambda status: status["sweep"]["running"] == 3)
    namespace.patch("aexp", "grid", {"spec": {"runPolicy": {"suspend": True}}})
    namespace.wait_for("aexp", "grid", "suspended", lambda status: status["phase"] == "Suspended")
    namespace.wait_until_no_pods(of="grid")
    resumed = {"runPolicy": {"suspend": False}, "sweep": {"trials": {"parallel": 2}}}
    namespace.patch("aexp", "grid", {"spec": resumed})
    first = namespace.wait_until_complete("aexp", "grid", SECONDS)
    assert first["status"]["sweep"]["asked"] == 5
    namespace.patch("aexp", "grid", {"spec": {"sweep": {"trials": {"max": 8, "parallel": 3}}}})
    namespace.wait_for(
        "aexp",
        "grid",
        "Complete as run 2",
        lambda status: status.get("run") == 2 and condition_is_true(status, "Complete"),
        SECONDS,
        is_over=True,
    )
    return namespace.get("aexp", "grid")


def test_trials_lie_below_their_sweep_in_mlflow_from_the_first_on(namespace: DemoNamespace, begun: None) -> None:
    uid = namespace.get("aexp", "tpe")["metadata"]["uid"]
    parent = eventually(lambda: run_of(namespace, uid), "in MLflow")
    eventually(lambda: children(namespace, parent), "with a trial in MLflow")
    assert (parent["info"]["run_name"], parent["info"]["status"]) == ("tpe", "RUNNING")
    assert namespace.status("aexp", "tpe")["stage"] == "search"


def test_tpe_finds_what_the_grid_finds(tpe: Manifest, searched: Manifest) -> None:
    counts = tpe["status"]["sweep"]
    # The first layers have too few channels for many features: such points are infeasible.
    assert (counts["complete"] + counts["infeasible"], counts["failed"]) == (TRIALS, 0)
    assert best(tpe) >= best(searched) - TOLERANCE


def test_the_winner_is_trained_under_the_sweeps_name(namespace: DemoNamespace, tpe: Manifest) -> None:
    status = tpe["status"]
    winner = namespace.get("aexp", f"tpe-t{status['sweep']['best'][0]['number']:04d}")
    assert winner["status"]["metrics"]["image"]["AUROC"] == best(tpe)
    assert len(namespace.s3.read(status["artifacts"]["model"])) > 100
    assert "seed" in status["sweep"]["remeasured"]["measuredOn"]


def test_a_sweep_leaves_its_page_its_tables_and_a_journal(
    namespace: DemoNamespace, tpe: Manifest, tmp_path: Path
) -> None:
    artifacts = tpe["status"]["artifacts"]
    assert artifacts["sweep"] == f"{artifacts['root']}/sweep.html"
    page, table, rows, journal = (namespace.s3.read(f"{artifacts['root']}/{name}") for name in LEFT)
    assert f"{best(tpe):.4f}" in page.decode()
    known = {trial["metadata"]["name"]: trial["status"] for trial in trials(namespace, "tpe")}
    found = pq.read_table(io.BytesIO(table)).to_pydict()
    assert len(found["number"]) == len(rows.decode().splitlines()) - 1 == len(known) == TRIALS
    measured = {name: status["metrics"]["image"]["AUROC"] for name, status in known.items() if "metrics" in status}
    assert sorted(value for value in found["image.AUROC"] if value is not None) == sorted(measured.values())
    (tmp_path / "journal.log").write_bytes(journal)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    [study] = optuna.get_all_study_summaries(storage)
    assert study.best_trial is not None
    assert study.best_trial.value == best(tpe)


def test_the_sweeps_run_in_mlflow_ends_with_all_of_its_trials_below(namespace: DemoNamespace, tpe: Manifest) -> None:
    parent = namespace.mlflow.run(tpe["status"]["mlflow"]["runId"])
    assert (parent["info"]["status"], tags(parent)[UID]) == ("FINISHED", tpe["metadata"]["uid"])
    below = {run["info"]["run_name"]: run["info"]["status"] for run in children(namespace, parent)}
    ended = {trial["metadata"]["name"]: trial["status"]["phase"] for trial in trials(namespace, "tpe")}
    # What cannot work may be found out before MLflow is asked for.
    measured = {name for name, phase in ended.items() if phase == "Complete"}
    assert measured <= below.keys() <= ended.keys()
    assert below == {name: "FINISHED" if name in measured else "FAILED" for name in below}


def test_an_inference_names_the_sweep(namespace: DemoNamespace, tpe: Manifest) -> None:
    manifest = sample("mnist-inference")
    manifest["metadata"]["name"] = "by-sweep"
    manifest["spec"]["model"] = {"experiment": "tpe"}
    namespace.apply(manifest)
    done = namespace.wait_until_complete("ainf", "by-sweep", SECONDS)
    assert done["status"]["trainedBy"]["name"] == "tpe"
    assert done["status"]["images"]["predicted"] > 0


def test_suspended_resumed_and_extended_a_grid_is_gone_through_once(
    namespace: DemoNamespace, searched: Manifest
) -> None:
    counts = searched["status"]["sweep"]
    assert (counts["complete"] + counts["infeasible"], counts["failed"]) == (8, 0)
    assert len(set(values_of(trials(namespace, "grid")).values())) == 8
    assert [(past["run"], past["phase"]) for past in searched["status"]["history"]] == [(1, "Complete")]
    assert "model" not in searched["status"]["artifacts"]
    table = namespace.s3.read(f"{searched['status']['artifacts']['root']}/trials.parquet")
    assert pq.read_table(io.BytesIO(table)).num_rows == 8


def test_a_hopeless_trial_is_given_up_and_its_curve_is_kept(namespace: DemoNamespace, begun: None) -> None:
    done = namespace.wait_until_complete("aexp", "pruned", SECONDS)
    ended = {trial["spec"]["model"]["ganomaly"]["learningRate"]: trial for trial in trials(namespace, "pruned")}
    last = {rate: trial["status"]["curve"]["epochs"][-1] for rate, trial in ended.items()}
    assert condition(ended[HOPELESS]["status"], "Complete")["reason"] == "Pruned"
    assert 3 < last[HOPELESS] < EPOCHS
    assert [last[rate] for rate in SLOW] == [EPOCHS, EPOCHS]
    counts = done["status"]["sweep"]
    assert (counts["complete"], counts["pruned"], counts["failed"]) == (2, 1, 0)


def test_a_sweep_that_fails_leaves_its_page_and_a_failed_run_in_mlflow(namespace: DemoNamespace, begun: None) -> None:
    status = namespace.wait_for(
        "aexp", "failing", "Failed", lambda status: condition_is_true(status, "Failed"), seconds=SECONDS
    )
    assert condition(status, "Failed")["reason"] == "TrialsFailed"
    assert "DataInvalid (2 x)" in condition(status, "Failed")["message"]
    page = namespace.s3.read(status["artifacts"]["sweep"]).decode()
    assert "The search failed, TrialsFailed" in page
    assert "nowhere" in page
    parent = namespace.mlflow.run(status["mlflow"]["runId"])
    assert parent["info"]["status"] == "FAILED"
    assert "DataInvalid (2 x)" in tags(parent)["anomalyops.io/failure"]
    assert Counter(run["info"]["status"] for run in children(namespace, parent))["RUNNING"] == 0


def test_the_very_same_trials_although_the_operator_is_killed(namespace: DemoNamespace, begun: None) -> None:
    undisturbed = namespace.wait_until_complete("aexp", "halved", SECONDS)
    with leader_killed_at_each(lambda: {trial["metadata"]["name"] for trial in trials(namespace, "again")}) as killed:
        namespace.apply(halving("again"))
        done = namespace.wait_until_complete("aexp", "again", SECONDS)
    assert len(killed) >= len(trials(namespace, "again")) - 1
    assert measurements(namespace, "again") == measurements(namespace, "halved")
    assert done["status"]["sweep"]["best"] == undisturbed["status"]["sweep"]["best"]
    rungs = Counter(rung for _, rung, *_ in measurements(namespace, "halved"))
    # The best half of those measured so far goes on, so that one may that is none of the best at the end.
    assert rungs[0] == 3
    assert 1 <= rungs[1] < 3


def measurements(namespace: DemoNamespace, sweep: str) -> list[tuple[int, int, str, float | None]]:
    """Return number, rung, values and image AUROC of each trial."""
    found = []
    for trial in trials(namespace, sweep):
        which, metrics = trial["spec"]["trial"], trial["status"].get("metrics", {})
        value = metrics.get("image", {}).get("AUROC")
        found.append((which["number"], which.get("rung", 0), str(sorted(which["values"].items())), value))
    return sorted(found)


def test_a_sweep_deleted_in_mid_run_leaves_nothing_at_work(namespace: DemoNamespace) -> None:
    manifest = long_experiment("doomed")
    manifest["spec"]["tracking"] = small("doomed", tracked=True)["spec"]["tracking"]
    manifest["spec"]["sweep"] = {
        "parameters": [{"path": "model.padim.nFeatures", "int": {"low": 10, "high": 100}}],
        "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
        "trials": {"max": 8, "parallel": 2},
    }
    namespace.apply(manifest)
    uid = namespace.get("aexp", "doomed")["metadata"]["uid"]
    parent = eventually(lambda: run_of(namespace, uid), "in MLflow")
    eventually(lambda: len(children(namespace, parent)) >= 2, "with two trials in MLflow")
    namespace.delete("aexp", "doomed")
    namespace.wait_until_empty(of="doomed")
    eventually(lambda: not trials(namespace, "doomed"), "without trials", seconds=60)

    def status() -> str:
        found: str = namespace.mlflow.run(parent["info"]["run_id"])["info"]["status"]
        return found

    eventually(lambda: status() == "KILLED", "over in MLflow", seconds=60)
    assert {run["info"]["status"] for run in children(namespace, parent)} <= {"KILLED", "FINISHED"}
