"""Work on other threads, in order."""

import threading
from collections.abc import Iterator

import pytest

from anomaly_runner.system.parallel import one_ahead


def test_items_made_ahead_keep_their_order() -> None:
    assert list(one_ahead(iter(range(5)))) == list(range(5))
    assert list(one_ahead(iter(()))) == []


def test_the_next_item_is_made_while_the_last_is_used_and_no_other() -> None:
    made = [threading.Event() for _ in range(4)]

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    ahead = one_ahead(items())
    assert not made[0].is_set()
    assert next(ahead) == 0
    assert made[1].wait(10)
    assert not made[2].is_set()


def test_an_exception_is_raised_in_the_place_of_its_item() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise ZeroDivisionError

    ahead = one_ahead(items())
    assert next(ahead) == 0
    with pytest.raises(ZeroDivisionError):
        next(ahead)


def test_no_thread_is_left_where_the_rest_is_not_wanted() -> None:
    before = threading.active_count()
    ahead = one_ahead(iter(range(5)))
    assert next(ahead) == 0
    ahead.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
