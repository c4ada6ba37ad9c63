"""The installed operator, controlled with kubectl."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from hack.demo.cluster import kubectl

NAMESPACE = "anomaly-system"
DEPLOYMENT = "deployment/anomaly-operator"
SELECTOR = "app.kubernetes.io/name=anomaly-operator"


def running_operator_pods() -> list[str]:
    """Return the names of the operator's pods that are not being deleted."""
    pods = json.loads(kubectl("-n", NAMESPACE, "get", "pods", "-l", SELECTOR, "-o", "json"))["items"]
    return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]


@contextmanager
def operator_scaled_to(replicas: int) -> Iterator[None]:
    """Kill the operator's pods at once, and scale the operator while the context lasts."""
    before = kubectl("-n", NAMESPACE, "get", DEPLOYMENT, "-o", "jsonpath={.spec.replicas}")
    kubectl("-n", NAMESPACE, "scale", DEPLOYMENT, f"--replicas={replicas}")
    kubectl("-n", NAMESPACE, "delete", "pods", "-l", SELECTOR, "--force", "--grace-period=0", "--wait=true")
    try:
        yield
    finally:
        kubectl("-n", NAMESPACE, "scale", DEPLOYMENT, f"--replicas={before}")
        kubectl("-n", NAMESPACE, "rollout", "status", DEPLOYMENT, "--timeout=120s")
