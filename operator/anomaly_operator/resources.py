"""The kinds of objects that the operator talks about, and their URLs."""

from dataclasses import dataclass

from anomaly_api import GROUP, VERSION
from anomaly_api.experiment import AnomalyExperiment
from anomaly_api.inference import AnomalyInference
from anomaly_operator.keys import Kind


@dataclass(frozen=True)
class Resource:
    """A kind as the API server's URLs spell it."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of one object, or of all of them."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{namespace}" if namespace else ""
        return root + place + "/" + "/".join(part for part in (self.plural, name, subresource) if part)


EXPERIMENTS = Resource(GROUP, VERSION, AnomalyExperiment.plural)
INFERENCES = Resource(GROUP, VERSION, AnomalyInference.plural)
JOBS = Resource("batch", "v1", "jobs")
PODS = Resource("", "v1", "pods")
EVENTS = Resource("events.k8s.io", "v1", "events")
LEASES = Resource("coordination.k8s.io", "v1", "leases")
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews")

RUNS: dict[Kind, Resource] = {"AnomalyExperiment": EXPERIMENTS, "AnomalyInference": INFERENCES}
