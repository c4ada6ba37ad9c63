"""The installed operator, controlled with kubectl."""

import json
import threading
from collections.abc import Callable, Iterator
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


@contextmanager
def leader_killed_at_each(step: Callable[[], object]) -> Iterator[list[str]]:
    """Kill the pod that leads whenever ``step`` returns something else than before; yields the names of those killed.

    The Lease goes with it: another replica need not wait until it has run out.
    """
    killed: list[str] = []
    stop = threading.Event()
    killer = threading.Thread(target=_kill_leaders, args=(step, killed, stop), daemon=True)
    killer.start()
    try:
        yield killed
    finally:
        stop.set()
        killer.join()
        kubectl("-n", NAMESPACE, "rollout", "status", DEPLOYMENT, "--timeout=120s")


def _kill_leaders(step: Callable[[], object], killed: list[str], stop: threading.Event) -> None:
    seen = step()
    while not stop.wait(0.3):
        if (now := step()) == seen:
            continue
        seen = now
        if leader := _leader():
            kubectl("-n", NAMESPACE, "delete", "pod", leader, "--force", "--grace-period=0", "--ignore-not-found")
            kubectl("-n", NAMESPACE, "delete", "lease", "anomaly-operator", "--ignore-not-found")
            killed.append(leader)


def _leader() -> str | None:
    """Return the name of the pod that leads; None while none does."""
    name = ("lease", "anomaly-operator", "--ignore-not-found")
    holder = kubectl("-n", NAMESPACE, "get", *name, "-o", "jsonpath={.spec.holderIdentity}")
    return next((pod for pod in running_operator_pods() if holder.startswith(pod)), None)
