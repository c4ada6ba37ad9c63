"""Apply a function to many items on several threads, with results in order and bounded memory.

Work is divided by whole items and never inside one, so that a result depends only on its item and not on the number of
threads. A run therefore gives identical results on machines of different sizes.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")


def one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items in order; a thread of its own makes the next one while the caller uses the last.

    The first item is made when it is asked for. An exception of ``items`` is raised in the place of its item. The
    thread ends with the iteration, at the latest when the item that it is making is done.
    """
    end = object()
    iterator: Iterator[Item | object] = iter(items)
    with ThreadPoolExecutor(1, "one-ahead") as pool:
        waiting = pool.submit(next, iterator, end)
        while (item := waiting.result()) is not end:
            waiting = pool.submit(next, iterator, end)
            yield cast("Item", item)


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    ahead: int | None = None,
    prepare_thread: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """Yield the results of ``function`` in the order of ``items``.

    The first exception, of ``function`` or ``items``, ends the iteration and is raised; calls that have not started are
    cancelled.

    Args:
        function: called on the threads.
        items: iterated over on the caller's thread, as results are consumed.
        threads: number of calls that run at the same time.
        ahead: largest number of items in progress whose results are not consumed yet; by default two per thread.
        prepare_thread: called once on each thread.
    """
    window = ahead or 2 * threads
    pool = ThreadPoolExecutor(threads, initializer=prepare_thread)
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
