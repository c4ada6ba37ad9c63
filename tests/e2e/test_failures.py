"""Runs that fail: the status says what happened, nothing is left behind, nothing is lost.

Runs that need nothing of each other begin at the same time: most of what a pod takes is its start.
"""

from collections.abc import Callable

import pytest

from support.demo import DemoNamespace, small_experiment
from support.kube import KubectlError, Manifest, condition, condition_is_true

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SECONDS = 600
MIRROR = "http://s3.anomaly-demo.svc:7070/data/mirror"


def torn(namespace: DemoNamespace) -> Manifest:
    """Return an experiment with a broken image."""
    namespace.s3.copy("s3://data/small/", "s3://data/broken/")
    [whole, *_] = namespace.s3.keys("s3://data/broken/test/good/")
    namespace.s3.write("s3://data/broken/test/good/torn.png", namespace.s3.read(f"s3://data/{whole}")[:100])
    return small_experiment("torn", category="broken")


def tolerant(namespace: DemoNamespace) -> Manifest:
    """Return an experiment with a broken image, of which one is allowed."""
    namespace.s3.write("s3://data/tolerated/test/good/torn.png", b"not an image at all")
    namespace.s3.copy("s3://data/small/", "s3://data/tolerated/")
    experiment = small_experiment("tolerant", category="tolerated")
    experiment["spec"]["dataset"]["limits"] = {"maxUnreadableImages": 1}
    return experiment


def builtin(namespace: DemoNamespace) -> Manifest:
    """Return an experiment on a public dataset, from a mirror without its files."""
    experiment = small_experiment("builtin")
    source = {"builtin": {"name": "mnist", "goodLabel": 9, "limit": 10, "mirror": MIRROR}}
    experiment["spec"]["dataset"] = {"source": source, "task": "classification"}
    return experiment


def denied(namespace: DemoNamespace) -> Manifest:
    """Return an experiment with the credentials of nobody."""
    namespace.create_secret("wrong-credentials", AWS_ACCESS_KEY_ID="nobody", AWS_SECRET_ACCESS_KEY="nothing")
    experiment = small_experiment("denied")
    experiment["spec"]["dataset"]["source"]["s3"]["credentialsSecret"] = "wrong-credentials"
    return experiment


def layers(namespace: DemoNamespace) -> Manifest:
    """Return an experiment with a layer that there is not."""
    experiment = small_experiment("layers")
    experiment["spec"]["model"]["padim"]["layers"] = ["layer1", "layer9"]
    return experiment


def weights(namespace: DemoNamespace) -> Manifest:
    """Return an experiment whose weights are not where it says."""
    experiment = small_experiment("weights")
    experiment["spec"]["model"]["padim"]["preTrained"] = True
    experiment["spec"]["model"]["weights"] = {"s3": experiment["spec"]["output"]["s3"] | {"uri": "s3://weights"}}
    return experiment


MADE: tuple[Callable[[DemoNamespace], Manifest], ...] = (torn, tolerant, builtin, denied, layers, weights)


@pytest.fixture(scope="module")
def begun(namespace: DemoNamespace) -> None:
    """Experiments that end by themselves have just been applied."""
    namespace.apply(small_experiment("no-data", category="nowhere"), *(make(namespace) for make in MADE))


def failure(namespace: DemoNamespace, name: str) -> tuple[str, str]:
    """Wait until a run has failed, and return reason and message."""
    status = namespace.wait_for("aexp", name, "Failed", lambda status: condition_is_true(status, "Failed"), SECONDS)
    assert status["phase"] == "Failed"
    assert condition_is_true(status, "Stalled")
    assert not condition_is_true(status, "Complete")
    failed = condition(status, "Failed")
    return failed["reason"], failed["message"]


def test_missing_data_names_the_folder_and_is_not_retried(namespace: DemoNamespace, begun: None) -> None:
    reason, message = failure(namespace, "no-data")
    assert reason == "DataInvalid"
    assert "nowhere" in message
    assert "train/good" in message
    assert namespace.status("aexp", "no-data")["attempts"] == 1


def test_a_broken_image_is_named(namespace: DemoNamespace, begun: None) -> None:
    reason, message = failure(namespace, "torn")
    assert reason == "DataInvalid"
    assert "test/good/torn.png" in message


def test_a_broken_image_within_the_limit_is_skipped_and_counted(namespace: DemoNamespace, begun: None) -> None:
    status = namespace.wait_until_complete("aexp", "tolerant", SECONDS)["status"]
    assert status["images"]["unreadable"] == 1


def test_a_mirror_of_a_public_dataset_that_lacks_its_files_is_named(namespace: DemoNamespace, begun: None) -> None:
    reason, message = failure(namespace, "builtin")
    assert reason == "DataInvalid"
    assert f"{MIRROR}/train-images-idx3-ubyte.gz" in message


def test_wrong_credentials_are_denied_once(namespace: DemoNamespace, begun: None) -> None:
    reason, message = failure(namespace, "denied")
    assert reason == "StorageDenied"
    assert "s3://data" in message
    assert namespace.status("aexp", "denied")["attempts"] == 1


