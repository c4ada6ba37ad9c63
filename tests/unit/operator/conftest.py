"""Fixtures of the operator's unit tests."""

import time
from collections.abc import Iterator

import pytest


@pytest.fixture
def far_from_greenwich() -> Iterator[None]:
    """Nine hours of difference: the machine's own zone is not to be seen in what Kubernetes reads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()
