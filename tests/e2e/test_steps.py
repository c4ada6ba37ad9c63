"""Runs of two steps and runs again, in real pods: checked, trained, repaired, repeated, and the model put to use."""

import hashlib
import json

import pytest

from support.demo import DemoNamespace, small_experiment
from support.kube import Manifest, condition, condition_is_true

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def checked(name: str) -> Manifest:
    """Return an experiment that is checked first, although it waits for no GPU."""
    manifest = small_experiment(name)
    manifest["spec"]["runPolicy"] = {"preflight": "Always"}
    manifest["spec"]["scheduling"]["resources"]["limits"] = {"memory": "4Gi"}  # what the estimate is held against
    return manifest


def inference(name: str, experiment: str) -> Manifest:
    spec = small_experiment(experiment)["spec"]
    s3 = spec["dataset"]["source"]["s3"]
    return {
        "apiVersion": "anomalyops.io/v1alpha1",
        "kind": "AnomalyInference",
        "metadata": {"name": name},
        "spec": {
            "model": {"experiment": experiment},
            "input": {"source": {"s3": s3}, "category": "small/test", "layout": "labelled"},
            "output": {"s3": s3 | {"uri": "s3://results"}},
            "scheduling": {"gpus": {"count": 0}, "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}},
        },
    }


def jobs(namespace: DemoNamespace, of: str) -> set[str]:
    names = {job["metadata"]["name"] for job in namespace.list("jobs")}
    return {name for name in names if name.startswith(f"{of}-")}


def test_what_the_check_lists_is_not_listed_again_and_a_later_run_has_a_folder_of_its_own(
    namespace: DemoNamespace,
) -> None:
    namespace.apply(checked("twice"))
    first = namespace.wait_until_complete("aexp", "twice")
    status = first["status"]
    ready = condition(status, "DataReady")
    assert ready["message"] == "5 to learn from, 50 to test on: 5 good, 45 of 9 kinds of defect"
    [step] = status["steps"]
    assert (step["name"], step["jobName"]) == ("check", "twice-experiment-check")
    root = status["artifacts"]["root"]
    listing = namespace.s3.read(f"{root}/{step['listing']['file']}")
    assert step["listing"]["sha256"] == hashlib.sha256(listing).hexdigest()
    log = namespace.kubectl("logs", "job/twice-experiment")
    assert "the files are those that the step check has listed" in log
    assert namespace.report(first)["summary"]["images"]["predicted"] == 50
    before = {key: namespace.s3.read(f"s3://results/{key}") for key in namespace.s3.keys(f"{root}/")}

    namespace.patch("aexp", "twice", {"spec": {"runPolicy": {"preflight": "Never", "rerun": "once more"}}})
    again = namespace.wait_for(
        "aexp",
        "twice",
        "Complete as run 2",
        lambda status: status.get("run") == 2 and condition_is_true(status, "Complete"),
        is_over=True,
    )
    assert jobs(namespace, "twice") == {"twice-experiment-check", "twice-experiment", "twice-experiment-2"}
    assert again["artifacts"]["root"] == f"{root}-2"
    assert [(past["run"], past["artifacts"]["root"]) for past in again["history"]] == [(1, root)]
    assert {key: namespace.s3.read(f"s3://results/{key}") for key in namespace.s3.keys(f"{root}/")} == before


def test_a_typo_fails_the_check_in_the_words_of_the_training_and_another_apply_repairs_it(
    namespace: DemoNamespace,
) -> None:
    typo, unchecked = checked("repaired"), small_experiment("unchecked")
    for manifest in (typo, unchecked):
        manifest["spec"]["model"]["padim"]["layers"] = ["layer1", "layer9"]
    namespace.apply(typo, unchecked, inference("today", "repaired"))
    failed, told = (
        namespace.wait_for("aexp", name, "Failed", lambda status: condition_is_true(status, "Failed"))
        for name in ("repaired", "unchecked")
    )
    assert condition(failed, "Failed")["reason"] == condition(failed, "DataReady")["reason"] == "InvalidConfig"
    assert "layer9" in condition(failed, "Failed")["message"]
    assert condition(failed, "Failed")["message"] == condition(told, "Failed")["message"]
    assert jobs(namespace, "repaired") == {"repaired-experiment-check"}, "the work was never asked for"

    repaired = checked("repaired")
    repaired["spec"]["export"] = {"types": ["onnx"]}
    namespace.apply(repaired)
    done = namespace.wait_for(
        "aexp",
        "repaired",
        "Complete as run 2",
        lambda status: status.get("run") == 2 and condition_is_true(status, "Complete"),
        is_over=True,
    )
    [past] = done["history"]
    assert (past["run"], past["phase"], past["reason"]) == (1, "Failed", "InvalidConfig")
    root, uid = done["artifacts"]["root"], namespace.get("aexp", "repaired")["metadata"]["uid"]
    assert root == f"s3://results/{namespace.name}/repaired/{uid}-2"

    scored = namespace.wait_until_complete("ainf", "today")
    model = namespace.s3.read(f"{root}/model.json")
    assert scored["status"]["trainedBy"] == {
        "namespace": namespace.name,
        "name": "repaired",
        "uid": uid,
        "run": 2,
        "modelDigest": hashlib.sha256(model).hexdigest(),
    }
    assert json.loads(model)["run"]["number"] == 2
