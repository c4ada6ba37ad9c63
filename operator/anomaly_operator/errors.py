"""Every exception that the operator raises, as one tree.

::

    Exception
    ├── OperatorError              a reconcile failed: logged once, by the reconciler, and retried with backoff
    │   ├── LoginError             no usable credentials for the API server
    │   ├── StatusUnreadable       a recorded status that this version of the operator cannot parse
    │   └── ApiError               the API server answered with a failure
    │       ├── Unauthorized  401  the credentials are not, or no longer, valid
    │       ├── Forbidden     403  RBAC, quota, or a namespace that is being terminated
    │       ├── NotFound      404  there is no such object
    │       ├── Conflict      409  the object exists already, or changed since it was read
    │       ├── Gone          410  the continue token of a LIST has expired
    │       ├── Invalid       400, 422: validation or an admission webhook rejected the object
    │       └── Unavailable   429, 5xx or no answer at all: a retry may succeed
    └── RequeueRequested           not a failure: the run has to be reconciled again later

``client.ApiClient`` retries Unauthorized and Unavailable itself; its callers see them when all retries failed.
"""


class OperatorError(Exception):
    """Base of every failure that the operator raises itself."""


class LoginError(OperatorError):
    """No usable credentials for the API server."""


class StatusUnreadable(OperatorError):  # noqa: N818 - a state, not an accident
    """A recorded status that this version cannot parse.

    The run is left alone: acting on a guess might start it a second time.
    """


class ApiError(OperatorError):
    """A failure that the API server answered with.

    Args:
        status: HTTP status code; 0 when there was no answer.
        message: the server's own message.
        retry_after: seconds that the server asked to wait (Retry-After), if it did.
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.retry_after = retry_after


class Unauthorized(ApiError):  # noqa: N818 - named as the HTTP status
    """401: the credentials are not, or no longer, valid."""


class Forbidden(ApiError):  # noqa: N818
    """403: not allowed, over quota, or the namespace is being terminated."""


class NotFound(ApiError):  # noqa: N818
    """404: there is no such object."""


class Conflict(ApiError):  # noqa: N818
    """409: the object exists already, or it changed since it was read."""


class Gone(ApiError):  # noqa: N818
    """410: the continue token of a LIST has expired."""


class Invalid(ApiError):  # noqa: N818
    """400 or 422: validation or an admission webhook rejected the object."""


class Unavailable(ApiError):  # noqa: N818
    """429, 5xx or no answer at all: a retry may succeed."""


class RequeueRequested(Exception):  # noqa: N818 - no failure
    """The run has to be reconciled again, with backoff: something outside the operator has to happen first."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: Unavailable,
}


def api_error(status: int, message: str, retry_after: float | None = None) -> ApiError:
    """Make the typed error of an HTTP status."""
    kind = _BY_STATUS.get(status, Unavailable if status >= 500 else ApiError)
    return kind(status, message, retry_after)
