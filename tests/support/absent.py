"""Tests whose cluster, server or program is not there: skipped where a part of the tests is run, failed by `make test`.

A skip is a line that nobody reads, and a whole folder of them looks like success.
"""

import os
from typing import NoReturn

import pytest

VARIABLE = "ANOMALY_TESTS_NEED_ALL"


def all_is_needed() -> bool:
    """Whether everything that a test may need has to be there."""
    return bool(os.environ.get(VARIABLE))


def absent(reason: str) -> NoReturn:
    """Skip a test that lacks something; fail it where everything has to be there."""
    if all_is_needed():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def needs(is_there: bool, reason: str) -> pytest.MarkDecorator:
    """Return the mark of tests that need something which is there or not; where all is needed, they run and fail."""
    return pytest.mark.skipif(not is_there and not all_is_needed(), reason=reason)