def test_a_missing_secret_is_waited_for(namespace: DemoNamespace) -> None:
    experiment = small_experiment("early")
    experiment["spec"]["dataset"]["source"]["s3"]["credentialsSecret"] = "late-credentials"
    namespace.apply(experiment)
    status = namespace.wait_for(
        "aexp",
        "early",
        "waiting for its Secret",
        lambda status: condition(status, "Reconciling").get("reason") == "SecretNotFound",
    )
    assert "late-credentials" in condition(status, "Reconciling")["message"]
    namespace.create_secret("late-credentials", **namespace.s3.credentials)
    namespace.wait_until_complete("aexp", "early")


def test_an_unknown_parameter_is_refused_before_anything_starts(namespace: DemoNamespace) -> None:
    experiment = small_experiment("typo")
    experiment["spec"]["model"]["padim"]["nFeatuers"] = 10
    with pytest.raises(KubectlError, match=r"spec\.model\.padim.*nFeatuers"):
        namespace.apply(experiment)


def test_an_unknown_layer_fails_at_once_and_says_which_there_are(namespace: DemoNamespace, begun: None) -> None:
    reason, message = failure(namespace, "layers")
    assert reason == "InvalidConfig"
    assert "layer9" in message
    assert "layer4" in message


def test_missing_weights_fail_with_the_path_that_was_wanted(namespace: DemoNamespace, begun: None) -> None:
    reason, message = failure(namespace, "weights")
    assert reason == "WeightsNotFound"
    assert "s3://weights/hub/models--timm--resnet18" in message


def test_a_missing_authority_is_named_and_waited_for(namespace: DemoNamespace) -> None:
    experiment = small_experiment("authority")
    experiment["spec"]["dataset"]["source"]["s3"]["caConfigMap"] = "company-ca"
    namespace.apply(experiment)
    status = namespace.wait_for(
        "aexp",
        "authority",
        "without its volume",
        lambda status: condition(status, "Reconciling").get("reason") == "VolumeUnavailable",
    )
    assert 'configmap "company-ca" not found' in condition(status, "Reconciling")["message"]
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "company-ca"}, "data": {"ca.crt": "none"}}
    namespace.apply(manifest)
    reason, message = failure(namespace, "authority")
    assert reason == "InvalidConfig", "it starts by itself, and finds that this is no certificate"
    assert "ca.crt in the caConfigMap of the dataset location holds no PEM certificates" in message


@pytest.fixture(scope="module")
def simulated_gpus(namespace: DemoNamespace) -> None:
    """Two runs that ask for a GPU have just been applied; skips where a node's GPUs are real."""
    nodes = namespace.list("nodes")
    if any("nvidia.com/gpu.product" in node["metadata"].get("labels", {}) for node in nodes):
        pytest.skip("this cluster's GPUs are real, so that nothing is missing")
    namespace.apply(with_one_gpu("no-driver"), with_one_gpu("goes-on", required=False))


def with_one_gpu(name: str, **gpus: object) -> Manifest:
    experiment = small_experiment(name)
    experiment["spec"]["scheduling"]["gpus"] = {"count": 1} | gpus
    experiment["spec"]["runPolicy"] = {"backoffLimit": 0}
    return experiment


@pytest.mark.usefixtures("simulated_gpus")
def test_a_gpu_that_cannot_be_used_ends_the_run(namespace: DemoNamespace) -> None:
    reason, message = failure(namespace, "no-driver")
    assert reason == "GpuUnavailable"
    assert "1 nvidia.com/gpu asked for by scheduling.gpus cannot be used: NVIDIA's driver is not in" in message
    assert namespace.status("aexp", "no-driver")["stage"] == "starting"


@pytest.mark.usefixtures("simulated_gpus")
def test_a_gpu_that_is_not_required_is_missed_in_status_report_and_events(namespace: DemoNamespace) -> None:
    run = namespace.wait_until_complete("aexp", "goes-on")
    device = run["status"]["device"]
    assert (device["name"], device["provider"]) == ("CPU", "torch cpu")
    assert "NVIDIA's driver is not in the container" in device["fallback"]
    assert any("cannot be used" in warning for warning in run["status"]["warnings"])
    assert namespace.report(run)["summary"]["device"] == device
    events = [event for event in namespace.list("events.events.k8s.io") if event["regarding"]["name"] == "goes-on"]
    assert ("GpuUnavailable", "Warning") in {(event["reason"], event["type"]) for event in events}


def test_more_gpus_than_any_node_has_is_reported_and_waited_for(namespace: DemoNamespace) -> None:
    experiment = small_experiment("greedy")
    experiment["spec"]["scheduling"]["gpus"] = {"count": 64}
    namespace.apply(experiment)
    status = namespace.wait_for(
        "aexp",
        "greedy",
        "unschedulable",
        lambda status: condition(status, "Reconciling").get("reason") == "Unschedulable",
    )
    assert status["phase"] == "Pending"
    assert "nvidia.com/gpu" in condition(status, "Reconciling")["message"]
    namespace.delete("aexp", "greedy")
    namespace.wait_until_empty(of="greedy")
