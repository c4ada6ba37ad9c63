"""Installing what the samples need: the CRDs and the operator, and an S3 server with MLflow.

The manifests are those that users install. Only the images differ, which a kustomize overlay in a
temporary folder sets, so the checkout is never changed.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from hack.demo.cluster import DemoError, Object, find, kubectl
from hack.demo.storage import Credentials
from hack.images.catalog import DEMO, INFERENCE, OPERATOR, ROOT, RUNNER, Image

NAMESPACE = "anomaly-demo"
OPERATOR_NAMESPACE = "anomaly-system"
OPERATOR_NAME = "anomaly-operator"
SERVICES = ("s3", "mlflow")
SECRET = "s3-credentials"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
ROLLOUT_TIMEOUT = "--timeout=180s"
# Server-side apply: no annotation that repeats the whole object.
SERVER_SIDE = ("--server-side", "--force-conflicts")


def install_operator() -> None:
    """Apply the CRDs and the operator, and wait until it is ready."""
    environment = [
        {"name": "ANOMALY_RUNNER_IMAGE", "value": image_reference(RUNNER)},
        {"name": "ANOMALY_INFERENCE_IMAGE", "value": image_reference(INFERENCE)},
    ]
    container = {"name": "operator", "env": environment}
    patch = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": OPERATOR_NAME},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    _apply_overlay("manifests/base", OPERATOR_NAME, image_reference(OPERATOR), patches=(patch,))
    kubectl("wait", "--for=condition=Established", "--timeout=30s", *_crds())
    _wait_for_rollout(OPERATOR_NAME, OPERATOR_NAMESPACE)


def install_services() -> None:
    """Apply the S3 server and MLflow, with new keys the first time, and wait for both.

    Their data outlives their pods if the cluster has a default StorageClass.
    """
    # The namespace comes first, exactly as in the overlay, or each apply would undo a part of the other.
    kubectl("apply", *SERVER_SIDE, "--filename", str(ROOT / "manifests/demo/namespace.yaml"))
    _ensure_credentials()
    components = ("manifests/demo/claims",) if has_default_storage() else ()
    _apply_overlay("manifests/demo", "anomaly-demo", image_reference(DEMO), components=components)
    for service in SERVICES:
        _wait_for_rollout(service, NAMESPACE)


def uninstall() -> None:
    """Remove the demo and the operator.

    Raises:
        DemoError: runs in other namespaces need the operator, which is kept.
    """
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")
    if _crds_exist() and kubectl("get", "aexp,ainf", "--all-namespaces", "--output=name"):
        raise DemoError("the operator stays: there are runs of it in other namespaces")
    kubectl("delete", "--ignore-not-found", "--kustomize", str(ROOT / "manifests/base"))


def has_default_storage() -> bool:
    """Whether the cluster has a default StorageClass, for claims that name none."""
    classes = json.loads(kubectl("get", "storageclasses", "--output=json"))["items"]
    return any(found["metadata"].get("annotations", {}).get(DEFAULT_CLASS) == "true" for found in classes)


def credentials() -> Credentials:
    """Return the keys of the S3 server, from its Secret.

    Raises:
        DemoError: there is no such Secret.
    """
    secret = find("secret", SECRET, NAMESPACE)
    if secret is None:
        raise DemoError(f"there is no Secret {NAMESPACE}/{SECRET}")
    values = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    return Credentials(values["AWS_ACCESS_KEY_ID"], values["AWS_SECRET_ACCESS_KEY"])


def image_reference(image: Image) -> str:
    """Return the image to install, which `hack/images/images` delivered and printed.

    Raises:
        DemoError: the environment does not name the image.
    """
    reference = os.environ.get(image.variable)
    if not reference:
        raise DemoError(f"{image.variable} is not set: run `make demo`, or the output of `make images`")
    return reference


def _ensure_credentials() -> None:
    if find("secret", SECRET, NAMESPACE) is not None:
        return
    keys = {"AWS_ACCESS_KEY_ID": secrets.token_hex(8), "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20)}
    metadata = {"name": SECRET, "namespace": NAMESPACE}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys}
    kubectl("create", "--filename=-", stdin=json.dumps(secret))


def _apply_overlay(
    base: str, image_name: str, image: str, components: tuple[str, ...] = (), patches: tuple[Object, ...] = ()
) -> None:
    """Apply a kustomize folder with one image replaced, some fields patched, and components added."""
    name, _, tag = image.rpartition(":")
    with TemporaryDirectory() as folder:

        def relative(path: str) -> str:
            """Return the path relative to the overlay: kustomize takes no absolute paths."""
            return os.path.relpath(ROOT / path, Path(folder).resolve())

        overlay = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [relative(base)],
            "components": [relative(component) for component in components],
            "images": [{"name": image_name, "newName": name, "newTag": tag}],
            "patches": [{"patch": yaml.safe_dump(patch)} for patch in patches],
        }
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        kubectl("apply", *SERVER_SIDE, "--kustomize", folder)


def _wait_for_rollout(deployment: str, namespace: str) -> None:
    kubectl("rollout", "status", f"deployment/{deployment}", f"--namespace={namespace}", ROLLOUT_TIMEOUT)


def _crds() -> list[str]:
    names = ("anomalyexperiments", "anomalyinferences")
    return [f"customresourcedefinition/{name}.anomalyops.io" for name in names]


def _crds_exist() -> bool:
    return bool(kubectl("get", "--ignore-not-found", "--output=name", *_crds()))
