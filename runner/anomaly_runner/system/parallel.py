"""The same function over many items on several threads, results in order, memory bounded.

Work is spread over whole items and never inside one, so a result depends on its item alone: not on how many
threads there are. That is what makes a run repeat to the last digit on another machine size.
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
    """Results of ``function`` in the order of ``items``; at most ``ahead`` items (default: 2 a thread) are begun.

    The first exception ends the iteration; what has not begun is dropped.
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
