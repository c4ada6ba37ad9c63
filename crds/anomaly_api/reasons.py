"""Why a run is in the state it is in: the reasons of conditions and the runner's exit codes.

A pod's exit code is the one channel that always survives, so each typed failure has its own. The Job's
podFailurePolicy is derived from this table: what cannot succeed on a second try is never retried.
"""

from enum import IntEnum, StrEnum


class Reason(StrEnum):
    """CamelCase reasons of status conditions."""

    # Course of a run
    PENDING = "Pending"
    WAITING_FOR_EXPERIMENT = "WaitingForExperiment"
    EXPERIMENT_NOT_FOUND = "ExperimentNotFound"
    EXPERIMENT_FAILED = "ExperimentFailed"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, not a secret
    PODS_REFUSED = "PodsRefused"
    VOLUME_UNAVAILABLE = "VolumeUnavailable"
    STARTING = "Starting"
    RUNNING = "Running"
    QUEUED = "Queued"
    RETRYING = "Retrying"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    COMPLETE = "Complete"
    PRUNED = "Pruned"
    DATA_READY = "DataReady"
    SUPERSEDED = "Superseded"
    MODEL_OUTDATED = "ModelOutdated"
    NEW_BEST = "NewBest"
    # The operator's own failures
    SPEC_INVALID = "SpecInvalid"
    JOB_REFUSED = "JobRefused"
    JOB_DELETED = "JobDeleted"
    RESULT_LOST = "ResultLost"
    TRIALS_FAILED = "TrialsFailed"
    # Failures of a run
    INVALID_CONFIG = "InvalidConfig"
    DATA_INVALID = "DataInvalid"
    STORAGE_DENIED = "StorageDenied"
    OUT_OF_MEMORY = "OutOfMemory"
    DIVERGED = "Diverged"
    WEIGHTS_NOT_FOUND = "WeightsNotFound"
    MODEL_INVALID = "ModelInvalid"
    EXPORT_MISMATCH = "ExportMismatch"
    TRACKING_DENIED = "TrackingDenied"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    TRACKING_UNAVAILABLE = "TrackingUnavailable"
    PREEMPTED = "Preempted"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    GPU_UNAVAILABLE = "GpuUnavailable"
    DATA_CHANGED = "DataChanged"
    INTERNAL_ERROR = "InternalError"


class ExitCode(IntEnum):
    """Exit codes of the runner: 10..19 are final, after 20..29 a retry may succeed."""

    DONE = 0
    INTERNAL_ERROR = 1
    INVALID_CONFIG = 10
    DATA_INVALID = 11
    STORAGE_DENIED = 12
    OUT_OF_MEMORY = 13
    DIVERGED = 14
    WEIGHTS_NOT_FOUND = 15
    MODEL_INVALID = 16
    EXPORT_MISMATCH = 17
    TRACKING_DENIED = 18
    STORAGE_UNAVAILABLE = 20
    TRACKING_UNAVAILABLE = 21
    GPU_UNAVAILABLE = 22
    DATA_CHANGED = 23
    KILLED = 137
    STOPPED = 143

    @property
    def reason(self) -> Reason:
        """The reason that this exit code stands for."""
        return _REASONS[self]

    @classmethod
    def of(cls, reason: Reason) -> "ExitCode":
        """Return the exit code of a run that ends for this reason."""
        if reason in COMPLETED:
            return cls.DONE
        return next(code for code, meant in _REASONS.items() if meant is reason)


COMPLETED = frozenset((Reason.COMPLETE, Reason.PRUNED))
"""Reasons of runs that ended without a failure: with all that they were to make, or given up as the operator said."""

_REASONS = {
    ExitCode.DONE: Reason.COMPLETE,
    ExitCode.INTERNAL_ERROR: Reason.INTERNAL_ERROR,
    ExitCode.INVALID_CONFIG: Reason.INVALID_CONFIG,
    ExitCode.DATA_INVALID: Reason.DATA_INVALID,
    ExitCode.STORAGE_DENIED: Reason.STORAGE_DENIED,
    ExitCode.OUT_OF_MEMORY: Reason.OUT_OF_MEMORY,
    ExitCode.DIVERGED: Reason.DIVERGED,
    ExitCode.WEIGHTS_NOT_FOUND: Reason.WEIGHTS_NOT_FOUND,
    ExitCode.MODEL_INVALID: Reason.MODEL_INVALID,
    ExitCode.EXPORT_MISMATCH: Reason.EXPORT_MISMATCH,
    ExitCode.TRACKING_DENIED: Reason.TRACKING_DENIED,
    ExitCode.STORAGE_UNAVAILABLE: Reason.STORAGE_UNAVAILABLE,
    ExitCode.TRACKING_UNAVAILABLE: Reason.TRACKING_UNAVAILABLE,
    ExitCode.GPU_UNAVAILABLE: Reason.GPU_UNAVAILABLE,
    ExitCode.DATA_CHANGED: Reason.DATA_CHANGED,
    ExitCode.KILLED: Reason.OUT_OF_MEMORY,
    ExitCode.STOPPED: Reason.PREEMPTED,
}

FINAL_EXIT_CODES = (
    ExitCode.INVALID_CONFIG,
    ExitCode.DATA_INVALID,
    ExitCode.STORAGE_DENIED,
    ExitCode.OUT_OF_MEMORY,
    ExitCode.DIVERGED,
    ExitCode.WEIGHTS_NOT_FOUND,
    ExitCode.MODEL_INVALID,
    ExitCode.EXPORT_MISMATCH,
    ExitCode.TRACKING_DENIED,
    ExitCode.KILLED,
)
"""Exit codes that fail the Job at once: a second try would end the same way."""
