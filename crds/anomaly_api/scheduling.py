"""Where and how the pod runs. Names and meanings are those of a pod's own fields."""

from typing import Annotated, Literal

from pydantic import Field

from anomaly_api.base import Contract
from anomaly_api.primitives import FreeForm, LabelMap, Name, Quantity, Text
from anomaly_api.rules import exactly_one

Resources = Annotated[dict[str, Quantity], Field(max_length=16)]


class Gpus(Contract):
    """GPUs as an extended resource."""

    count: Annotated[int, Field(ge=0, le=64)] = 1
    """How many; 0 asks for none, and the run is on the CPU unless resourceClaims have devices."""
    resource_name: Annotated[str, Field(max_length=128, pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")] = "nvidia.com/gpu"
    """Extended resource that the device plugin advertises."""
    required: bool = True
    """Whether a pod that cannot use its GPUs ends the run, as GpuUnavailable, which another node may mend (it counts
    against runPolicy.backoffLimit); false: the run goes on on the CPU, and status.device and an Event say why."""


class ResourceClaim(Contract):
    """A claim of Dynamic Resource Allocation."""

    rules = (exactly_one("resource_claim_name", "resource_claim_template_name"),)

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """Name of the claim inside the pod."""
    resource_claim_name: Name | None = None
    """An existing ResourceClaim."""
    resource_claim_template_name: Name | None = None
    """A ResourceClaimTemplate from which the pod's own claim is made."""


class ResourceRequirements(Contract):
    """CPU, memory and other resources of the pod."""

    requests: Resources | None = None
    """What the scheduler reserves."""
    limits: Resources | None = None
    """What the pod may use at most."""


class Toleration(Contract):
    """A taint that the pod tolerates."""

    key: Text | None = None
    """Taint key; unset with operator Exists matches all."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How the value is compared."""
    value: Annotated[str, Field(max_length=256)] | None = None
    """Taint value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Taint effect; unset matches all."""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """Seconds for which NoExecute is tolerated."""


class EnvVar(Contract):
    """An environment variable with a plain value; secrets belong in credentialsSecret."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """Name."""
    value: Annotated[str, Field(max_length=4096)]
    """Value."""


class PodTemplate(Contract):
    """Additions to the pod that the operator creates."""

    labels: LabelMap | None = None
    """Further labels; the operator's own take precedence."""
    annotations: LabelMap | None = None
    """Further annotations."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64)] | None = None
    """Further environment variables, such as proxies."""
    image_pull_secrets: Annotated[tuple[Name, ...], Field(max_length=8)] | None = None
    """Names of Secrets for the image's registry."""


class Scheduling(Contract):
    """Where and how the pod runs."""

    gpus: Gpus = Gpus()
    """GPUs requested."""
    resource_claims: Annotated[tuple[ResourceClaim, ...], Field(max_length=8)] | None = None
    """Devices by Dynamic Resource Allocation, beside or instead of gpus."""
    resources: ResourceRequirements = ResourceRequirements()
    """CPU and memory."""
    node_selector: LabelMap | None = None
    """Labels that the node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] | None = None
    """Taints that are tolerated."""
    affinity: FreeForm | None = None
    """A pod's affinity (core/v1 Affinity)."""
    priority_class_name: Name | None = None
    """Priority class."""
    runtime_class_name: Name | None = None
    """Runtime class, such as nvidia."""
    queue_name: Name | None = None
    """Kueue LocalQueue: the Job is created suspended and Kueue starts it."""
    pod_template: PodTemplate | None = None
    """Additions to the pod that the operator creates."""
    service_account_name: Name | None = None
    """Service account, for workload identity; its token is not mounted."""
    image: Text | None = None
    """Runner image; unset means the operator's default."""


class RunPolicy(Contract):
    """Suspension, retries, deadline and clean-up of a run. All fields may change while it runs; none but rerun starts
    another one."""

    suspend: bool = False
    """Stop the pod (true) or let it run (false)."""
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = 3
    """Retries after failures that may be temporary. Preemption does not count, and failures that a retry cannot fix
    (wrong values, data, credentials) are not retried."""
    active_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    """Longest time the run may take, seconds, over all of its steps."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = None
    """Seconds after which the finished Jobs and their pods are deleted; the resource and its status stay."""
    retain_pods: Literal["always", "onFailure"] = "always"
    """Which finished pods (and so their logs) stay until the TTL or the deletion of the resource."""
    preflight: Literal["Auto", "Always", "Never"] = "Auto"
    """Whether a Job without a GPU and without the queue first checks what can be known before the work: images, masks,
    weights, parameters, memory. Auto: where GPUs or other devices are asked for, or a queue is named."""
    rerun: Text | None = None
    """Any text, such as a date: a changed one runs a resource that is Complete or Failed again, without another change
    of its spec."""
