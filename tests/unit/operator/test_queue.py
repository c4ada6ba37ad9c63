"""The work queue: no key is lost, none is processed by two workers, and retries back off."""

import asyncio
from collections.abc import Iterator

import pytest

from anomaly_operator.metrics import REGISTRY
from anomaly_operator.work_queue import MAX_DELAY, Priority, WorkQueue
from support.played_loop import PlayedLoop


async def test_a_key_waits_once_however_often_it_is_added() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(5):
        queue.add("a")
    queue.add("b")
    assert len(queue) == 2
    assert [await queue.get(), await queue.get()] == ["a", "b"]


async def test_a_key_added_while_processed_is_handed_out_again() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    key = await queue.get()
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    queue.done(key)
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_many_workers_never_share_a_key() -> None:
    queue: WorkQueue[int] = WorkQueue()
    working: set[int] = set()
    seen: list[int] = []

    async def work() -> None:
        while True:
            key = await queue.get()
            assert key not in working
            working.add(key)
            await asyncio.sleep(0)
            working.discard(key)
            seen.append(key)
            queue.done(key)

    workers = [asyncio.create_task(work()) for _ in range(8)]
    for number in range(300):
        queue.add(number % 10)
        if number % 7 == 0:
            await asyncio.sleep(0)
    while len(queue):
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    assert set(seen) == set(range(10))
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)


async def test_delays_double_up_to_a_limit_and_success_forgets_them() -> None:
    queue: WorkQueue[str] = WorkQueue(jitter=lambda: 1.0)
    delays = [queue.add_rate_limited("a") for _ in range(14)]
    assert delays[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(delays) == delays[-1] == MAX_DELAY
    queue.forget("a")
    assert queue.add_rate_limited("a") == 0.5
    queue.shut_down()


async def test_of_several_delays_the_earliest_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 60)
    queue.add_after("a", 0.01)
    queue.add_after("a", 60)
    assert await asyncio.wait_for(queue.get(), 1) == "a"
    queue.done("a")
    await asyncio.sleep(0.02)
    assert len(queue) == 0


async def test_urgent_keys_come_first_but_normal_keys_do_not_starve() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for number in range(4):
        queue.add(f"slow-{number}")
    for number in range(6):
        queue.add(f"urgent-{number}", Priority.URGENT)
    order = [await queue.get() for _ in range(10)]
    assert order[:4] == ["urgent-0", "urgent-1", "urgent-2", "slow-0"]
    assert order.index("urgent-5") < order.index("slow-2")
    assert sorted(order) == sorted([f"slow-{n}" for n in range(4)] + [f"urgent-{n}" for n in range(6)])
    queue.add("slow-0", Priority.URGENT)
    queue.add("slow-1")
    for key in ("slow-1", "slow-0"):
        queue.done(key)
    assert [await queue.get(), await queue.get()] == ["slow-0", "slow-1"]


async def test_a_key_that_nothing_happened_to_comes_last_until_something_does() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for number in range(4):
        queue.add(f"idle-{number}", Priority.IDLE)
    queue.add("changed-0")
    queue.add("idle-2")
    queue.add("idle-3", Priority.URGENT)
    assert len(queue) == 5
    order = [await queue.get() for _ in range(5)]
    assert order == ["idle-3", "changed-0", "idle-2", "idle-0", "idle-1"]
    assert len(queue) == 0


async def test_idle_keys_do_not_starve() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("idle", Priority.IDLE)
    for number in range(20):
        queue.add(f"changed-{number}")
    order = [await queue.get() for _ in range(21)]
    assert order.index("idle") == 15


async def test_of_several_priorities_while_processed_the_highest_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    key = await queue.get()
    queue.add("a", Priority.URGENT)
    queue.add("a", Priority.IDLE)
    queue.add("b")
    queue.done(key)
    assert await queue.get() == "a"


async def test_urgency_lasts_while_the_key_is_processed() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.add("a", Priority.URGENT)
    queue.add("a")
    queue.add("b")
    queue.done("a")
    assert await queue.get() == "a", "a user's change goes before what waits already"


async def test_a_key_that_is_added_again_without_urgency_has_none() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.add("b", Priority.URGENT)
    queue.done("a")
    assert [await queue.get(), await queue.get()] == ["b", "a"]


