"""The Kubernetes resources that the operator reads or writes, with their URL paths."""

from dataclasses import dataclass
from typing import Any

from anomaly_api import GROUP, VERSION
from anomaly_api.experiment import AnomalyExperiment
from anomaly_api.inference import AnomalyInference
from anomaly_operator.keys import Kind

Manifest = dict[str, Any]
"""A Kubernetes object, or a part of one, as the JSON that goes to or comes from the API server."""


@dataclass(frozen=True)
class Resource:
    """A resource type as the API server's URLs spell it; the core group is the empty string."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the URL path of one object, or of the collection where there is no name."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{namespace}" if namespace else ""
        return root + place + "/" + "/".join(part for part in (self.plural, name, subresource) if part)


EXPERIMENTS = Resource(GROUP, VERSION, AnomalyExperiment.plural)
INFERENCES = Resource(GROUP, VERSION, AnomalyInference.plural)
JOBS = Resource("batch", "v1", "jobs")
PODS = Resource("", "v1", "pods")
EVENTS = Resource("events.k8s.io", "v1", "events")
CORE_EVENTS = Resource("", "v1", "events")
"""The same Events with the fields that the Job controller and the kubelet write."""
LEASES = Resource("coordination.k8s.io", "v1", "leases")
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews")

RUN_RESOURCES: dict[Kind, Resource] = {"AnomalyExperiment": EXPERIMENTS, "AnomalyInference": INFERENCES}
