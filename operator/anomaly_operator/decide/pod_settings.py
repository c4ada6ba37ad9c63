"""What the operator's own configuration says about the Jobs and pods of runs.

Plain values, passed in: nothing here reads flags or the environment.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PodSettings:
    """What every run's pod gets from the operator rather than from its resource."""

    runner_image: str
    """Image that trains."""
    inference_image: str
    """Image that runs exported models; it has no torch."""
    service_url: str | None = None
    """Base URL at which pods reach the operator; None means that they push no progress."""
    image_pull_policy: str = "IfNotPresent"
    """imagePullPolicy of the container."""
    installation: str = ""
    """Namespace of the operator's Lease, by which installations in one cluster know each other's Jobs."""
    node_cache: str | None = None
    """Folder on every node for dataset.cache.node; None means that runs that ask for it go without."""
