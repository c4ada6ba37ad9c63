"""Fixtures of the operator's unit tests."""

import time
from collections.abc import Iterator

import pytest
import structlog

# A coloured traceback with all variables takes seconds, and a defect that is retried has many.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture
def far_from_greenwich() -> Iterator[None]:
    """Nine hours of difference: the machine's own zone is not to be seen in what Kubernetes reads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()
