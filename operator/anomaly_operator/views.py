"""Views: the few fields of Kubernetes objects that the operator keeps, frozen, parsed once at the edge.

A watched Job takes about 20 KB as a parsed dict and 1 KB as a view. Specs and statuses of runs are kept as JSON
bytes and parsed when a run is reconciled.

Timestamps are kept as the API server wrote them: metav1.Time, RFC 3339 in UTC, whole seconds
(``2026-01-02T03:04:05Z``), which sort as text. Views decide nothing; they answer questions about one object.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anomaly_operator import names
from anomaly_operator.keys import KINDS, Kind, RunKey

Raw = Mapping[str, Any]
"""A Kubernetes object, or a part of one, as parsed from the API server's JSON; only read."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The controller in an object's ownerReferences."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionView:
    """A condition of a Job or pod."""

    type: str
    status: str
    """``True``, ``False`` or ``Unknown``."""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    """When status last changed (RFC 3339)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """An AnomalyExperiment or AnomalyInference."""

    key: RunKey
    uid: str
    resource_version: int
    """Increases with every write: of two views of one object, the one with the greater value is newer."""
    generation: int
    """Increases with every change of the spec."""
    deleting: bool
    """Whether it has a deletionTimestamp."""
    spec: bytes
    """The spec as JSON, not yet validated."""
    rerun: str | None
    """spec.runPolicy.rerun, with which a user asks for another run."""
    status: bytes
    """The recorded status as JSON, not yet validated; ``{}`` before the operator wrote one."""
    suspend: bool
    """spec.runPolicy.suspend."""
    phase: str | None
    """The recorded phase, as it is."""
    owner: Owner | None
    """Its controller: of a trial, the sweep."""
    experiment_name: str | None
    """Name of the AnomalyExperiment in the same namespace whose model an inference uses, or with whose best points a
    sweep begins, if it names one."""

    @property
    def has_sweep(self) -> bool:
        """Whether its spec has a sweep."""
        return self.key.kind == "AnomalyExperiment" and b'"sweep":{"' in self.spec

    @property
    def sweep_key(self) -> RunKey | None:
        """The sweep that a trial belongs to; None for anything else."""
        if self.owner is None or self.owner.kind != "AnomalyExperiment" or self.key.kind != "AnomalyExperiment":
            return None
        return RunKey("AnomalyExperiment", self.key.namespace, self.owner.name)

    @property
    def is_over(self) -> bool:
        """Whether the recorded phase is the end of the run."""
        return self.phase in ("Complete", "Failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A Job that the operator created for a run."""

    namespace: str
    name: str
    uid: str
    resource_version: int
    owner: Owner | None
    """Its controller, normally the run's resource; None if it has no controller."""
    creation_time: str
    """RFC 3339."""
    deleting: bool
    """Whether it has a deletionTimestamp."""
    suspend: bool
    """spec.suspend: the Job controller makes no pods while it is true."""
    step: str | None
    """The run's step that it does; None for the last one, which is the work itself."""
    queued: bool
    """Whether it names a Kueue queue, so that Kueue decides when it is unsuspended."""
    backoff_limit: int
    """Retries before the Job fails (count of pods)."""
    active_deadline_seconds: int | None
    """Seconds that the Job may be active; None means no limit."""
    ttl_seconds_after_finished: int | None
    """Seconds after its end until the Job is deleted; None means never."""
    config_digest: str
    """Digest of the RunConfig that it was made from; empty for a Job that has none."""
    installation: str
    """Installation of the operator that made it; empty for a Job of an earlier release."""
    start_time: str | None
    """When the Job controller started it (RFC 3339); None before, and while it is suspended."""
    completion_time: str | None
    """When it completed (RFC 3339); None before, and for a Job that failed."""
    active: int
    """Pods that are pending or running and not being deleted (count)."""
    failed: int
    """Pods that failed (count)."""
    succeeded: int
    """Pods that succeeded (count)."""
    conditions: tuple[ConditionView, ...]

    @property
    def run_key(self) -> RunKey | None:
        """The run that the Job belongs to; None if its controller is not a run."""
        if self.owner is None:
            return None
        kind = next((kind for kind in KINDS if kind == self.owner.kind), None)
        return RunKey(kind, self.namespace, self.owner.name) if kind else None

    @property
    def finished_condition(self) -> ConditionView | None:
        """Complete or Failed, whichever is True; None while the Job is not finished."""
        return self.find_true("Complete") or self.find_true("Failed")

    def is_made_by(self, installation: str) -> bool:
        """Whether this installation of the operator made it, as far as that is known."""
        return self.installation in ("", installation)

    def is_controlled_by(self, uid: str) -> bool:
        """Whether the resource of this UID is the Job's controller."""
        return self.owner is not None and self.owner.uid == uid

    def find_true(self, condition_type: str) -> ConditionView | None:
        """Return the condition of this type if it is True."""
        return _find(self.conditions, condition_type, "True")


