"""Resources in every state that the golden statuses have, and what GitOps tools have to make of each."""

from pathlib import Path

import yaml

from support import golden, objects
from support.kube import Manifest

INPUTS = sorted((golden.ROOT / "statuses").glob("*.input.yaml"))
KSTATUS_OF_HEALTH = {"Healthy": "Current", "Degraded": "Failed", "Progressing": "InProgress", "Suspended": "Current"}
"""kstatus' verdict for Argo CD's; it has no word for suspended: a suspended Job is Current too."""
_HEALTH_OF_PHASE = {"Running": "Progressing", "Suspended": "Suspended", "Complete": "Healthy", "Failed": "Degraded"}


def name(path: Path) -> str:
    """Return the name of a golden status."""
    return path.name.removesuffix(".input.yaml")


def resource(path: Path) -> Manifest:
    """Return a resource with a golden status, as the API server would."""
    given = yaml.safe_load(path.read_text())
    manifest: Manifest = given.get("resource", objects.EXPERIMENT)
    metadata = manifest["metadata"] | {"uid": objects.UID, "generation": given.get("generation", 1)}
    status = yaml.safe_load(path.with_name(f"{name(path)}.status.yaml").read_text())
    return manifest | {"metadata": metadata, "status": status}


def expected_health(status: Manifest) -> str:
    """Return Argo CD's word for a status: by its phase, and before a run has begun, by whether a person has to act."""
    stalled = any(found["type"] == "Stalled" and found["status"] == "True" for found in status["conditions"])
    return _HEALTH_OF_PHASE.get(status["phase"], "Degraded" if stalled else "Progressing")
