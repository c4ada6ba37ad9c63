"""The processes that train on the other devices: started, monitored and ended by this process.

This process is rank 0: it has the first device, and does everything that is done once in a run. A worker trains on its
part of each batch. It reads its ``WorkerSpec`` from its standard input, and the decoded images from a file descriptor
that it inherits. Standard input closes when this process ends for any reason; then the worker ends too.

A worker that fails during the training fails the run within seconds, with the last lines of its log; a collective
operation that this process is waiting in is aborted.

About pickle: loading a pickle may run any code, so it must come from a source that may run code anyway. A worker loads
one object, from a pipe whose only other end its own parent holds. No pickle comes from a file, the network or a user.
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

from anomaly_api.status import Stage
from anomaly_runner.errors import Diverged, InternalError, OutOfMemory, RunFailed
from anomaly_runner.system.out_of_memory import describe_out_of_memory_text, memory_advice, tells_out_of_memory
from anomaly_runner.training.gradient.data_module import ImageDataModule
from anomaly_runner.training.gradient.ddp import GradientSync, init_process_group
from anomaly_runner.training.gradient.worker_spec import WorkerSpec

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 30.0
"""Time for workers to end after the training, and for this process to fail once a worker has failed."""
_LOG_TAIL = 600
"""Characters of a worker's log in the message of its failure."""


class WorkerProcesses:
    """One process for each device except the first.

    Args:
        spec: the training; each process gets a copy with its own rank.
        descriptor: of the open file with the decoded training images.
    """

    def __init__(self, spec: WorkerSpec, descriptor: int) -> None:
        self._device_type = spec.device_type
        self._logs = [spec.work / f"device{rank}.log" for rank in range(1, spec.plan.devices)]
        self._closed = threading.Event()
        self._processes = [
            _start(replace(spec, rank=rank), descriptor, log) for rank, log in enumerate(self._logs, start=1)
        ]
        self._monitor = threading.Thread(target=self._watch, name="workers", daemon=True)
        self._monitor.start()

    def check(self) -> None:
        """Check that no worker has failed.

        Raises:
            OutOfMemory: one had too little memory.
            InternalError: one failed for another reason.
        """
        for process, log in zip(self._processes, self._logs, strict=True):
            if process.poll():
                raise _failure(process.returncode, log)

    def wait_until_ready(self, store: Store) -> None:
        """Wait until all workers have imported their libraries and built their model; raises as ``check``."""
        keys = [ready_key(rank) for rank in range(1, len(self._processes) + 1)]
        while not store.check(keys):
            self.check()
            time.sleep(_POLL_SECONDS)

    def raise_if_cause(self) -> None:
        """Raise as ``check`` if a worker caused a failure of this process; waits some seconds for the worker to end."""
        until = time.monotonic() + _GRACE_SECONDS / 6
        while time.monotonic() < until:
            self.check()
            time.sleep(_POLL_SECONDS)

    def _watch(self) -> None:
        """Poll for failed workers until ``close``; runs in the monitoring thread."""
        while not self._closed.wait(_POLL_SECONDS):
            if any(process.poll() for process in self._processes):
                self._abort_collectives()
                return

    def _abort_collectives(self) -> None:
        """Abort a collective operation in which this process waits for the failed worker.

        NCCL does not notice that another process is gone; gloo does, by the closed connection. A process that still
        waits after the grace time is ended.
        """
        if self._device_type == "cuda" and dist.is_initialized():
            threading.Thread(target=dist.distributed_c10d._abort_process_group, daemon=True).start()
        if not self._closed.wait(_GRACE_SECONDS):
            self._exit_process()

    def _exit_process(self) -> None:
        """End this process, with the exit code of the worker's failure, after logging the failure."""
        try:
            self.check()
        except RunFailed as error:
            logger.error("run failed", extra={"reason": error.reason.value, "detail": str(error)})
            os._exit(error.exit_code)

    def join(self) -> None:
        """Wait for the workers to end by themselves after the last epoch; log those that do not in time."""
        until = time.monotonic() + _GRACE_SECONDS
        for process in self._processes:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.warning("a training process did not end in time")

    def close(self) -> None:
        """Kill the workers that still run, and stop monitoring."""
        self._closed.set()
        self._monitor.join()
        for process in self._processes:
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


def ready_key(rank: int) -> str:
    """Key of the FileStore that a worker sets once it is ready to train."""
    return f"ready{rank}"


def _start(spec: WorkerSpec, descriptor: int, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "anomaly_runner.training.gradient.worker", str(descriptor)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=[descriptor],
            start_new_session=True,  # signals to this process's group must not reach the workers
        )
    assert process.stdin is not None
    pickle.dump(spec, process.stdin)
    process.stdin.flush()
    return process


def _failure(exit_code: int, log: Path) -> RunFailed:
    text = log.read_text(errors="replace").strip()
    how = f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with code {exit_code}"
    who = f"training.devices: the process {log.stem} {how}"
    if tells_out_of_memory(text):
        advice = memory_advice("AnomalyExperiment", Stage.TRAIN)
        return OutOfMemory(f"{who}: {describe_out_of_memory_text(text, advice)}")
    return InternalError(f"{who}: {text[-_LOG_TAIL:] or 'without a word'}")


@contextmanager
def running_workers(spec: WorkerSpec, data: ImageDataModule) -> Iterator[GradientSync]:
    """Run the workers of a training; this process is rank 0 of their process group inside the block.

    Yields:
        The callback that this process's Trainer needs.

    Raises:
        OutOfMemory: a worker had too little memory.
        InternalError: a worker failed for another reason; replaces an exception in the block that followed from it.
    """
    descriptor = data.training_descriptor
    assert descriptor is not None, "images that other processes can open"
    spec.rendezvous_file.unlink(missing_ok=True)
    store = FileStore(str(spec.rendezvous_file), spec.plan.devices)
    workers = WorkerProcesses(spec, descriptor)
    try:
        # detect workers that cannot start here: in the rendezvous this process would wait for ever
        workers.wait_until_ready(store)
        init_process_group(store, spec.partition, spec.device)
        yield GradientSync(spec.partition, spec.plan.batch_size, data.training_count, workers.check)
        workers.join()
    except Exception as error:
        # a loss that is not a number may be what an aborted collective has left behind
        if isinstance(error, RunFailed) and not isinstance(error, Diverged):
            raise
        workers.raise_if_cause()
        raise
    finally:
        workers.close()
        if dist.is_initialized():
            dist.destroy_process_group()
