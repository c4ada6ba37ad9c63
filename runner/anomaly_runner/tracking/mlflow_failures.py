"""What a failed request to MLflow means: what another pod may be granted, what stays refused, what is our own fault.

Only what a server or the network did is told as a failure of tracking. Whatever else is raised is a fault of this
program, and no server has to be looked at for it.
"""

import errno
from typing import Any

from anomaly_runner.errors import InternalError, RunFailed, TrackingDenied, TrackingUnavailable
from anomaly_runner.system.causes import causes
from anomaly_runner.system.full_disk import FULL, full_disk

TRANSIENT_STATUSES = (408, 425, 429)
"""The 4xx statuses that do not mean that the request is wrong."""
_REFUSED_STATES = ("INVALID_STATE",)
"""MLflow's codes of experiments and runs that were deleted; their status is 500."""
_REFUSED_WRITES = (errno.EACCES, errno.EPERM, errno.EROFS)
_OF_SERVERS = ("alembic", "azure", "boto3", "botocore", "google", "json", "mlflow", "requests", "sqlalchemy", "urllib3")
"""Packages whose exceptions tell of a server, its answer (``json``, and ``google`` for protocol buffers), a database or
a store of artifacts. Those of the network itself are OSErrors."""
_OF_FILES = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
"""OSErrors that only a file of this machine has, which this program chose."""
_MESSAGE_CHARACTERS = 800


def http_status(error: BaseException) -> int:
    """HTTP status of an error of MLflow, requests or botocore; 0 if there was no response."""
    from boto3.exceptions import S3UploadFailedError
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return int(error.get_http_status_code())
    if isinstance(error, S3UploadFailedError) and error.__context__ is not None:
        return http_status(error.__context__)
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return int(getattr(response, "status_code", 0))


def tracking_failure(error: Exception, uri: str) -> RunFailed:
    """The typed failure of what was done for a tracking server or its artifact store.

    Args:
        error: what MLflow's client, or this program, raised.
        uri: of the server, for the message.

    Returns:
        TrackingDenied if the server refused: a further pod would send the same request. TrackingUnavailable if there
        was no answer, or the server failed. StorageUnavailable if the disk of this machine is full. InternalError if it
        is none of these.
    """
    if isinstance(error, RunFailed):
        return error
    if is_of_this_disk(error):
        return full_disk(error)
    if is_of_the_server(error):
        return _failure_of_the_server(error, uri)
    return InternalError(f"tracking ended with a fault of this program ({type(error).__name__}: {error})")


def _failure_of_the_server(error: Exception, uri: str) -> TrackingDenied | TrackingUnavailable:
    why, status = str(error)[:_MESSAGE_CHARACTERS], http_status(error)
    if _is_of_a_proxy(error):
        status = _refusal_of_account(uri) or status
    if status in (401, 403):
        return TrackingDenied(
            f"MLflow at {uri} refuses the account ({status}): check tracking.mlflow.credentialsSecret ({why})"
        )
    if isinstance(error, OSError) and error.errno in _REFUSED_WRITES:
        return TrackingDenied(f"MLflow at {uri} keeps artifacts where this run may not write: {why}")
    if _is_final(error, status):
        return TrackingDenied(f"MLflow at {uri} refuses the run: {why}")
    return TrackingUnavailable(f"MLflow at {uri} does not take the run: {why}")


def is_of_this_disk(error: BaseException) -> bool:
    """Whether a disk that this program writes to is full; words do not count, for a server's own disk may be full."""
    return any(isinstance(link, OSError) and link.errno in FULL for link in causes(error))


def is_of_the_server(error: BaseException) -> bool:
    """Whether an exception tells what a server, its store of artifacts or the network did."""
    if isinstance(error, OSError):
        return not isinstance(error, _OF_FILES)
    return any(kind.__module__.partition(".")[0] in _OF_SERVERS for kind in type(error).__mro__)


def _is_of_a_proxy(error: Exception) -> bool:
    """Whether the answer was JSON, but not MLflow's: its client drops the status of such an answer."""
    answer = getattr(error, "json", None)
    return isinstance(answer, dict) and "error_code" not in answer


def _refusal_of_account(uri: str) -> int:
    """The status 401 or 403 that a plain request gets; 0 if it is answered otherwise."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        response = http_request(
            get_default_host_creds(uri), "/api/2.0/mlflow/experiments/get", "GET", params={"experiment_id": "0"}
        )
    except MlflowException:
        return 0
    return response.status_code if response.status_code in (401, 403) else 0


def artifact_failure(error: Exception, uri: str) -> RunFailed:
    """As ``tracking_failure``, for a file.

    MLflow's server answers 500 for a store that is read-only or full. One that does not pass files on names a store
    that its client needs a library for.
    """
    if isinstance(error, ImportError):
        return TrackingDenied(f"MLflow at {uri} keeps artifacts where this run cannot write without a library: {error}")
    failure = tracking_failure(error, uri)
    if not isinstance(failure, TrackingUnavailable) or http_status(error) < 500:
        return failure
    why = str(error)[:_MESSAGE_CHARACTERS]
    return TrackingUnavailable(
        f"MLflow at {uri} takes the run but not its files: its artifact store may be read-only or full ({why})"
    )


def _is_final(error: Exception, status: int) -> bool:
    refused = 400 <= status < 500 and status not in TRANSIENT_STATUSES
    return refused or getattr(error, "error_code", None) in _REFUSED_STATES
