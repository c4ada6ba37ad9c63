"""The observed state of a run: everything known about it besides its resource."""

from dataclasses import dataclass

from anomaly_api.run import ProgressUpdate
from anomaly_operator.views import EventView, JobView, PodView, RunView


@dataclass(frozen=True)
class Refusal:
    """The API server did not accept the run's Job."""

    message: str


@dataclass(frozen=True)
class PastJob:
    """A Job of the run whose step is done, or of an earlier run of the resource."""

    job: JobView
    pods: tuple[PodView, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ObservedState:
    """What exists for a run, and what happened to it in this reconcile."""

    job: JobView | None = None
    """The Job that has the name of the Job of the step at work; it may belong to another owner."""
    pods: tuple[PodView, ...] = ()
    """The Job's pods, oldest first."""
    past: tuple[PastJob, ...] = ()
    """The resource's other Jobs."""
    experiment: RunView | None = None
    """The experiment whose model the run uses, if it names one that exists."""
    progress: ProgressUpdate | None = None
    """The last progress that a pod of the run pushed."""
    refusal: Refusal | None = None
    """Why this reconcile could not create the Job."""
    outlived: PodView | None = None
    """The pod whose runner has ended, while another container keeps it from finishing."""
    explanation: EventView | None = None
    """The Event that tells why the Job has no pod, or why its pod does not start."""
    job_recreated: bool = False
    """Whether the Job of a run that had started was missing, and this reconcile created it again."""

    @property
    def active_pod(self) -> PodView | None:
        """The newest pod that has neither finished nor is being deleted."""
        return next((pod for pod in reversed(self.pods) if not pod.finished and not pod.deleting), None)
