"""The order of what is sent to a GPU and fetched from it, with a device that only takes notes."""

from collections.abc import Iterator

import pytest

from anomaly_runner.errors import Stopped
from anomaly_runner.scoring.pipeline import one_batch_late


class NotingDevice:
    """Takes notes of what it is sent and asked for; its results are the negative items.

    Args:
        refused: the item that it cannot work on.
    """

    def __init__(self, refused: int | None = None) -> None:
        self.notes: list[str] = []
        self._refused = refused

    def read(self, count: int) -> Iterator[int]:
        for item in range(count):
            self.notes.append(f"read {item}")
            yield item

    def send(self, item: int) -> int:
        if item == self._refused:
            raise MemoryError
        self.notes.append(f"send {item}")
        return item

    def fetch(self, sent: int) -> int:
        self.notes.append(f"fetch {sent}")
        return -sent

    def score(self, count: int) -> Iterator[int]:
        return one_batch_late(self.read(count), self.send, self.fetch)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_all_results_come_in_order(count: int) -> None:
    assert list(NotingDevice().score(count)) == [-item for item in range(count)]


def test_the_next_batch_is_sent_before_a_result_is_waited_for() -> None:
    device = NotingDevice()
    for result in device.score(3):
        device.notes.append(f"use {-result}")
    assert device.notes == [
        *("read 0", "send 0", "read 1", "send 1", "fetch 0", "use 0"),
        *("read 2", "send 2", "fetch 1", "use 1", "fetch 2", "use 2"),
    ]


def test_a_failure_of_a_batch_is_raised_when_it_is_sent() -> None:
    device = NotingDevice(refused=2)
    scores = device.score(5)
    assert next(scores) == 0
    with pytest.raises(MemoryError):
        next(scores)
    assert device.notes[-1] == "read 2"


def test_a_stopped_run_sends_nothing_more() -> None:
    device = NotingDevice()

    def use() -> None:
        for _ in device.score(5):
            raise Stopped

    with pytest.raises(Stopped):
        use()
    assert device.notes == ["read 0", "send 0", "read 1", "send 1", "fetch 0"]
