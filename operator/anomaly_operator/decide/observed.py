"""What is known of a run besides its resource."""

from dataclasses import dataclass

from anomaly_api.run import ProgressUpdate
from anomaly_operator.views import JobView, PodView


@dataclass(frozen=True)
class Refusal:
    """The API server did not take the run's Job."""

    message: str


@dataclass(frozen=True)
class Observed:
    """The run's Job, its pods (oldest first) and the last progress that one of them pushed."""

    job: JobView | None = None
    pods: tuple[PodView, ...] = ()
    progress: ProgressUpdate | None = None
    refusal: Refusal | None = None
    replaced: bool = False
    """Whether the Job of the unfinished run was missing and had to be made again."""
