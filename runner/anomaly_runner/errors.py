"""The exceptions that end a run: a tree in which each leaf has its own exit code and reason.

::

    RunFailed
    ├── InvalidConfig          10  the manifest asks for something impossible
    ├── DataInvalid            11  images missing, unreadable or not laid out as expected
    ├── StorageDenied          12  the storage refused the credentials
    ├── OutOfMemory            13  the run does not fit into memory, by estimate or in fact
    ├── Diverged               14  scores that are not finite
    ├── WeightsNotFound        15  the backbone's weights are not where they are expected
    ├── ModelInvalid           16  a trained model that is missing, damaged or of an unknown format
    ├── ExportMismatch         17  an export that disagrees with the model it came from
    ├── TrackingDenied         18  the tracking server refuses the account, the experiment or the run
    ├── StorageUnavailable     20  the storage does not answer (a retry may succeed)
    ├── TrackingUnavailable    21  the tracking server does not answer (a retry may succeed)
    ├── GpuUnavailable         22  the pod cannot use the GPUs that it was given (another node may)
    ├── DataChanged            23  a file is no longer what an earlier step listed (the next attempt lists anew)
    ├── Stopped               143  SIGTERM: the cluster wants the node back
    └── InternalError           1  anything else: a fault of this program

A stage raises a leaf; ``termination.capture_failures`` turns it into the pod's termination message and exit code. In
between it is caught only

- to raise a more specific leaf: missing files of a model become ModelInvalid;
- to publish the results first: export returns the failure, and the run fails once everything else is published;
- to store the state of a training that was stopped: a failure to store it is logged and does not replace Stopped.

Exceptions about a single file (``data.images.UnreadableImageError``) are not in this tree: the code that reads the file
decides what they mean for the run.
"""

from typing import ClassVar

from anomaly_api.reasons import ExitCode, Reason

MESSAGE_LIMIT = 1024
"""Largest number of characters of a message in a condition."""


class RunFailed(Exception):  # noqa: N818 - an outcome, named as the reasons are
    """Base class: the run cannot go on. ``str()`` is a message for people: what failed and what to do."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL_ERROR

    @property
    def reason(self) -> Reason:
        """The reason shown in the resource's conditions."""
        return self.exit_code.reason


class InvalidConfig(RunFailed):
    """The manifest asks for something impossible."""

    exit_code = ExitCode.INVALID_CONFIG


class DataInvalid(RunFailed):
    """Images are missing, unreadable or not laid out as expected."""

    exit_code = ExitCode.DATA_INVALID


class StorageDenied(RunFailed):
    """The storage refused the credentials."""

    exit_code = ExitCode.STORAGE_DENIED


class OutOfMemory(RunFailed):
    """The run does not fit into memory."""

    exit_code = ExitCode.OUT_OF_MEMORY


class Diverged(RunFailed):
    """Scores are not finite."""

    exit_code = ExitCode.DIVERGED


class WeightsNotFound(RunFailed):
    """The backbone's weights are not where they are expected."""

    exit_code = ExitCode.WEIGHTS_NOT_FOUND


class ModelInvalid(RunFailed):
    """A trained model is missing, damaged or of an unknown format."""

    exit_code = ExitCode.MODEL_INVALID


class ExportMismatch(RunFailed):
    """An export disagrees with the model it came from."""

    exit_code = ExitCode.EXPORT_MISMATCH


class TrackingDenied(RunFailed):
    """The tracking server refuses the account, the experiment or what is logged."""

    exit_code = ExitCode.TRACKING_DENIED


class StorageUnavailable(RunFailed):
    """The storage does not answer."""

    exit_code = ExitCode.STORAGE_UNAVAILABLE


class TrackingUnavailable(RunFailed):
    """The tracking server does not answer."""

    exit_code = ExitCode.TRACKING_UNAVAILABLE


class GpuUnavailable(RunFailed):
    """The pod cannot use the GPUs that it was given."""

    exit_code = ExitCode.GPU_UNAVAILABLE


class DataChanged(RunFailed):
    """A file is no longer what an earlier step listed: another attempt lists the files anew."""

    exit_code = ExitCode.DATA_CHANGED


class Stopped(RunFailed):
    """The process was asked to stop (SIGTERM)."""

    exit_code = ExitCode.STOPPED

    def __init__(
        self, message: str = "stopped by the cluster (SIGTERM) before the run was complete; nothing was published"
    ) -> None:
        super().__init__(message)


class InternalError(RunFailed):
    """A fault of this program."""
