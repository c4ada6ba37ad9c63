"""Data from an HTTPS endpoint with a private CA, cached on a volume that later runs share; runs without S3."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from botocore.exceptions import EndpointConnectionError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from hack.demo import install
from hack.demo.cluster import kubectl
from hack.demo.gravel import write_gravel
from hack.demo.storage import connect, upload_folder
from hack.demo.weights import write_efficientnet_lite0
from support.certificates import issue_certificate
from support.demo import DemoNamespace, sample, small_experiment
from support.kube import Manifest, condition, condition_is_true

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SERVER = "s3-tls"
AUTHORITY = "s3-authority"
PORT = 7070
IMAGES_LEARNT, IMAGES = 5, 55
"""Training images (five nines), and all images (five per class)."""


def behind_tls() -> Manifest:
    """Return a Deployment of another S3 server like the demo's, with the certificate of the Secret s3-tls."""
    found = json.loads(kubectl("-n", install.NAMESPACE, "get", "deployment/s3", "-o", "json"))
    labels, template = {"app.kubernetes.io/name": SERVER}, found["spec"]["template"]
    template["metadata"] = {"labels": labels}
    [container] = template["spec"]["containers"]
    gateway, *arguments = container["command"]
    container["command"] = [gateway, "--cert", "/tls/ca.crt", "--key", "/tls/tls.key", *arguments]
    container["volumeMounts"] = [*container["volumeMounts"], {"name": "tls", "mountPath": "/tls", "readOnly": True}]
    container["readinessProbe"]["httpGet"]["scheme"] = "HTTPS"
    # The demo's claim is in another namespace; this server's data need not outlive its pod.
    own = [{"name": volume["name"], "emptyDir": {}} for volume in template["spec"]["volumes"]]
    template["spec"]["volumes"] = [*own, {"name": "tls", "secret": {"secretName": SERVER}}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": SERVER},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


@pytest.fixture(scope="module")
def node_is_local(namespace: DemoNamespace) -> None:
    """Skip unless the cluster's node is this machine: tests use cluster addresses and folders of the node."""
    [node] = namespace.list("nodes")
    if node["status"]["nodeInfo"]["bootID"] != Path("/proc/sys/kernel/random/boot_id").read_text().strip():
        pytest.skip("the cluster's node is another machine, whose folders cannot be looked at from here")


@pytest.fixture(scope="module")
def endpoint(
    namespace: DemoNamespace, node_is_local: None, digits: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """URL of an S3 server that holds the small digits; its CA certificate is in the ConfigMap s3-authority."""
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": SERVER},
            "spec": {"selector": {"app.kubernetes.io/name": SERVER}, "ports": [{"port": PORT}]},
        }
    )
    host, address = f"{SERVER}.{namespace.name}.svc", namespace.get("service", SERVER)["spec"]["clusterIP"]
    certificate, key = issue_certificate(tmp_path_factory.mktemp("tls"), host, f"DNS:{host},IP:{address}")
    namespace.create_secret(SERVER, **{"ca.crt": certificate.read_text(), "tls.key": key.read_text()})
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": AUTHORITY},
            "data": {"ca.crt": certificate.read_text()},
        },
        behind_tls(),
    )
    namespace.kubectl("rollout", "status", f"deployment/{SERVER}", "--timeout=120s")
    client = connect(f"{address}:{PORT}", install.credentials(), certificate)
    for attempt in Retrying(
        retry=retry_if_exception_type(EndpointConnectionError),
        stop=stop_after_delay(60),
        wait=wait_fixed(0.5),
        reraise=True,
    ):
        with attempt:  # kube-proxy learns of the ready pod a moment later
            upload_folder(client, digits, "data")
    return f"https://{host}:{PORT}"


@pytest.fixture(scope="module")
def cache(namespace: DemoNamespace, node_is_local: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder behind the claim ``cache``; skips where the disk is so full that the runner's cache keeps nothing."""
    disk = shutil.disk_usage(tmp_path_factory.getbasetemp())
    if disk.free < 0.16 * disk.total:
        pytest.skip(f"the cache leaves 15 % of the disk free, and {disk.free / disk.total:.0%} are free")
    with claim(namespace, "cache", tmp_path_factory.mktemp("cache")) as folder:
        yield folder


@pytest.fixture(scope="module")
def volumes(
    namespace: DemoNamespace, node_is_local: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Path]]:
    """The folders behind the claims of the samples without S3, with gravel and the weights."""
    root = tmp_path_factory.mktemp("volumes")
    write_gravel(root / "images/gravel")
    write_efficientnet_lite0(root / "weights")
    (root / "results").mkdir()
    with ExitStack() as claims:
        yield {
            name: claims.enter_context(claim(namespace, name, root / name)) for name in ("images", "weights", "results")
        }


