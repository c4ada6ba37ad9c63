"""A namespace of a real cluster, used as users do: with kubectl."""

import json
import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from kubernetes.client import ApiClient, CustomObjectsApi
from kubernetes.config import new_client_from_config

from anomaly_operator.resources import EXPERIMENTS, INFERENCES
from hack.demo.cluster import DemoError, kubectl

__all__ = ["KubectlError", "Manifest", "Namespace", "api_client", "condition", "condition_is_true", "kubectl"]

Manifest = dict[str, Any]
KubectlError = DemoError

_RUNS = {"aexp": EXPERIMENTS, "ainf": INFERENCES}


def api_client() -> ApiClient:
    """Return a client of the cluster in use; the library's default is the one at the time of its import."""
    return _client_of(os.environ.get("KUBECONFIG"))


@cache
def _client_of(kubeconfig: str | None) -> ApiClient:
    return new_client_from_config(kubeconfig)


class Namespace:
    """One namespace, with the few operations that tests need."""

    def __init__(self, name: str) -> None:
        self.name = name

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl in this namespace."""
        return kubectl("-n", self.name, *arguments, stdin=stdin)

    def apply(self, *manifests: Manifest) -> str:
        """Apply manifests in this namespace, whichever namespace they name."""
        placed = [manifest | {"metadata": manifest["metadata"] | {"namespace": self.name}} for manifest in manifests]
        return self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": placed}))

    def get(self, kind: str, name: str) -> Manifest:
        """Return one object."""
        found: Manifest = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def list(self, kind: str, selector: str = "") -> list[Manifest]:
        """Return all objects of a kind, or those that match a label selector."""
        arguments = ["get", kind, "-o", "json", *(["-l", selector] if selector else [])]
        found: list[Manifest] = json.loads(self.kubectl(*arguments))["items"]
        return found

    def patch(self, kind: str, name: str, change: Manifest) -> None:
        """Merge a change into an object."""
        self.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps(change))

    def delete(self, kind: str, name: str) -> None:
        """Delete an object and wait until it is gone."""
        self.kubectl("delete", kind, name, "--timeout=90s")

    def status(self, kind: str, name: str) -> Manifest:
        """Return the status of a run; empty before the operator has seen it.

        Tests poll twice a second. One kubectl per poll would take a tenth of a CPU from the pods that they wait for.
        """
        resource = _RUNS[kind]
        api = CustomObjectsApi(api_client())
        run = api.get_namespaced_custom_object(resource.group, resource.version, self.name, resource.plural, name)
        found: Manifest = run.get("status", {})
        return found

    def wait_for(
        self,
        kind: str,
        name: str,
        what: str,
        reached: Callable[[Manifest], bool],
        seconds: float = 240,
        *,
        is_over: bool = False,
    ) -> Manifest:
        """Poll the status until ``reached`` accepts it, and return it; fail with the last status otherwise.

        A run that ends otherwise is not waited for, unless ``is_over`` says that it has ended before.
        """
        deadline = time.monotonic() + seconds
        status: Manifest = {}
        while time.monotonic() < deadline:
            status = self.status(kind, name)
            if reached(status):
                return status
            if status.get("phase") in ("Complete", "Failed") and not is_over:
                break
            time.sleep(0.5)
        raise AssertionError(
            f"{kind} {name} never was {what}; its status: {json.dumps(status, indent=1)}\n{self.logs()}"
        )

    def logs(self) -> str:
        """Return the last log lines of every pod of the namespace, for messages of failed tests."""
        lines = []
        for pod in self.list("pods"):
            name = pod["metadata"]["name"]
            try:
                lines.append(f"--- {name}\n" + self.kubectl("logs", name, "--tail=30"))
            except KubectlError as error:
                lines.append(f"--- {name}: {error}")
        return "\n".join(lines)


def condition(status: Manifest, of_type: str) -> Manifest:
    """Return the condition of this type; {} if the status has none."""
    return next((item for item in status.get("conditions", ()) if item["type"] == of_type), {})


def condition_is_true(status: Manifest, of_type: str) -> bool:
    """Whether a condition is True."""
    return bool(condition(status, of_type).get("status") == "True")
