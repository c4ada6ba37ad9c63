"""Pods whose runner has ended while another of their containers goes on: a service mesh's proxy, a log shipper.

Such a pod never finishes, and neither does its Job. The runner's own end is the end of the attempt: the run is
recorded, or tried again, and the pod is ended. Kubernetes' own sidecars (init containers that are restarted always) end
by themselves.
"""

from datetime import datetime

from anomaly_api.reasons import FINAL_EXIT_CODES, ExitCode
from anomaly_operator.decide.observed import ObservedState
from anomaly_operator.decide.times import from_timestamp
from anomaly_operator.views import PodView

GRACE_SECONDS = 15.0
"""Time for the other containers to end by themselves, and for the kubelet to report it."""


def seconds_until_outlived(observed: ObservedState, now: datetime) -> float | None:
    """Return the seconds after which the runner's end counts as that of its pod; 0 for now, None for no such pod."""
    pod = _active_pod(observed)
    if pod is None or pod.termination is None or pod.termination.finished_at is None:
        return None
    age = (now - from_timestamp(pod.termination.finished_at)).total_seconds()
    return max(0.0, GRACE_SECONDS - age)


def outlived_pod(observed: ObservedState, now: datetime) -> PodView | None:
    """Return the pod whose runner's end counts as its own."""
    return _active_pod(observed) if seconds_until_outlived(observed, now) == 0 else None


def _active_pod(observed: ObservedState) -> PodView | None:
    job = observed.job
    if job is None or job.deleting or job.finished_condition:
        return None
    return observed.active_pod


def ends_run(pod: PodView) -> bool:
    """Whether another attempt would not help: the runner was done, or failed for good."""
    assert pod.termination is not None
    return pod.termination.exit_code in (ExitCode.DONE, *FINAL_EXIT_CODES)