@contextmanager
def claim(namespace: DemoNamespace, claimed: str, folder: Path) -> Iterator[Path]:
    """Create a claim for a folder of the node, and yield the folder."""
    name, size = f"{claimed}-{namespace.name}", {"storage": "1Gi"}
    on_node = {
        "required": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "Exists"}]}]
        }
    }
    kubectl(
        "apply",
        "-f",
        "-",
        stdin=json.dumps(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": name},
                "spec": {
                    "capacity": size,
                    "accessModes": ["ReadWriteMany"],
                    "storageClassName": "",
                    "persistentVolumeReclaimPolicy": "Retain",
                    "local": {"path": str(folder)},
                    "nodeAffinity": on_node,
                },
            }
        ),
    )
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claimed},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "",
                "volumeName": name,
                "resources": {"requests": size},
            },
        }
    )
    yield folder
    kubectl("delete", "persistentvolume", name, "--wait=false")


def experiment(name: str, endpoint: str, **dataset: Any) -> Manifest:
    """Return an experiment that trains on the images at the endpoint."""
    manifest = small_experiment(name)
    source = manifest["spec"]["dataset"]["source"]["s3"] | {"uri": "s3://data", "endpoint": endpoint}
    manifest["spec"]["dataset"] = {"source": {"s3": source}, "task": "classification"} | dataset
    return manifest


def with_authority(manifest: Manifest) -> Manifest:
    """Add the endpoint's CA certificate to the manifest's dataset, and return the manifest."""
    manifest["spec"]["dataset"]["source"]["s3"]["caConfigMap"] = AUTHORITY
    return manifest


def cached_files(cache: Path) -> dict[str, tuple[int, int]]:
    """Return inode and modification time (ns) of each cached file."""
    files = [file for file in cache.rglob("*") if file.is_file()]
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def test_an_endpoint_of_an_unknown_authority_is_not_trusted(namespace: DemoNamespace, endpoint: str) -> None:
    namespace.apply(experiment("careful", endpoint))
    status = namespace.wait_for("aexp", "careful", "Failed", lambda status: condition_is_true(status, "Failed"))
    failed = condition(status, "Failed")
    assert failed["reason"] == "StorageDenied"
    assert "s3://data" in failed["message"]
    assert "caConfigMap" in failed["message"]


def test_a_second_run_takes_its_images_from_the_volume(namespace: DemoNamespace, endpoint: str, cache: Path) -> None:
    volume = {"cache": {"persistentVolumeClaim": {"claimName": "cache"}}}
    found = []
    for name in ("first", "second"):
        namespace.apply(with_authority(experiment(name, endpoint, **volume)))
        status = namespace.wait_until_complete("aexp", name)["status"]
        assert status["images"]["train"] == IMAGES_LEARNT
        found.append((status["metrics"], cached_files(cache)))
    (metrics, before), (again, after) = found
    assert [metrics[level] for level in ("image", "pixel")] == [again[level] for level in ("image", "pixel")]
    assert len(before) == 2 * IMAGES  # as pulled, and as decoded
    assert before.keys() == after.keys()
    assert all(before[name][0] == after[name][0] for name in before), "files were pulled once more"
    assert all(before[name][1] < after[name][1] for name in before), "files were not used"


def test_volumes_are_enough(namespace: DemoNamespace, volumes: dict[str, Path]) -> None:
    """Images, weights, results, and the model of an inference: all on volumes, without S3 and GPUs."""
    namespace.apply(sample("volumes-padim"), sample("volumes-inference"))
    trained, inferred = (
        namespace.wait_until_complete("aexp", "volumes-padim"),
        namespace.wait_until_complete("ainf", "volumes-inference"),
    )
    tables = []
    for run, folder in ((trained, "models"), (inferred, "inspections")):
        results = volumes["results"] / folder / namespace.name / run["metadata"]["name"] / run["metadata"]["uid"]
        assert (results / "report.html").is_file()
        table = pq.read_table(results / "predictions.parquet").to_pydict()
        tables.append(dict(zip(table["path"], table["score"], strict=True)))
    assert trained["status"]["metrics"]["pixel"]["AUROC"] > 0.9
    expected = {path.removeprefix("test/"): score for path, score in tables[0].items()}
    assert tables[1] == pytest.approx(expected, rel=2e-2), "in half precision"
    assert inferred["status"]["thresholds"] == trained["status"]["thresholds"] | {"source": "training"}
