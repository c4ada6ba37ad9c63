"""Times as Kubernetes and kubectl write them."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest

from anomaly_operator.decide.times import from_timestamp, to_age, to_timestamp


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (7199, "119m"),
        (7200, "2h0m"),
        (12_000, "3h20m"),
        (187_200, "2d4h"),
        (172_800, "2d0h"),
    ],
)
def test_durations_have_one_or_two_units(seconds: int, text: str) -> None:
    assert to_age(seconds) == text


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_from_utc")
def test_a_time_is_written_in_utc_wherever_the_operator_runs() -> None:
    noon = datetime(2026, 1, 2, 12, 0, 0, 999_999, tzinfo=UTC)
    in_india = noon.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert to_timestamp(noon) == to_timestamp(in_india) == "2026-01-02T12:00:00Z"
    assert from_timestamp("2026-01-02T17:30:00.999999+05:30") == noon
