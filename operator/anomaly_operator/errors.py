"""Everything that can go wrong in the operator, as one tree.

::

    OperatorError
    ├── LoginError                 no usable credentials for the API server
    ├── StatusUnreadable           a recorded status that this version cannot parse
    └── ApiError                   the API server answered with a failure
        ├── Unauthorized  401
        ├── Forbidden     403      RBAC, quota, or a namespace being deleted
        ├── NotFound      404
        ├── Conflict      409      exists already, or changed since it was read
        ├── Gone          410      a list's continue token is too old
        ├── Invalid       400, 422 validation or an admission webhook refused it
        └── Unavailable            429, 5xx, no connection: worth another try
"""


class OperatorError(Exception):
    """Base of all errors of this application."""


class LoginError(OperatorError):
    """No usable credentials for the API server."""


class StatusUnreadable(OperatorError):  # noqa: N818 - a state, not an accident
    """A recorded status that this version cannot parse; nothing is done to the run rather than guess."""


class ApiError(OperatorError):
    """The API server answered with a failure."""

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.retry_after = retry_after


class Unauthorized(ApiError):  # noqa: N818 - named as the HTTP status
    """401: the credentials are not, or no longer, valid."""


class Forbidden(ApiError):  # noqa: N818
    """403: not allowed, over quota, or the namespace is being deleted."""


class NotFound(ApiError):  # noqa: N818
    """404: there is no such object."""


class Conflict(ApiError):  # noqa: N818
    """409: it exists already, or it changed since it was read."""


class Gone(ApiError):  # noqa: N818
    """410: the continue token of a list is too old."""


class Invalid(ApiError):  # noqa: N818
    """400 or 422: validation or an admission webhook refused the object."""


class Unavailable(ApiError):  # noqa: N818
    """429, 5xx or no connection: worth another try."""


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
    """The typed error of an HTTP status."""
    kind = _BY_STATUS.get(status, Unavailable if status >= 500 else ApiError)
    return kind(status, message, retry_after)
