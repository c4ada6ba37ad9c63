"""What the operator's own configuration says about the pods of runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PodSettings:
    """What every run's pod has from the operator rather than from its resource."""

    runner_image: str
    """Image that trains."""
    inference_image: str
    """Image that runs exported models; it has no torch."""
    service_url: str | None = None
    """Base URL at which pods reach the operator; None: they push no progress."""
    image_pull_policy: str = "IfNotPresent"
    """As in a pod."""
    node_cache: str | None = None
    """Folder on every node for dataset.cache.node; None: runs that ask for it go without."""
