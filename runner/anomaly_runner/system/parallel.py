"""Apply a function to many items on several threads, with results in order and bounded memory.

Work is divided by whole items and never inside one, so that a result depends only on its item and not on the number of
threads. A run therefore gives identical results on machines of different sizes.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


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
