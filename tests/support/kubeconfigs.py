"""What kubeconfigs say; read by the hooks of all tests, and so without any client of Kubernetes."""

from pathlib import Path

import yaml

from hack.cluster import settings


def is_embedded(kubeconfig: str | None) -> bool:
    """Whether a kubeconfig is that of the embedded cluster, on this machine, or of a further API server of it."""
    embedded, authority = settings.PKI / "admin.conf", "certificate-authority-data"
    if kubeconfig is None or not embedded.exists() or not Path(kubeconfig).exists():
        return False
    return cluster_of(Path(kubeconfig)).get(authority) == cluster_of(embedded)[authority]


def cluster_of(kubeconfig: Path) -> dict[str, str]:
    """Return the cluster of a kubeconfig that has one: its server and what its certificate is checked with."""
    found: dict[str, str] = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
    return found
