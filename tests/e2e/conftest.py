"""The operator, S3 and MLflow installed as the demo installs them, and a new namespace per module."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hack.demo import flow, install
from hack.demo.cluster import forwarded, kubectl
from hack.demo.digits import write_mnist_folders
from support.absent import absent
from support.demo import SAMPLES, DemoNamespace, MlflowService, S3Service
from support.kube import Manifest

SMALL = "s3://data/small"


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with digits of the samples, five per class."""
    folder = tmp_path_factory.mktemp("small")
    write_mnist_folders(folder, per_class=5)
    return folder


@pytest.fixture(scope="session")
def installed(digits: Path) -> Iterator[tuple[S3Service, MlflowService]]:
    """Everything that the samples need, data included."""
    if not os.environ.get("KUBECONFIG"):
        absent("no cluster: set KUBECONFIG, or run `make test-e2e`, which starts one")
    install.install_services()
    install.install_operator()
    with forwarded("s3", 7070, install.NAMESPACE) as s3, forwarded("mlflow", 5000, install.NAMESPACE) as mlflow:
        bucket = S3Service(s3, install.credentials())
        flow.upload_data(bucket.client)
        for path in sorted(digits.rglob("*.png")):
            bucket.write(f"{SMALL}/{path.relative_to(digits).as_posix()}", path.read_bytes())
        yield bucket, MlflowService(mlflow)


@pytest.fixture(scope="module")
def namespace(installed: tuple[S3Service, MlflowService]) -> Iterator[DemoNamespace]:
    """A namespace under restricted pod security, deleted afterwards with everything in it."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl(
        "apply",
        "-f",
        "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
    )
    bucket, mlflow = installed
    namespace = DemoNamespace(name, bucket, mlflow)
    namespace.create_secret("s3-credentials", **bucket.credentials)
    yield namespace
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def local_run(installed: tuple[S3Service, MlflowService], tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """report.json of the sample experiment, run without a cluster on the same images and weights."""
    folder = tmp_path_factory.mktemp("local")
    flow.prepare_data(folder / "data", folder / "weights")
    command = [sys.executable, "-m", "anomaly_runner", "run", str(SAMPLES / "mnist-padim.yaml"), "--local", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [report] = (folder / "results").rglob("report.json")
    content: Manifest = yaml.safe_load(report.read_text())
    return content