@dataclass(frozen=True, slots=True, kw_only=True)
class Termination:
    """How the runner container of a pod ended (state.terminated)."""

    exit_code: int
    """0 to 255; 128 + N for a container that was killed by signal N."""
    reason: str
    """The kubelet's reason, such as ``Completed``, ``Error`` or ``OOMKilled``."""
    message: str
    """What the container wrote to its termination log, at most 4 KiB: a RunSummary as JSON, if all went well."""
    finished_at: str | None
    """RFC 3339."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """A pod of a run's Job."""

    namespace: str
    name: str
    uid: str
    resource_version: int
    owner: Owner | None
    """Its controller, normally the Job that created it."""
    creation_time: str
    """RFC 3339."""
    deleting: bool
    """Whether it has a deletionTimestamp, or has been deleted since."""
    phase: str
    """``Pending``, ``Running``, ``Succeeded``, ``Failed`` or ``Unknown``."""
    conditions: tuple[ConditionView, ...]
    waiting_reason: str
    """Why the runner container waits (state.waiting), such as ``ImagePullBackOff``; empty when it does not."""
    waiting_message: str
    """The message that goes with ``waiting_reason``."""
    running: bool
    """Whether the runner container runs (state.running)."""
    termination: Termination | None
    """How the runner container ended; None while it has not ended, or if the kubelet never reported it."""

    @property
    def finished(self) -> bool:
        """Whether the pod succeeded or failed."""
        return self.phase in ("Succeeded", "Failed")

    def find_condition(self, condition_type: str, status: str = "True") -> ConditionView | None:
        """Return the condition of this type if it has this status."""
        return _find(self.conditions, condition_type, status)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """An Event about a Job or pod."""

    reason: str
    """In CamelCase, such as ``FailedCreate``."""
    message: str
    """For people."""
    last_seen: str
    """When it last happened (RFC 3339, whole seconds)."""


def run_view(kind: Kind, raw: Raw) -> RunView:
    """Parse a custom resource."""
    meta, spec = raw["metadata"], raw.get("spec", {})
    status = raw.get("status", {})
    policy = spec.get("runPolicy")
    return RunView(
        key=RunKey(kind, meta["namespace"], meta["name"]),
        uid=meta["uid"],
        resource_version=int(meta["resourceVersion"]),
        generation=meta.get("generation", 0),
        deleting="deletionTimestamp" in meta,
        spec=_json(spec),
        rerun=policy.get("rerun") if isinstance(policy, Mapping) else None,
        suspend=bool(policy.get("suspend")) if isinstance(policy, Mapping) else False,
        status=_json(status),
        phase=status.get("phase"),
        owner=_controller(meta),
        experiment_name=_experiment_name(kind, spec),
    )


def _experiment_name(kind: Kind, spec: Raw) -> str | None:
    path = ("model", "experiment") if kind == "AnomalyInference" else ("sweep", "start", "fromExperiment", "name")
    found: Any = spec
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else None


def job_view(raw: Raw) -> JobView:
    """Parse a batch/v1 Job."""
    meta, spec, status = raw["metadata"], raw["spec"], raw.get("status", {})
    return JobView(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        resource_version=int(meta["resourceVersion"]),
        owner=_controller(meta),
        creation_time=meta["creationTimestamp"],
        deleting="deletionTimestamp" in meta,
        suspend=spec.get("suspend", False),
        step=meta.get("labels", {}).get(names.STEP_LABEL),
        queued=names.QUEUE_LABEL in meta.get("labels", {}),
        backoff_limit=spec.get("backoffLimit", 6),
        active_deadline_seconds=spec.get("activeDeadlineSeconds"),
        ttl_seconds_after_finished=spec.get("ttlSecondsAfterFinished"),
        config_digest=meta.get("annotations", {}).get(names.CONFIG_DIGEST_ANNOTATION, ""),
        installation=meta.get("annotations", {}).get(names.INSTALLATION_ANNOTATION, ""),
        start_time=status.get("startTime"),
        completion_time=status.get("completionTime"),
        active=status.get("active", 0),
        failed=status.get("failed", 0),
        succeeded=status.get("succeeded", 0),
        conditions=_conditions(status),
    )


def pod_view(raw: Raw) -> PodView:
    """Parse a pod; all containers except the runner are ignored."""
    meta, status = raw["metadata"], raw.get("status", {})
    runners = [container for container in status.get("containerStatuses", ()) if container["name"] == names.CONTAINER]
    state: Raw = runners[0].get("state", {}) if runners else {}
    waiting: Raw = state.get("waiting") or {}
    return PodView(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        resource_version=int(meta["resourceVersion"]),
        owner=_controller(meta),
        creation_time=meta["creationTimestamp"],
        deleting="deletionTimestamp" in meta,
        phase=status.get("phase", "Pending"),
        conditions=_conditions(status),
        waiting_reason=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        running="running" in state,
        termination=_termination(state.get("terminated")),
    )


def event_view(raw: Raw) -> EventView:
    """Parse a core/v1 Event, which has its time in one of several fields, depending on who wrote it."""
    series: Raw = raw.get("series") or {}
    time = raw.get("lastTimestamp") or series.get("lastObservedTime") or raw.get("eventTime")
    seen = time or raw["metadata"]["creationTimestamp"]
    return EventView(
        reason=raw.get("reason") or "",
        message=raw.get("message") or "",
        last_seen=seen[: len("2026-01-02T03:04:05")] + "Z",
    )


def _termination(terminated: Raw | None) -> Termination | None:
    if terminated is None:
        return None
    return Termination(
        exit_code=terminated["exitCode"],
        reason=terminated.get("reason", ""),
        message=terminated.get("message", ""),
        finished_at=terminated.get("finishedAt"),
    )


def _conditions(status: Raw) -> tuple[ConditionView, ...]:
    return tuple(
        ConditionView(
            type=condition["type"],
            status=condition["status"],
            reason=condition.get("reason") or "",
            message=condition.get("message") or "",
            last_transition_time=condition.get("lastTransitionTime"),
        )
        for condition in status.get("conditions") or ()
    )


def _find(conditions: tuple[ConditionView, ...], condition_type: str, status: str) -> ConditionView | None:
    return next((found for found in conditions if found.type == condition_type and found.status == status), None)


def _controller(meta: Raw) -> Owner | None:
    for reference in meta.get("ownerReferences", ()):
        if reference.get("controller"):
            return Owner(reference["kind"], reference["name"], reference["uid"])
    return None


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
