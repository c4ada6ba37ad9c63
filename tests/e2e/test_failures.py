"""Runs that do not go well: the status says what happened, nothing is left behind, nothing is lost."""

import pytest

from support.experiments import Cell, small_experiment
from support.kube import KubectlError, condition, holds

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def failure(cell: Cell, name: str) -> tuple[str, str]:
    """Reason and message of a run that has to fail."""
    status = cell.wait_for("aexp", name, "Failed", lambda status: holds(status, "Failed"))
    assert status["phase"] == "Failed"
    assert holds(status, "Stalled")
    assert not holds(status, "Complete")
    failed = condition(status, "Failed")
    return failed["reason"], failed["message"]


def test_missing_data_names_the_folder_and_is_not_retried(cell: Cell) -> None:
    cell.apply(small_experiment("no-data", category="nowhere"))
    reason, message = failure(cell, "no-data")
    assert reason == "DataInvalid"
    assert "nowhere" in message
    assert "train/good" in message
    assert cell.status("aexp", "no-data")["attempts"] == 1


def test_a_broken_image_is_named(cell: Cell) -> None:
    cell.s3.copy("s3://data/small/", "s3://data/broken/")
    [whole, *_] = cell.s3.keys("s3://data/broken/test/good/")
    cell.s3.write("s3://data/broken/test/good/torn.png", cell.s3.read(f"s3://data/{whole}")[:100])
    cell.apply(small_experiment("torn", category="broken"))
    reason, message = failure(cell, "torn")
    assert reason == "DataInvalid"
    assert "test/good/torn.png" in message


def test_a_broken_image_within_the_limit_is_skipped_and_counted(cell: Cell) -> None:
    cell.s3.write("s3://data/tolerated/test/good/torn.png", b"not an image at all")
    cell.s3.copy("s3://data/small/", "s3://data/tolerated/")
    experiment = small_experiment("tolerant", category="tolerated")
    experiment["spec"]["dataset"]["limits"] = {"maxUnreadableImages": 1}
    cell.apply(experiment)
    status = cell.complete("aexp", "tolerant")["status"]
    assert status["images"]["unreadable"] == 1


def test_a_mirror_of_a_public_dataset_that_lacks_its_files_is_named(cell: Cell) -> None:
    mirror = "http://s3.anomaly-demo.svc:7070/data/mirror"
    experiment = small_experiment("builtin")
    builtin = {"name": "mnist", "goodLabel": 9, "limit": 10, "mirror": mirror}
    experiment["spec"]["dataset"] = {"source": {"builtin": builtin}, "task": "classification"}
    cell.apply(experiment)
    reason, message = failure(cell, "builtin")
    assert reason == "DataInvalid"
    assert f"{mirror}/train-images-idx3-ubyte.gz" in message


def test_wrong_credentials_are_denied_once(cell: Cell) -> None:
    cell.secret("wrong-credentials", AWS_ACCESS_KEY_ID="nobody", AWS_SECRET_ACCESS_KEY="nothing")
    experiment = small_experiment("denied")
    experiment["spec"]["dataset"]["source"]["s3"]["credentialsSecret"] = "wrong-credentials"
    cell.apply(experiment)
    reason, message = failure(cell, "denied")
    assert reason == "StorageDenied"
    assert "s3://data" in message
    assert cell.status("aexp", "denied")["attempts"] == 1


def test_a_missing_secret_is_waited_for(cell: Cell) -> None:
    experiment = small_experiment("early")
    experiment["spec"]["dataset"]["source"]["s3"]["credentialsSecret"] = "late-credentials"
    cell.apply(experiment)
    status = cell.wait_for(
        "aexp",
        "early",
        "waiting for its Secret",
        lambda status: condition(status, "Reconciling").get("reason") == "SecretNotFound",
    )
    assert "late-credentials" in condition(status, "Reconciling")["message"]
    cell.secret("late-credentials", **cell.s3.credentials)
    cell.complete("aexp", "early")


def test_an_unknown_parameter_is_refused_before_anything_starts(cell: Cell) -> None:
    experiment = small_experiment("typo")
    experiment["spec"]["model"]["padim"]["nFeatuers"] = 10
    with pytest.raises(KubectlError, match=r"spec\.model\.padim.*nFeatuers"):
        cell.apply(experiment)


def test_an_unknown_layer_fails_at_once_and_says_which_there_are(cell: Cell) -> None:
    experiment = small_experiment("layers")
    experiment["spec"]["model"]["padim"]["layers"] = ["layer1", "layer9"]
    cell.apply(experiment)
    reason, message = failure(cell, "layers")
    assert reason == "InvalidConfig"
    assert "layer9" in message
    assert "layer4" in message


def test_missing_weights_fail_with_the_path_that_was_wanted(cell: Cell) -> None:
    experiment = small_experiment("weights")
    experiment["spec"]["model"]["padim"]["preTrained"] = True
    experiment["spec"]["model"]["weights"] = {"s3": experiment["spec"]["output"]["s3"] | {"uri": "s3://weights"}}
    cell.apply(experiment)
    reason, message = failure(cell, "weights")
    assert reason == "WeightsNotFound"
    assert "s3://weights/hub/models--timm--resnet18" in message


def test_more_gpus_than_any_node_has_is_said_and_waited_for(cell: Cell) -> None:
    experiment = small_experiment("greedy")
    experiment["spec"]["scheduling"]["gpus"] = {"count": 64}
    cell.apply(experiment)
    status = cell.wait_for(
        "aexp",
        "greedy",
        "unschedulable",
        lambda status: condition(status, "Reconciling").get("reason") == "Unschedulable",
    )
    assert status["phase"] == "Pending"
    assert "nvidia.com/gpu" in condition(status, "Reconciling")["message"]
    cell.delete("aexp", "greedy")
    cell.wait_until_empty(of="greedy")
