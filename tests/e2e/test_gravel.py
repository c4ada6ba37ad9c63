"""Segmentation in real pods: masks, a valid area, every export, and training that a killed pod does not lose."""

import io
from typing import Any

import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from support.demo import DemoNamespace, sample
from support.kube import Manifest
from support.pages import external_addresses

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


EPOCHS, BLOCKS = 6, 2
"""Epochs, and half of the sample's coupling blocks, with which each takes at least ten seconds in a pod."""


def predictions(namespace: DemoNamespace, run: Manifest) -> dict[str, list[Any]]:
    """Return the table of a run's predictions, by column."""
    table: dict[str, list[Any]] = pq.read_table(
        io.BytesIO(namespace.s3.read(run["status"]["artifacts"]["predictions"]))
    ).to_pydict()
    return table


def scores(table: dict[str, list[Any]]) -> dict[str, float]:
    return dict(zip(table["path"], table["score"], strict=True))


def assert_same_scores(trained: dict[str, float], inferred: dict[str, float]) -> None:
    """Check that the test images, and no others, have the scores of the training."""
    assert len(trained) == 34
    assert inferred.keys() == trained.keys(), "nothing of train/ and val/"
    for path, score in trained.items():
        assert inferred[path] == pytest.approx(score, rel=1e-4)


@pytest.fixture(scope="module")
def patchcore(namespace: DemoNamespace) -> Manifest:
    """The sample experiment, run to Complete."""
    namespace.apply(sample("gravel-patchcore"))
    return namespace.wait_until_complete("aexp", "gravel-patchcore")


@pytest.fixture(scope="module")
def inferred(namespace: DemoNamespace, patchcore: Manifest) -> Manifest:
    """The sample inference with its TorchScript export, run to Complete."""
    namespace.apply(sample("gravel-inference"))
    return namespace.wait_until_complete("ainf", "gravel-inference")


@pytest.fixture(scope="module")
def resumed(namespace: DemoNamespace) -> Manifest:
    """The gradient-trained sample, run to Complete although its pod was deleted during training."""
    manifest = sample("gravel-cflow")
    manifest["spec"]["training"] |= {"maxEpochs": EPOCHS, "earlyStopping": {"enabled": False}}
    manifest["spec"]["model"]["cflow"]["couplingBlocks"] = BLOCKS
    namespace.apply(manifest)
    namespace.wait_for("aexp", "gravel-cflow", "past some epochs", _is_past_some_epochs, seconds=300)
    seen = namespace.get("aexp", "gravel-cflow")["status"]["progress"]
    [item] = namespace.list("pods", "batch.kubernetes.io/job-name=gravel-cflow-experiment")
    pod = item["metadata"]["name"]
    namespace.delete("pod", pod)
    return namespace.wait_until_complete("aexp", "gravel-cflow", seconds=600) | {"seenBefore": seen}


def _is_past_some_epochs(status: Manifest) -> bool:
    progress = status.get("progress", {})
    steps = progress.get("unit") == "steps"
    return status.get("stage") == "train" and steps and progress["completed"] > 0.4 * progress["total"]


def test_pixel_metrics_and_every_export_are_there(namespace: DemoNamespace, patchcore: Manifest) -> None:
    status = patchcore["status"]
    assert set(status["metrics"]["pixel"]) == {"AUROC", "AUPR", "F1Score", "AUPRO", "IoU"}
    assert status["metrics"]["image"]["AUROC"] > 0.8
    assert status["metrics"]["pixel"]["AUROC"] > 0.9
    assert set(status["artifacts"]["exports"]) == {"onnx", "torchscript", "openvino"}
    for uri in (*status["artifacts"]["exports"].values(), status["artifacts"]["checkpoint"]):
        assert len(namespace.s3.read(uri)) > 1000


def test_every_export_was_held_against_torch(namespace: DemoNamespace, patchcore: Manifest) -> None:
    exports = namespace.report(patchcore)["exports"]
    assert {export["format"] for export in exports} == {"onnx", "torchscript", "openvino"}
    for export in exports:
        assert export["imagesCompared"] >= 30
        assert export["maxScoreDifference"] <= export["tolerance"]
        assert export["maxMapDifference"] <= export["mapTolerance"]


def test_thresholds_come_from_the_validation_images(namespace: DemoNamespace, patchcore: Manifest) -> None:
    assert namespace.report(patchcore)["thresholdsFrom"] == "validation"
    assert patchcore["status"]["images"]["validation"] == 18


def test_the_html_report_is_one_file(namespace: DemoNamespace, patchcore: Manifest) -> None:
    page = namespace.s3.read(patchcore["status"]["artifacts"]["html"]).decode()
    assert "gravel-patchcore" in page
    assert external_addresses(page) == []


def test_the_model_is_registered_in_mlflow(namespace: DemoNamespace, patchcore: Manifest) -> None:
    run_id = patchcore["status"]["mlflow"]["runId"]
    [version] = [found for found in namespace.mlflow.model_versions("gravel") if found["run_id"] == run_id]
    assert version["status"] == "READY"


