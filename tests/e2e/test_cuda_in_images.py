"""The images hold every library of CUDA that onnxruntime needs, but the driver: that one is the node's."""

import json
import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from anomaly_runner.scoring.cuda_libraries import CUDNN, DRIVER
from hack.demo.cluster import kubectl
from hack.demo.install import image_reference
from hack.images.catalog import INFERENCE, RUNNER, Image
from support.kube import Manifest, Namespace

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

USER = 65532
MOUNTED = "/usr/local/nvidia/lib64"
"""Where GKE's device plugin mounts the driver."""
PROGRAM = """
import json
from anomaly_runner.scoring import cuda_libraries as cuda

provider = cuda.provider_library()
before = cuda.missing_libraries()
cuda.preload_cuda()
cudnn = sorted((provider.parents[2] / "nvidia/cudnn/lib").glob("*.so*"))
print(json.dumps({
    "before": before,
    "provider": cuda.unresolved_libraries(provider),
    "afterwards": cuda.missing_libraries(),
    "cudnn": {library.name: cuda.unresolved_libraries(library) for library in cudnn},
}))
"""
ANY_LIBRARY_AS_DRIVER = f"""
import shutil
from anomaly_runner.scoring.cuda_libraries import provider_library
shutil.copy(provider_library().with_name("libonnxruntime_providers_shared.so"), "/driver/{DRIVER}")
"""
"""Copies a small library to where a driver would be mounted: it only has to be found."""


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    """A namespace under restricted pod security."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("no cluster: set KUBECONFIG, or run `make test-e2e`, which starts one")
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    kubectl("apply", "-f", "-", stdin=json.dumps(made))
    yield Namespace(name)
    kubectl("delete", "namespace", name, "--wait=false")


def container(name: str, image: Image, program: str, folder: str) -> Manifest:
    return {
        "name": name,
        "image": image_reference(image),
        "command": ["python", "-c", program],
        "volumeMounts": [{"name": "driver", "mountPath": folder}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def run_pod(namespace: Namespace, image: Image, driver: bool) -> dict[str, Any]:
    """Run PROGRAM in a pod, and return what it prints; with ``driver``, a library is mounted as the driver."""
    name = f"{image.name}-{'with' if driver else 'without'}-driver"
    prepare = [container("driver", image, ANY_LIBRARY_AS_DRIVER, "/driver")] if driver else []
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "seccompProfile": {"type": "RuntimeDefault"}},
        "initContainers": prepare,
        "containers": [container("program", image, PROGRAM, MOUNTED)],
        "volumes": [{"name": "driver", "emptyDir": {}}],
    }
    namespace.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    namespace.kubectl("wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=180s")
    printed: dict[str, Any] = json.loads(namespace.kubectl("logs", name, "-c", "program").splitlines()[-1])
    return printed


@pytest.mark.parametrize("image", [RUNNER, INFERENCE], ids=lambda image: image.name)
def test_all_that_onnxruntime_needs_resolves_but_the_driver(namespace: Namespace, image: Image) -> None:
    found = run_pod(namespace, image, driver=False)
    assert {DRIVER, CUDNN} < found["before"].keys()
    assert found["provider"].keys() == found["afterwards"].keys() == {DRIVER}
    assert CUDNN in found["cudnn"]
    assert {name: missing for name, missing in found["cudnn"].items() if missing} == {}


@pytest.mark.parametrize("image", [RUNNER, INFERENCE], ids=lambda image: image.name)
def test_a_driver_is_found_where_clouds_mount_it(namespace: Namespace, image: Image) -> None:
    assert run_pod(namespace, image, driver=True)["afterwards"] == {}
