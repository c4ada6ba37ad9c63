"""The processes that train beside this one: started, watched, and gone when this one is done.

This process has the first device and everything that a run has one of. A follower has a share of each step's images,
and is told all it needs to know on its standard input, which ends when this process does: then it ends too. One that
ends before the training does fails the run at once, with its last words; what this process waits for in the meantime is
broken off.
"""

import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch import distributed as dist
from torch._C._distributed_c10d import FileStore, Store

from anomaly_runner.errors import InternalError, OutOfMemory, RunFailed
from anomaly_runner.training.gradient.images import ImageData
from anomaly_runner.training.gradient.order import Order
from anomaly_runner.training.gradient.together import Together, join

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.2
_FAREWELL_SECONDS = 30.0
"""For followers to end after the training, and for this process to notice that one is gone."""
_TAIL = 600
"""Characters of a follower's last words."""


class Followers:
    """One process for each device but the first.

    Args:
        order: what they do.
        descriptor: open file with the training inputs.
    """

    def __init__(self, order: Order, descriptor: int) -> None:
        self._kind = order.kind
        self._logs = [order.work / f"device{rank}.log" for rank in range(1, order.plan.devices)]
        self._over = threading.Event()
        self._processes = [
            _start(replace(order, rank=rank), descriptor, log) for rank, log in enumerate(self._logs, start=1)
        ]
        self._watch = threading.Thread(target=self._keep_watch, name="followers", daemon=True)
        self._watch.start()

    def check(self) -> None:
        """Raise if one of them has failed.

        Raises:
            OutOfMemory: for lack of memory.
            InternalError: for another reason.
        """
        for process, log in zip(self._processes, self._logs, strict=True):
            if process.poll():
                raise _failure(process.returncode, log)

    def wait_for(self, store: Store) -> None:
        """Wait until all of them have loaded their libraries and built their model; raises as ``check``."""
        keys = [ready(rank) for rank in range(1, len(self._processes) + 1)]
        while not store.check(keys):
            self.check()
            time.sleep(_LOOK_SECONDS)

    def explain(self) -> None:
        """Raise what a failure here came from, if one of them is the cause: it may need a moment to end."""
        until = time.monotonic() + _FAREWELL_SECONDS / 6
        while time.monotonic() < until:
            self.check()
            time.sleep(_LOOK_SECONDS)

    def _keep_watch(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            if any(process.poll() for process in self._processes):
                self._break_off()
                return

    def _break_off(self) -> None:
        """Between GPUs nothing tells a waiting process that another is gone; between CPUs a closed connection does."""
        if self._kind == "cuda" and dist.is_initialized():
            threading.Thread(target=dist.distributed_c10d._abort_process_group, daemon=True).start()
        if not self._over.wait(_FAREWELL_SECONDS):
            self._give_up()

    def _give_up(self) -> None:
        """The last resort, when this process cannot be woken: its exit code tells what the log says in words."""
        try:
            self.check()
        except RunFailed as error:
            logger.error("run failed", extra={"reason": error.reason.value, "detail": str(error)})
            os._exit(error.exit_code)

    def see_off(self) -> None:
        """Wait until they have ended by themselves, as they do after the last epoch."""
        until = time.monotonic() + _FAREWELL_SECONDS
        for process in self._processes:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.warning("a training process did not end in time")

    def end(self) -> None:
        """End those that are still there."""
        self._over.set()
        self._watch.join()
        for process in self._processes:
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


def ready(rank: int) -> str:
    """Key that a follower sets when it can begin."""
    return f"ready{rank}"


def _start(order: Order, descriptor: int, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as words:
        process = subprocess.Popen(
            [sys.executable, "-m", "anomaly_runner.training.gradient.follower", str(descriptor)],
            stdin=subprocess.PIPE,
            stdout=words,
            stderr=words,
            pass_fds=[descriptor],
            start_new_session=True,
        )
    assert process.stdin is not None
    pickle.dump(order, process.stdin)
    process.stdin.flush()
    return process


def _failure(code: int, log: Path) -> RunFailed:
    words = log.read_text(errors="replace").strip()
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    message = f"training.devices: the process {log.stem} {how}: {words[-_TAIL:] or 'without a word'}"
    short = "OutOfMemoryError" in words or "can't allocate memory" in words
    return OutOfMemory(message) if short else InternalError(message)


@contextmanager
def followers(order: Order, data: ImageData) -> Iterator[Together]:
    """Other processes that train with this one; what is raised inside on a follower's account says so."""
    descriptor = data.training_descriptor
    assert descriptor is not None, "images that other processes can open"
    order.meeting.unlink(missing_ok=True)
    store = FileStore(str(order.meeting), order.plan.devices)
    crew = Followers(order, descriptor)
    try:
        crew.wait_for(store)
        join(store, order.share, order.device)
        yield Together(order.share, order.plan.batch_size, data.training_count, crew.check)
        crew.see_off()
    except RunFailed:
        raise
    except Exception:
        crew.explain()
        raise
    finally:
        crew.end()
        if dist.is_initialized():
            dist.destroy_process_group()
