"""What the operator keeps of Kubernetes objects: slim, frozen, parsed once at the edge.

A watched Job is about 20 KB as a parsed dict and 1 KB as a view. Specs and statuses of runs are kept as JSON
bytes and parsed when a run is reconciled.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anomaly_operator import names
from anomaly_operator.keys import Kind, RunKey

Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Owner:
    """The controller of an object."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class ConditionView:
    """A condition of a Job or pod."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    time: str | None = None


@dataclass(frozen=True, slots=True)
class RunView:
    """An AnomalyExperiment or AnomalyInference."""

    key: RunKey
    uid: str
    version: int
    generation: int
    deleting: bool
    spec: bytes
    status: bytes
    experiment: str | None
    """Name of the experiment whose model it uses, so that it is looked at when that changes."""


@dataclass(frozen=True, slots=True)
class JobView:
    """A Job of ours."""

    namespace: str
    name: str
    uid: str
    version: int
    owner: Owner | None
    created: str
    deleting: bool
    suspend: bool
    queued: bool
    """Whether Kueue decides when it runs."""
    backoff_limit: int
    active_deadline: int | None
    ttl: int | None
    config_digest: str
    started: str | None
    completed: str | None
    active: int
    failed: int
    succeeded: int
    conditions: tuple[ConditionView, ...]

    @property
    def key(self) -> RunKey | None:
        """The run that it belongs to."""
        if self.owner is None or self.owner.kind not in ("AnomalyExperiment", "AnomalyInference"):
            return None
        return RunKey(self.owner.kind, self.namespace, self.owner.name)  # type: ignore[arg-type]

    def condition(self, kind: str) -> ConditionView | None:
        """The condition of this type, if it holds."""
        return next((found for found in self.conditions if found.type == kind and found.status == "True"), None)

    @property
    def finished(self) -> ConditionView | None:
        """Complete or Failed, whichever holds."""
        return self.condition("Complete") or self.condition("Failed")


@dataclass(frozen=True, slots=True)
class Termination:
    """How a container ended."""

    exit_code: int
    reason: str
    message: str
    finished: str | None


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod of a Job of ours."""

    namespace: str
    name: str
    uid: str
    version: int
    owner: Owner | None
    created: str
    deleting: bool
    phase: str
    conditions: tuple[ConditionView, ...]
    waiting_reason: str
    waiting_message: str
    running: bool
    termination: Termination | None

    def condition(self, kind: str, status: str = "True") -> ConditionView | None:
        """The condition of this type and status."""
        return next((found for found in self.conditions if found.type == kind and found.status == status), None)

    @property
    def finished(self) -> bool:
        """Whether it has ended, either way."""
        return self.phase in ("Succeeded", "Failed")


def run_view(kind: Kind, raw: Raw) -> RunView:
    """Parse a custom resource."""
    meta, spec = raw["metadata"], raw.get("spec", {})
    model = spec.get("model") if kind == "AnomalyInference" else None
    return RunView(
        key=RunKey(kind, meta["namespace"], meta["name"]),
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        generation=meta.get("generation", 0),
        deleting="deletionTimestamp" in meta,
        spec=_json(spec),
        status=_json(raw.get("status", {})),
        experiment=model.get("experiment") if isinstance(model, Mapping) else None,
    )


def job_view(raw: Raw) -> JobView:
    """Parse a batch/v1 Job."""
    meta, spec, status = raw["metadata"], raw["spec"], raw.get("status", {})
    return JobView(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        owner=_controller(meta),
        created=meta["creationTimestamp"],
        deleting="deletionTimestamp" in meta,
        suspend=spec.get("suspend", False),
        queued=names.QUEUE_LABEL in meta.get("labels", {}),
        backoff_limit=spec.get("backoffLimit", 6),
        active_deadline=spec.get("activeDeadlineSeconds"),
        ttl=spec.get("ttlSecondsAfterFinished"),
        config_digest=meta.get("annotations", {}).get(names.CONFIG_DIGEST_ANNOTATION, ""),
        started=status.get("startTime"),
        completed=status.get("completionTime"),
        active=status.get("active", 0),
        failed=status.get("failed", 0),
        succeeded=status.get("succeeded", 0),
        conditions=_conditions(status),
    )


def pod_view(raw: Raw) -> PodView:
    """Parse a pod; of its containers only the runner counts."""
    meta, status = raw["metadata"], raw.get("status", {})
    states = [found for found in status.get("containerStatuses", ()) if found["name"] == names.CONTAINER]
    state: Raw = states[0].get("state", {}) if states else {}
    waiting: Raw = state.get("waiting") or {}
    return PodView(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        owner=_controller(meta),
        created=meta["creationTimestamp"],
        deleting="deletionTimestamp" in meta,
        phase=status.get("phase", "Pending"),
        conditions=_conditions(status),
        waiting_reason=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        running="running" in state,
        termination=_termination(state.get("terminated")),
    )


def _termination(state: Raw | None) -> Termination | None:
    if state is None:
        return None
    return Termination(
        exit_code=state["exitCode"],
        reason=state.get("reason", ""),
        message=state.get("message", ""),
        finished=state.get("finishedAt"),
    )


def _conditions(status: Raw) -> tuple[ConditionView, ...]:
    return tuple(
        ConditionView(
            type=found["type"],
            status=found["status"],
            reason=found.get("reason") or "",
            message=found.get("message") or "",
            time=found.get("lastTransitionTime"),
        )
        for found in status.get("conditions") or ()
    )


def _controller(meta: Raw) -> Owner | None:
    for reference in meta.get("ownerReferences", ()):
        if reference.get("controller"):
            return Owner(reference["kind"], reference["name"], reference["uid"])
    return None


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
