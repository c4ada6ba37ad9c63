"""The two samples in real pods: the results that `make demo` shows are exact."""

import io
from typing import Any

import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from support.demo import DemoNamespace, sample
from support.kube import Manifest, condition, condition_is_true, kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def trained(namespace: DemoNamespace) -> Manifest:
    """The sample experiment, run to Complete."""
    namespace.apply(sample("mnist-padim"))
    return namespace.wait_until_complete("aexp", "mnist-padim")


@pytest.fixture(scope="module")
def inferred(namespace: DemoNamespace, trained: Manifest) -> Manifest:
    """The sample inference over that model, run to Complete."""
    namespace.apply(sample("mnist-inference"))
    return namespace.wait_until_complete("ainf", "mnist-inference")


def table(namespace: DemoNamespace, resource: Manifest) -> dict[str, list[Any]]:
    content = namespace.s3.read(resource["status"]["artifacts"]["predictions"])
    columns: dict[str, list[Any]] = pq.read_table(io.BytesIO(content)).to_pydict()
    return columns


def labelled(predictions: dict[str, list[Any]]) -> tuple[list[bool], list[float]]:
    pairs = [
        (label != "good", score)
        for label, score in zip(predictions["label"], predictions["score"], strict=True)
        if label != "unknown"
    ]
    return [defect for defect, _ in pairs], [score for _, score in pairs]


@pytest.mark.parametrize("resource", ["trained", "inferred"])
def test_metrics_in_status_are_those_of_the_published_predictions(
    namespace: DemoNamespace, resource: str, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(resource)
    defects, scores = labelled(table(namespace, run))
    threshold = run["status"]["thresholds"]["image"]
    metrics = run["status"]["metrics"]["image"]
    assert metrics["AUROC"] == pytest.approx(roc_auc_score(defects, scores), abs=1e-9)
    assert metrics["F1Score"] == pytest.approx(f1_score(defects, [s >= threshold for s in scores]), abs=1e-9)


def test_real_weights_tell_nines_from_other_digits(trained: Manifest) -> None:
    assert trained["status"]["metrics"]["image"]["AUROC"] > 0.9


def test_status_is_complete_in_every_part(trained: Manifest) -> None:
    status = trained["status"]
    assert status["phase"] == "Complete"
    assert status["observedGeneration"] == trained["metadata"]["generation"]
    assert not condition_is_true(status, "Reconciling")
    assert not condition_is_true(status, "Stalled")
    assert status["images"] == {
        "train": 100,
        "validation": 0,
        "predicted": 1000,
        "anomalous": status["images"]["anomalous"],
        "unreadable": 0,
    }
    assert status["stage"] == "done"
    # The sample asks for a GPU, so that its data is looked at first.
    assert [step["name"] for step in status["steps"]] == ["check"]
    assert status["attempts"] == 2
    assert condition_is_true(status, "DataReady")
    assert status["startTime"] < status["completionTime"]
    assert condition(status, "Complete")["reason"] == "Complete"


def test_kubectl_get_shows_the_result(namespace: DemoNamespace, trained: Manifest) -> None:
    header, row = namespace.kubectl("get", "aexp", "mnist-padim").splitlines()
    assert header.split() == ["NAME", "PHASE", "MODEL", "AUROC", "F1", "PROGRESS", "AGE"]
    assert row.split()[1:4] == ["Complete", "padim", trained["status"]["display"]["auroc"]]


def test_every_artifact_is_where_status_says(namespace: DemoNamespace, trained: Manifest) -> None:
    artifacts = trained["status"]["artifacts"]
    for uri in (artifacts["report"], artifacts["model"], artifacts["exports"]["onnx"], artifacts["predictions"]):
        assert len(namespace.s3.read(uri)) > 100
    wrong = sum(table(namespace, trained)["wrong"])
    pictures = namespace.s3.keys(artifacts["visualizations"])
    assert len([key for key in pictures if key.endswith((".png", ".jpg"))]) == wrong > 0


def test_mlflow_has_the_same_metrics_and_names_the_resource(namespace: DemoNamespace, trained: Manifest) -> None:
    run = namespace.mlflow.run(trained["status"]["mlflow"]["runId"])
    assert run["info"]["status"] == "FINISHED"
    assert {"key": "anomalyops.io/uid", "value": trained["metadata"]["uid"]} in run["data"]["tags"]
    logged = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    image = trained["status"]["metrics"]["image"]
    assert {logged[f"image_{name}"] for name in image} == set(image.values())


def test_unknown_images_are_scored_and_not_counted(namespace: DemoNamespace, inferred: Manifest) -> None:
    predictions = table(namespace, inferred)
    assert predictions["label"].count("unknown") > 0
    assert len(predictions["label"]) == inferred["status"]["images"]["predicted"]


def test_the_pod_was_confined_and_asked_for_a_gpu(namespace: DemoNamespace, trained: Manifest) -> None:
    job = namespace.get("job", trained["status"]["jobName"])
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["automountServiceAccountToken"] is False
    labels = kubectl("get", "namespace", namespace.name, "-o", "jsonpath={.metadata.labels}")
    assert '"pod-security.kubernetes.io/enforce":"restricted"' in labels


def test_no_secret_is_in_status_logs_or_report(namespace: DemoNamespace, trained: Manifest, inferred: Manifest) -> None:
    told = [str(trained), str(inferred), namespace.logs()]
    told += [namespace.s3.read(run["status"]["artifacts"]["report"]).decode() for run in (trained, inferred)]
    assert not [text for text in told if namespace.s3.secret_key in text]


def test_the_same_yaml_without_a_cluster_gives_the_same_numbers(trained: Manifest, local_run: Manifest) -> None:
    local, remote = local_run["summary"]["metrics"], trained["status"]["metrics"]
    assert (local["image"], local["pixel"]) == (remote["image"], remote["pixel"])
    assert local["performance"]["modelBytes"] == remote["performance"]["modelBytes"]
    assert local_run["summary"]["thresholds"] == trained["status"]["thresholds"]