async def test_runs_that_failed_together_are_not_retried_together() -> None:
    queue: WorkQueue[int] = WorkQueue()
    delays = [queue.add_rate_limited(number) for number in range(200)]
    queue.shut_down()
    assert len(set(delays)) > 190
    assert min(delays) >= 0.4
    assert max(delays) <= 0.6
    assert max(delays) - min(delays) > 0.15


async def test_each_key_has_its_own_backoff() -> None:
    queue: WorkQueue[str] = WorkQueue(jitter=lambda: 1.0)
    queue.add_rate_limited("a")
    queue.add_rate_limited("a")
    assert queue.add_rate_limited("b") == 0.5
    queue.forget("b")
    assert queue.add_rate_limited("a") == 2.0
    queue.shut_down()


async def test_a_queue_that_is_shut_down_adds_nothing_later() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0.01)
    queue.shut_down()
    await asyncio.sleep(0.03)
    assert len(queue) == 0


async def test_a_waiting_worker_gets_a_key_at_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    worker = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    assert await asyncio.wait_for(worker, 1) == "a"


async def test_a_key_keeps_its_place_and_its_urgency_however_often_it_is_added() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for priority in (Priority.URGENT, Priority.NORMAL, Priority.IDLE):
        queue.add("a", priority)
    queue.add("b", Priority.URGENT)
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    for key in ("a", "a", "c"):
        queue.done("a")
        queue.add(key)
    assert await queue.get() == "a"
    queue.done("a")
    queue.add("a")
    assert [await queue.get(), await queue.get()] == ["c", "a"], "nothing of its earlier place is left"


async def test_a_key_that_never_failed_has_nothing_to_forget() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.forget("a")
    assert len(queue) == 0


# In played time ------------------------------------------------------------------------------------------------------


@pytest.fixture
def loop() -> Iterator[PlayedLoop]:
    made = PlayedLoop()
    yield made
    made.close()


def handed_out(loop: PlayedLoop, queue: WorkQueue[str], seconds: float) -> list[tuple[str, float]]:
    """Return what is handed out within some time, and when."""
    found: list[tuple[str, float]] = []

    async def work() -> None:
        while True:
            key = await queue.get()
            found.append((key, round(loop.time(), 3)))
            queue.done(key)

    worker = loop.create_task(work())
    loop.run_for(seconds)
    worker.cancel()
    return found


def test_of_several_delays_one_remains(loop: PlayedLoop) -> None:
    queue: WorkQueue[str] = WorkQueue()
    for seconds in (60.0, 5.0, 30.0, 5.0):
        loop.call_soon(queue.add_after, "a", seconds)
    loop.call_soon(queue.add_after, "b", 20.0)
    assert handed_out(loop, queue, 100.0) == [("a", 5.0), ("b", 20.0)]


def test_a_failed_key_comes_back_after_its_delay(loop: PlayedLoop) -> None:
    queue: WorkQueue[str] = WorkQueue(jitter=lambda: 1.0)
    loop.call_later(0.0, queue.add_rate_limited, "a")
    loop.call_later(1.0, queue.add_rate_limited, "a")
    loop.call_later(1.0, queue.add_rate_limited, "b")
    assert handed_out(loop, queue, 100.0) == [("a", 0.5), ("b", 1.5), ("a", 2.0)]


def test_how_long_keys_waited_is_measured_from_when_they_were_added_first(loop: PlayedLoop) -> None:
    def total() -> float:
        return REGISTRY.get_sample_value("anomaly_operator_queue_seconds_sum") or 0.0

    queue: WorkQueue[str] = WorkQueue()
    loop.run_for(50.0)
    loop.call_soon(queue.add, "a")
    loop.call_later(3.0, queue.add, "a", Priority.URGENT)
    loop.run_for(10.0)
    before = total()
    assert REGISTRY.get_sample_value("anomaly_operator_queue_depth") == 1.0
    assert handed_out(loop, queue, 1.0) == [("a", 60.0)]
    assert total() - before == pytest.approx(10.0)
    assert REGISTRY.get_sample_value("anomaly_operator_queue_depth") == 0.0
