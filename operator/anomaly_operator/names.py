"""Names and labels of every object that the operator creates, each derived from the run's resource alone.

A Job's name must be a DNS label, because its pods' hostnames are made of it. Where a resource's name is too long or
has dots, a digest of the whole name replaces what is cut off, so that two resources never share a Job.
"""

import hashlib
import re

from anomaly_api import GROUP
from anomaly_operator.keys import Kind, RunKey

LABEL_LIMIT = 63
"""Longest DNS label and longest label value, characters."""
DIGEST_LENGTH = 8
"""Hexadecimal digits of the digest in a shortened name."""

CONTAINER = "runner"

MANAGED_BY = "anomaly-operator"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
KIND_LABEL = f"{GROUP}/kind"
RUN_LABEL = f"{GROUP}/run"
"""Number of the run; the first run's objects lack it."""
STEP_LABEL = f"{GROUP}/step"
"""The step; objects of a run's last step lack it."""
SWEEP_LABEL = f"{GROUP}/sweep"
"""Name of the sweep that a trial belongs to."""
TRIAL_LABEL = f"{GROUP}/trial"
"""Number of the trial."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
"""Label selector of every Job and pod of a run."""

CONFIG_ANNOTATION = f"{GROUP}/run-config"
"""Annotation of the pod that carries its RunConfig as JSON."""
CONFIG_DIGEST_ANNOTATION = f"{GROUP}/run-config-digest"
INSTALLATION_ANNOTATION = f"{GROUP}/operator"
"""Annotation of the Job that carries the digest of its RunConfig, to notice that the resource's spec has changed."""

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def component(kind: Kind) -> str:
    """Return the word for a kind of run in names and labels: ``experiment`` or ``inference``."""
    return kind.removeprefix("Anomaly").lower()


def job(key: RunKey, number: int | None = None, step: str | None = None) -> str:
    """Return the name of a step's Job: ``NAME-experiment`` or ``NAME-inference``, then the run's number and the step.

    Args:
        key: the resource.
        number: which of its runs; None for the first.
        step: the step; None for the last one, which is the work itself.
    """
    suffix = "".join(f"-{part}" for part in (component(key.kind), number, step) if part is not None)
    return _shortened(key.name, LABEL_LIMIT - len(suffix)) + suffix


def labels(key: RunKey, number: int | None = None, step: str | None = None) -> dict[str, str]:
    """Return the labels of a step's Job and pods; the arguments are those of ``job``."""
    which = {RUN_LABEL: number and str(number), STEP_LABEL: step}
    return {label: value for label, value in which.items() if value} | {
        "app.kubernetes.io/name": "anomaly-runner",
        "app.kubernetes.io/component": component(key.kind),
        "app.kubernetes.io/part-of": "anomaly-operator",
        MANAGED_BY_LABEL: MANAGED_BY,
        KIND_LABEL: key.kind,
        f"{GROUP}/{component(key.kind)}": _shortened(key.name, LABEL_LIMIT),
    }


def trial_labels(sweep: str, number: int) -> dict[str, str]:
    """Return the labels of a trial: the operator's own alone, as a GitOps tool would prune what has its labels."""
    return {SWEEP_LABEL: _shortened(sweep, LABEL_LIMIT), TRIAL_LABEL: str(number)}


def event(uid: str, *parts: str, name: str) -> str:
    """Return the name of an Event about a resource.

    The same occurrence gives the same name, so that the API server refuses to record it twice.

    Args:
        uid: UID of the resource.
        parts: what distinguishes this occurrence from others of the resource, such as its reason and time.
        name: name of the resource, which the Event's name begins with.
    """
    occurrence = "\0".join((uid, *parts))
    return f"{name[:200]}.{digest(occurrence)}"


def digest(text: str) -> str:
    """Return a digest (16 hexadecimal digits) by which a changed configuration is noticed."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _shortened(name: str, limit: int) -> str:
    """Return the name if it is a DNS label within the limit, else its beginning and a digest of the whole name."""
    if len(name) <= limit and _DNS_LABEL.fullmatch(name):
        return name
    kept = name.replace(".", "-")[: limit - DIGEST_LENGTH - 1].rstrip("-")
    return f"{kept}-{digest(name)[:DIGEST_LENGTH]}"
