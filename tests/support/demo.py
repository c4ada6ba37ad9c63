"""A namespace with S3 and MLflow, and manifests that tests change for their purpose."""

import contextlib
import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from hack.demo.storage import Credentials, connect, list_objects, split_uri
from support.kube import Manifest, Namespace, condition_is_true

Found = TypeVar("Found")
SAMPLES = Path(__file__).parents[2] / "manifests" / "samples"


class S3Service:
    """The demo's S3 server, with the owner's credentials."""

    def __init__(self, address: str, keys: Credentials) -> None:
        self.secret_key = keys.secret_key
        self.credentials = {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key}
        self.client = connect(address, keys)

    def read(self, uri: str) -> bytes:
        """Return the content of an object."""
        bucket, key = split_uri(uri)
        content: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    def write(self, uri: str, content: bytes) -> None:
        """Create or replace an object."""
        bucket, key = split_uri(uri)
        self.client.put_object(Bucket=bucket, Key=key, Body=content)

    def create(self, bucket: str) -> None:
        """Create a bucket, unless it is there."""
        with contextlib.suppress(self.client.exceptions.BucketAlreadyOwnedByYou):
            self.client.create_bucket(Bucket=bucket)

    def publish(self, bucket: str) -> None:
        """Let anyone read a bucket's objects over HTTP, without credentials."""
        statement = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::{bucket}/*",
        }
        self.client.put_bucket_policy(
            Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        )

    def keys(self, uri: str) -> list[str]:
        """Return the keys below a prefix."""
        bucket, prefix = split_uri(uri)
        return [found.key for found in list_objects(self.client, bucket, prefix)]

    def copy(self, source: str, target: str) -> None:
        """Copy all objects of a prefix."""
        bucket, prefix = split_uri(source)
        for key in self.keys(source):
            self.write(target + key.removeprefix(prefix), self.read(f"s3://{bucket}/{key}"))


class MlflowService:
    """The demo's MLflow server, through its REST API."""

    def __init__(self, address: str) -> None:
        self.url = f"http://{address}"

    def run(self, run_id: str) -> Manifest:
        """Return a run with its metrics and tags."""
        with urllib.request.urlopen(f"{self.url}/api/2.0/mlflow/runs/get?run_id={run_id}", timeout=30) as answer:
            found: Manifest = json.load(answer)["run"]
        return found

    def runs(self, experiment: str, tag: str, value: str) -> list[Manifest]:
        """Return an experiment's runs with this tag; [] before there is one, or the experiment."""
        found = self._post("experiments/search", {"filter": f"name = '{experiment}'", "max_results": 1})
        experiments = [one["experiment_id"] for one in found.get("experiments", [])]
        if not experiments:
            return []
        wanted = {"experiment_ids": experiments, "filter": f"tags.`{tag}` = '{value}'", "max_results": 1000}
        runs: list[Manifest] = self._post("runs/search", wanted).get("runs", [])
        return runs

    def _post(self, path: str, body: Manifest) -> Manifest:
        url, headers = f"{self.url}/api/2.0/mlflow/{path}", {"Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: Manifest = json.load(answer)
        return found

    def model_versions(self, name: str) -> list[Manifest]:
        """Return the versions of a registered model."""
        query = urllib.parse.quote(f"name='{name}'")
        url = f"{self.url}/api/2.0/mlflow/model-versions/search?filter={query}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            found: list[Manifest] = json.load(answer).get("model_versions", [])
        return found


class DemoNamespace(Namespace):
    """A namespace of a test, with the demo's services."""

    def __init__(self, name: str, s3: S3Service, mlflow: MlflowService) -> None:
        super().__init__(name)
        self.s3 = s3
        self.mlflow = mlflow

    def create_secret(self, name: str, **values: str) -> None:
        """Create a Secret."""
        self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values})

    def wait_until_complete(self, kind: str, name: str, seconds: float = 400) -> Manifest:
        """Wait until a resource is Complete, and return it."""
        self.wait_for(kind, name, "Complete", lambda status: condition_is_true(status, "Complete"), seconds=seconds)
        return self.get(kind, name)

    def report(self, run: Manifest) -> Manifest:
        """Return report.json of a resource that is Complete."""
        content: Manifest = json.loads(self.s3.read(run["status"]["artifacts"]["report"]))
        return content

    def wait_until_no_pods(self, of: str, seconds: float = 90) -> None:
        """Wait until no pod of a run is left."""
        self._wait_until_gone(("pods",), of, seconds)

    def wait_until_empty(self, of: str, seconds: float = 90) -> None:
        """Wait until no object that was created for a resource is left."""
        self._wait_until_gone(("jobs", "pods", "configmaps"), of, seconds)

    def _wait_until_gone(self, kinds: tuple[str, ...], of: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        left: list[str] = []
        while time.monotonic() < deadline:
            names = [item["metadata"]["name"] for kind in kinds for item in self.list(kind)]
            left = [name for name in names if name.startswith(of)]
            if not left:
                return
            time.sleep(0.5)
        raise AssertionError(f"still there: {left}")


def eventually(find: Callable[[], Found | None], what: str, seconds: float = 240) -> Found:
    """Return what ``find`` returns once that is true; fail after some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := find():
            return found
        time.sleep(0.5)
    raise AssertionError(f"not {what} after {seconds:.0f} s")


def sample(name: str) -> Manifest:
    """Return a sample as it is shipped."""
    manifest: Manifest = yaml.safe_load((SAMPLES / f"{name}.yaml").read_text())
    return manifest


def _shrunk(name: str, category: str, size: int, **padim: Any) -> Manifest:
    """Return the sample on the CPU with a randomly initialised backbone: fast, and without weights."""
    manifest = sample("mnist-padim")
    manifest["metadata"]["name"] = name
    spec = manifest["spec"]
    spec["dataset"]["category"] = category
    spec["transforms"]["inputSize"] = {"height": size, "width": size}
    spec["model"] = {"name": "padim", "padim": {"backbone": "resnet18", "preTrained": False, "nFeatures": 20} | padim}
    spec["scheduling"] = {"gpus": {"count": 0}, "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}}}
    spec["evaluation"] = {"visualization": {"enabled": False}, "latency": {"enabled": False}}
    spec["export"] = {"types": []}
    del spec["tracking"]
    return manifest


def small_experiment(name: str, category: str = "small") -> Manifest:
    """Return an experiment that takes no longer than the start of its pod."""
    return _shrunk(name, category, size=64, layers=["layer1", "layer2"])


def long_experiment(name: str) -> Manifest:
    """Return an experiment that runs long enough to be disrupted: 600 images take a CPU at least ten seconds."""
    manifest = _shrunk(name, "mnist", size=256, layers=["layer1", "layer2", "layer3"])
    manifest["spec"]["dataset"]["fraction"] = 0.6
    return manifest