def test_a_registered_model_scores_as_its_training(namespace: DemoNamespace, patchcore: Manifest) -> None:
    run_id = patchcore["status"]["mlflow"]["runId"]
    [version] = [found["version"] for found in namespace.mlflow.model_versions("gravel") if found["run_id"] == run_id]
    manifest = sample("gravel-registered")
    manifest["spec"]["model"]["mlflow"]["version"] = int(version)
    namespace.apply(manifest)
    looked = namespace.wait_until_complete("ainf", "gravel-registered")
    assert namespace.report(looked)["environment"]["model"] == f"models:/gravel/{version}"
    assert_same_scores(*(scores(predictions(namespace, run)) for run in (patchcore, looked)))


def test_torchscript_gives_the_scores_of_training(
    namespace: DemoNamespace, patchcore: Manifest, inferred: Manifest
) -> None:
    tables = [predictions(namespace, run) for run in (patchcore, inferred)]
    assert_same_scores(*map(scores, tables))
    found = zip(tables[1]["label"], tables[1]["score"], strict=True)
    known = [(label != "good", score) for label, score in found if label != "unknown"]
    expected = roc_auc_score([defect for defect, _ in known], [score for _, score in known])
    assert inferred["status"]["metrics"]["image"]["AUROC"] == pytest.approx(expected, abs=1e-9)


def test_a_custom_threshold_is_a_share_of_the_training_threshold(patchcore: Manifest, inferred: Manifest) -> None:
    trained, used = (run["status"]["thresholds"]["image"] for run in (patchcore, inferred))
    assert used == pytest.approx(1.1 * trained, rel=1e-12)
    assert inferred["status"]["thresholds"]["source"] == "custom"


def test_a_killed_pod_loses_no_epoch(namespace: DemoNamespace, resumed: Manifest) -> None:
    status, training, seen = resumed["status"], namespace.report(resumed)["training"], resumed["seenBefore"]
    assert training["epochs"] == EPOCHS
    learnt = EPOCHS * training["resumedFromStep"] / training["steps"]  # CFLOW takes several steps a batch
    assert learnt >= EPOCHS * seen["completed"] / seen["total"] - 2 > 0, "another pod went on"
    steps = [step for step, _ in training["history"]["trainLoss"]]
    assert steps == sorted(set(steps)), "no epoch was trained twice"
    assert [key for key in namespace.s3.keys(status["artifacts"]["root"]) if "checkpoint" in key] == []


def test_torch_gives_the_scores_of_training(namespace: DemoNamespace, resumed: Manifest) -> None:
    namespace.apply(sample("gravel-torch"))
    looked = namespace.wait_until_complete("ainf", "gravel-torch")
    trained, inferred = (scores(predictions(namespace, run)) for run in (resumed, looked))
    assert inferred == pytest.approx(trained, rel=1e-5)
    assert looked["status"]["metrics"]["pixel"].keys() == {"AUROC", "AUPRO", "IoU"}
    image, pixel = (looked["status"]["thresholds"][level] for level in ("image", "pixel"))
    assert image == resumed["status"]["thresholds"]["image"]
    assert pixel > 0


def test_every_epoch_was_evaluated_on_the_validation_images(namespace: DemoNamespace, resumed: Manifest) -> None:
    history = namespace.report(resumed)["training"]["history"]
    assert len(history["imageAUROC"]) == len(history["trainLoss"])
    assert all(0 <= value <= 1 for _, value in history["imageAUROC"])


@pytest.fixture(scope="module")
def good_parts(namespace: DemoNamespace) -> Manifest:
    """The sample experiment of good parts alone, run to Complete."""
    namespace.apply(sample("gravel-good-parts"))
    return namespace.wait_until_complete("aexp", "gravel-good-parts")


def test_good_parts_alone_lead_to_a_model_and_a_promise(namespace: DemoNamespace, good_parts: Manifest) -> None:
    status = good_parts["status"]
    assert status["images"] == {"train": 80, "validation": 120, "synthetic": 60, "predicted": 60} | {
        name: status["images"][name] for name in ("anomalous", "unreadable")
    }
    assert (status["metrics"]["image"], status["metrics"]["pixel"]) == ({}, {})
    assert any(warning.startswith("no labelled image is defective: image AUROC") for warning in status["warnings"])
    # One of the sixty good validation images: 0.02 * 61 = 1.22 of 61 places in order.
    promise = status["thresholds"]["falseAlarms"]
    assert (promise["goodImages"], promise["expected"]) == (60, pytest.approx(1 / 61))
    assert "synthetic" not in status["thresholds"], "no defect has a part in this threshold"
    assert status["metrics"]["synthetic"]["imageAUROC"] > 0.5
    assert set(predictions(namespace, good_parts)["label"]) == {"good"}


def test_an_inference_says_how_odd_each_part_is_among_the_good_ones(
    namespace: DemoNamespace, good_parts: Manifest
) -> None:
    manifest = sample("gravel-inference")
    manifest["metadata"]["name"] = "odd"
    manifest["spec"] |= {
        "model": {"experiment": "gravel-good-parts"},
        "runtime": "onnx",
        "threshold": {"source": "training"},
    }
    namespace.apply(manifest)
    scored = namespace.wait_until_complete("ainf", "odd")
    assert scored["status"]["thresholds"]["falseAlarms"] == good_parts["status"]["thresholds"]["falseAlarms"]
    table = predictions(namespace, scored)
    rows = list(zip(table["defect"], table["good_below"], strict=True))
    good, defective = ([share for defect, share in rows if defect is kind] for kind in (False, True))
    assert all(0 <= share <= 1 for share in table["good_below"])
    assert sum(defective) / len(defective) > sum(good) / len(good)
