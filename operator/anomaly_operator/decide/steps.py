"""The steps of a run: ordered Jobs, each with its own resources and its own part of the RunConfig.

Most runs are one step. Where a GPU or a queue would be waited for, a step ``check`` looks at the data on a CPU first.
What a step found out is in the run's status before the next one's Job is made, so the next step is a function of the
spec and the status.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from anomaly_api.inference import InferenceSpec
from anomaly_api.run import RunConfig, RunSpec
from anomaly_api.scheduling import Gpus, ResourceRequirements, RunPolicy, Scheduling
from anomaly_api.status import Listing, RunStatus, StepFailure, StepName, StepStatus
from anomaly_operator import names
from anomaly_operator.decide.times import from_timestamp
from anomaly_operator.keys import RunKey

CHECK_RESOURCES = ResourceRequirements(requests={"cpu": "250m", "memory": "1536Mi"}, limits={"memory": "4Gi"})
"""What a check takes: 1 GB for torch and its libraries, and one decoded image or a model without its weights.

Measured: 1.0 GB for PaDiM and models of anomalib, 1.2 GB for PatchCore on a wide ResNet-50, 1.7 GB on ConvNeXt-Large.
"""
REPORT_SECONDS = 600
"""Longest time from a search's failure to the end of its run: by then its page is made, or goes without."""
PLATFORM_LABELS = frozenset({"kubernetes.io/arch", "kubernetes.io/os"})
"""Labels of nodes that say which images they can run."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a run, which is one Job."""

    config: RunConfig
    """What its pod is told."""
    scheduling: Scheduling
    """Where and with what its pod runs."""
    label: StepName | None
    """Its name in names and labels of objects; None for the last step, which is the work itself."""


def run_steps(spec: RunSpec, status: RunStatus) -> tuple[StepName, ...]:
    """Return the names of the run's steps, in order: nothing is trained with what a failed search found."""
    check: tuple[StepName, ...] = ("check",) if _is_checked(spec.scheduling, spec.run_policy) else ()
    if isinstance(spec, InferenceSpec):
        return (*check, "score")
    if spec.sweep is None:
        return (*check, "train")
    trains = spec.sweep.final == "train" and search_failure(status) is None
    return (*check, "search", "train" if trains else "report")


def search_failure(status: RunStatus) -> StepFailure | None:
    """Return why the search failed that the step report tells of; None if it did not, or is not over."""
    return next((step.failure for step in status.steps or () if step.failure), None)


def _is_checked(scheduling: Scheduling, policy: RunPolicy) -> bool:
    if policy.preflight != "Auto":
        return policy.preflight == "Always"
    return bool(scheduling.gpus.count or scheduling.resource_claims or scheduling.queue_name)


def next_step(steps: Sequence[StepName], key: RunKey, status: RunStatus) -> StepName:
    """Return the step at work: the first that is not done.

    Once a later step has begun, an earlier one is not made up for, whatever the run policy says by now.
    """
    if status.job_name == names.job(key, run_number(status)):
        return steps[-1]
    if "search" in steps and status.sweep and status.sweep.asked:
        steps = steps[steps.index("search") :]
    done = {step.name for step in status.steps or ()}
    return next((name for name in steps if name not in done), steps[-1])


def make_step(name: StepName, config: RunConfig, status: RunStatus) -> Step:
    """Make the step of this name.

    Args:
        name: the step.
        config: what the run does.
        status: what earlier steps found out.
    """
    scheduling = config.spec.scheduling
    if name == "check":
        told = config.model_copy(update={"step": name})
        return Step(config=told, scheduling=_check_scheduling(scheduling), label=name)
    if name == "report":  # draws what was found
        told = config.model_copy(update={"step": name})
        return Step(config=told, scheduling=_check_scheduling(scheduling), label=None)
    if not status.steps:
        return Step(config=config, scheduling=scheduling, label=None)
    told = config.model_copy(update={"step": name, "listing": _listing(status)})
    return Step(config=told, scheduling=scheduling, label=None)


def _listing(status: RunStatus) -> Listing | None:
    return next((step.listing for step in status.steps or () if step.listing), None)


def _check_scheduling(scheduling: Scheduling) -> Scheduling:
    """Return where a check runs: on any node that can run the image, outside the queue, without devices."""
    selector = {label: value for label, value in (scheduling.node_selector or {}).items() if label in PLATFORM_LABELS}
    return scheduling.model_copy(
        update={
            "gpus": Gpus(count=0),
            "resource_claims": None,
            "resources": CHECK_RESOURCES,
            "node_selector": selector or None,
            "affinity": None,
            "runtime_class_name": None,
            "queue_name": None,
        }
    )


def run_number(status: RunStatus) -> int | None:
    """Return the number that names and folders of the run carry; None for the first run, whose carry none."""
    return status.run if status.run and status.run > 1 else None


def seconds_left(policy: RunPolicy, status: RunStatus) -> int | None:
    """Return how long the step at work may take, seconds: what earlier steps have left of the run's deadline.

    A search may have failed because nothing is left of it; telling of that has a time of its own.
    """
    if search_failure(status):
        return REPORT_SECONDS
    if policy.active_deadline_seconds is None:
        return None
    return max(1, policy.active_deadline_seconds - seconds_spent(status))


def seconds_spent(status: RunStatus) -> int:
    """Return how long the steps took that are done."""
    return sum(map(_seconds, status.steps or ()))


def _seconds(step: StepStatus) -> int:
    if step.start_time is None or step.completion_time is None:
        return 0
    return round((from_timestamp(step.completion_time) - from_timestamp(step.start_time)).total_seconds())
