"""Times as Kubernetes and kubectl write them."""

import pytest

from anomaly_operator.decide.times import to_age


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h0m"), (12_000, "3h20m"), (187_200, "2d4h")],
)
def test_durations_have_one_or_two_units(seconds: int, text: str) -> None:
    assert to_age(seconds) == text
