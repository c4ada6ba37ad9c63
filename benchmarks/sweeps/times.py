"""When what happened in a sweep, and how long that kept the next trial waiting."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Delay(NamedTuple):
    """How long a freed place stayed empty."""

    at: float
    """When it became free, monotonic seconds."""
    seconds: float


@dataclass
class Times:
    """Of one sweep: monotonic seconds, in the order of time."""

    made: list[float] = field(default_factory=list)
    jobs: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def delays(self, parallel: int, began: Sequence[float]) -> list[Delay]:
        """Return the time from each end to what took its place: the n-th end frees the place of trial n + parallel.

        Args:
            parallel: trials at the same time.
            began: when the trials were made, or their Jobs.
        """
        pairs = zip(sorted(self.ends), sorted(began)[parallel:], strict=False)
        return [Delay(end, after - end) for end, after in pairs]


def percentiles(values: Iterable[float]) -> str:
    """Return the median and the 95th percentile."""
    known = list(values)
    return f"{quantile(known, 0.5):.2f} / {quantile(known, 0.95):.2f} s"


def quantile(values: Iterable[float], share: float) -> float:
    """Return a quantile; NaN of nothing."""
    known = sorted(values)
    if len(known) < 2:
        return known[0] if known else float("nan")
    return statistics.quantiles(known, n=100, method="inclusive")[round(share * 100) - 1]
