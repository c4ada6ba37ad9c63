"""A public dataset from a mirror inside the cluster, and training on several devices, in real pods."""

import hashlib

import pytest

from support.demo import DemoNamespace, sample
from support.kube import Manifest
from support.public_datasets import mnist_files

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

MIRROR = "mirror"
GOOD, LEARNT, EPOCHS, BATCH = 9, 20, 2, 4


@pytest.fixture(scope="module")
def mirror(namespace: DemoNamespace) -> Manifest:
    """A public bucket with fewer digits than MNIST; the value is the dataset's fields that name it."""
    files = mnist_files()
    namespace.s3.create(MIRROR)
    namespace.s3.publish(MIRROR)
    for name, content in files.items():
        namespace.s3.write(f"s3://{MIRROR}/{name}", content)
    digests = {name: f"sha256:{hashlib.sha256(content).hexdigest()}" for name, content in files.items()}
    return {"mirror": f"http://s3.anomaly-demo.svc:7070/{MIRROR}", "digests": digests}


@pytest.fixture(scope="module")
def trained(namespace: DemoNamespace, mirror: Manifest) -> Manifest:
    """The sample on two processes with CPUs instead of GPUs, run to Complete."""
    manifest = sample("mnist-fastflow")
    spec = manifest["spec"]
    spec["dataset"]["source"]["builtin"] |= mirror
    spec["transforms"]["inputSize"] = {"height": 64, "width": 64}
    spec["training"] |= {"maxEpochs": EPOCHS, "trainBatchSize": BATCH}
    spec["scheduling"] = {"gpus": {"count": 0}, "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}}}
    namespace.apply(manifest)
    return namespace.wait_until_complete("aexp", "mnist-fastflow")


def test_its_images_are_those_of_the_mirror(trained: Manifest) -> None:
    images = trained["status"]["images"]
    assert (images["train"], images["predicted"]) == (LEARNT, 150)


def test_two_devices_share_the_steps(namespace: DemoNamespace, trained: Manifest) -> None:
    training = namespace.report(trained)["training"]
    assert training["devices"] == 2
    assert training["epochs"] == EPOCHS
    assert training["steps"] == EPOCHS * LEARNT // BATCH
