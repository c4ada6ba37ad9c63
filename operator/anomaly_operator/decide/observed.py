"""The observed state of a run: everything known about it besides its resource."""

from dataclasses import dataclass

from anomaly_api.run import ProgressUpdate
from anomaly_operator.views import EventView, JobView, PodView


@dataclass(frozen=True)
class Refusal:
    """The API server did not accept the run's Job."""

    message: str


@dataclass(frozen=True, kw_only=True)
class ObservedState:
    """What exists for a run, and what happened to it in this reconcile."""

    job: JobView | None = None
    """The Job that has the name of the run's Job; it may belong to another owner."""
    pods: tuple[PodView, ...] = ()
    """The Job's pods, oldest first."""
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
