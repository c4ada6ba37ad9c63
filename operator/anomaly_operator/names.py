"""Names of everything that the operator makes, in one place, all derived from the resource alone.

A Job's name must be a DNS label: its pods' hostnames are made of it. Where a resource's name is too long or has
dots, a digest of the whole name takes the place of what is cut, so that two resources never share a Job.
"""

import hashlib
import re

from anomaly_api import GROUP
from anomaly_operator.keys import Kind, RunKey

LABEL_LIMIT = 63
DIGEST_LENGTH = 8

CONTAINER = "runner"

MANAGED_BY = "anomaly-operator"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
KIND_LABEL = f"{GROUP}/kind"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
"""Label selector of every Job and pod of a run."""

CONFIG_ANNOTATION = f"{GROUP}/run-config"
"""Annotation of the pod that carries its RunConfig as JSON."""
CONFIG_DIGEST_ANNOTATION = f"{GROUP}/run-config-digest"
"""Annotation of the Job by which a changed RunConfig is noticed."""

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def role(kind: Kind) -> str:
    """What the runs of a kind are called in names and labels: experiment or inference."""
    return kind.removeprefix("Anomaly").lower()


def job(key: RunKey) -> str:
    """Name of a run's Job."""
    suffix = f"-{role(key.kind)}"
    return _shortened(key.name, LABEL_LIMIT - len(suffix)) + suffix


def labels(key: RunKey) -> dict[str, str]:
    """Labels of the Job and its pods."""
    return {
        "app.kubernetes.io/name": "anomaly-runner",
        "app.kubernetes.io/component": role(key.kind),
        "app.kubernetes.io/part-of": "anomaly-operator",
        MANAGED_BY_LABEL: MANAGED_BY,
        KIND_LABEL: key.kind,
        f"{GROUP}/{role(key.kind)}": _shortened(key.name, LABEL_LIMIT),
    }


def event(uid: str, *parts: str, name: str) -> str:
    """Name of an Event: the same occurrence has the same name, so that it is reported once."""
    return f"{name[:200]}.{_digest(uid, *parts)}{_digest(*parts)}"


def digest(text: str) -> str:
    """Digest by which a changed configuration is noticed."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _shortened(name: str, limit: int) -> str:
    if len(name) <= limit and _DNS_LABEL.fullmatch(name):
        return name
    kept = name.replace(".", "-")[: limit - DIGEST_LENGTH - 1].rstrip("-")
    return f"{kept}-{_digest(name)}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:DIGEST_LENGTH]
